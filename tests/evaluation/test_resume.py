"""A computation that is stopped after each batch has the bits of an undisturbed one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.core import resume
from pollination.core.job import Stopped
from pollination.evaluation.disagreement import disagreement
from pollination.evaluation.harness import HarnessModel
from pollination.evaluation.perplexity import perplexity, sequence_logprobs
from pollination.models import beam, sampling
from pollination.models.contract import TREE, contract_of
from pollination.models.prefix_tree import continuation_logprobs
from tests.evaluation.test_harness import (
    COMMON,
    CONTEXT,
    FAMILIES,
    VOCABULARY,
    instances,
    ragged_pairs,
    text,
    tokenizer,
)

__all__ = ["tokenizer"]  # a fixture


class Stop:
    """A stop request that comes after `left` batches."""

    reason, may_save = "SIGTERM", True

    def __init__(self, left: int) -> None:
        self.left = left

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def made(family: str, seed: int = 0):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **COMMON, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    contract_of(model)  # examined once, outside the calls that are counted
    return model


@pytest.fixture(scope="module", params=["llama", "gemma2", "mamba"])
def model(request):
    return made(request.param)


def stopped_each_time(folder: Path, model, compute: Callable[[], Any]) -> Any:
    """The result of starts that each stop after one more batch; at least one stops."""
    resume.name(model, "member")
    for start in range(500):
        try:
            with resume.saving(folder, Stop(1)):
                found = compute()
        except Stopped as stopped:
            assert "batches saved; run the same command to resume" in str(stopped)
        else:
            assert start > 0
            return found
    raise AssertionError("no start came to the end")


def prompts(seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(1, VOCABULARY, n).tolist() for n in (1, 3, 9, 17, 9, 4, 11, 2)]


def test_losses_of_documents(model, tmp_path):
    documents = [np.array(ids) for ids in prompts()]

    def compute():
        return perplexity(model, documents, 3)

    assert stopped_each_time(tmp_path, model, compute).equals(compute())


def test_log_probabilities_of_words(model, tmp_path):
    def compute():
        return [part.tobytes() for part in sequence_logprobs(model, prompts(), 0, 3)]

    assert stopped_each_time(tmp_path, model, compute) == compute()


@pytest.mark.parametrize("decoding", ["nucleus", "greedy"])
def test_samples(model, tmp_path, decoding):
    settings = {"decoding": decoding, "max_new_tokens": 12, "batch_size": 3, "temperature": 1.0}

    def compute():
        return list(sampling.decode(model, prompts(), list(range(8)), settings, 0))

    assert stopped_each_time(tmp_path, model, compute) == compute()


def test_beams(tmp_path):
    model = made("llama")
    settings = {"decoding": "beam", "num_beams": 3, "max_new_tokens": 8, "batch_size": 6}

    def compute():
        return list(beam.decode(model, prompts(), [], settings, 0))

    assert stopped_each_time(tmp_path, model, compute) == compute()


@pytest.mark.parametrize("batch_tokens", [7, 50])
def test_continuations_with_prefixes_that_passes_carry_over(model, tmp_path, batch_tokens):
    if not contract_of(model).allows(TREE):
        pytest.skip("each request is read by itself")
    draw = np.random.default_rng(0)
    examples = draw.integers(1, VOCABULARY, 20).tolist()
    sequences = [np.array(examples + prompt)[-CONTEXT:] for prompt in prompts()]
    targets = [sequence[-2:] for sequence in sequences]

    def compute():
        return [
            found.tobytes()
            for found in continuation_logprobs(model, sequences, targets, batch_tokens)
        ]

    assert stopped_each_time(tmp_path, model, compute) == compute()


def test_continuations_of_weights_in_half_precision(tmp_path):
    model = made("llama").to(torch.bfloat16)
    sequences = [np.array(prompts()[3] + prompt) for prompt in prompts(1)]
    targets = [sequence[-1:] for sequence in sequences]

    def compute():
        return [found.tobytes() for found in continuation_logprobs(model, sequences, targets, 7)]

    assert stopped_each_time(tmp_path, model, compute) == compute()


def test_likelihoods_of_tasks(model, tokenizer, tmp_path):
    requests = instances(ragged_pairs())

    def compute():
        return HarnessModel(model, tokenizer, batch_size=4).loglikelihood(requests)

    whole = compute()
    assert stopped_each_time(tmp_path, model, compute) == whole


@pytest.mark.parametrize("sampled", [False, True])
def test_generated_answers_of_tasks(tokenizer, tmp_path, sampled):
    """Sampled answers draw from torch's own generator, whose state is kept too."""
    model = made("llama")
    drawn = {"do_sample": True, "temperature": 1.0} if sampled else {}
    requests = [
        Instance(
            "generate_until",
            {},
            (text(prompt), {"until": ["w9"], "max_gen_toks": 6 + n % 2} | drawn),
            n,
        )
        for n, prompt in enumerate(prompts())
    ]

    def compute():
        torch.manual_seed(3)
        return HarnessModel(model, tokenizer, batch_size=2).generate_until(requests)

    whole = compute()
    assert stopped_each_time(tmp_path, model, compute) == whole


def test_disagreement(tmp_path):
    members, rows = [made("llama", seed) for seed in (0, 1)], [np.array(ids) for ids in prompts()]

    def compute():
        frame, pairs_MM = disagreement(members, rows, 3)
        return frame.to_csv(), pairs_MM.tobytes()

    assert stopped_each_time(tmp_path, members[0], compute) == compute()
