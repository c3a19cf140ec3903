"""A process that scores several members: what it keeps changes no bit of the next one's scores."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.core import artifacts, resume
from pollination.core.job import Stopped
from pollination.evaluation.answers import evaluate_tasks
from pollination.evaluation.member import evaluate
from pollination.evaluation.requests import Kept, write_requests
from pollination.models.checkpoint import save_model
from pollination.models.inference import Inference, Instance
from tests.evaluation.test_resume import Stop
from tests.evaluation.test_scoring import (
    WORDS,
    corpus,
    microworld,
    staged,
    word_tokenizer,
)

__all__ = ["corpus", "word_tokenizer"]  # fixtures

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
FAMILIES = {
    "llama": SIZES | {"num_attention_heads": 2},
    "wide": SIZES | {"num_attention_heads": 2, "intermediate_size": 48},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
}
EVALUATE = {"batch_size": 1}


@pytest.fixture
def members(tmp_path, word_tokenizer):
    """Folders of models, two of one architecture: name -> folder."""
    folders = {}
    for seed, (name, family) in enumerate(
        [("first", "llama"), ("second", "llama"), ("wide", "wide"), ("other", "gpt2")]
    ):
        common = {"vocab_size": len(WORDS), "max_position_embeddings": 24, "initializer_range": 1.0}
        common |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
        kind = "gpt2" if family == "gpt2" else "llama"
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **common, **FAMILIES[family])
        )
        folders[name] = tmp_path / name
        save_model(model, folders[name])
        word_tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def benchmarks(tmp_path, corpus, word_tokenizer):
    """(task folders, request tables, digests) of one benchmark, scored in two ways."""
    tasks, requests = {}, {}
    for name, spec in (("chosen", {"num_fewshot": 1}), ("written", {"method": "generate"})):
        tasks[name], requests[name] = tmp_path / name, tmp_path / f"{name}.parquet"
        staged(microworld(**spec), tasks[name], corpus)
        write_requests(tasks[name], word_tokenizer, 1234, requests[name])
    files = [*(folder / "task.json" for folder in tasks.values()), *requests.values()]
    return tasks, requests, {str(file): artifacts.digest(file) for file in files}


def score(folder, benchmarks, precision="fp32", kept=None, instance=None):
    """All that an evaluation finds of the benchmarks, as text of all its digits."""
    tasks, requests, digests = benchmarks
    model, tokenizer = Inference(torch.device("cpu"), precision).member(folder, instance)
    resume.name(model, "member")
    scores, answers = evaluate_tasks(
        model, tokenizer, tasks, EVALUATE, 1234, requests=requests, kept=kept, digests=digests
    )
    return json.dumps(scores, sort_keys=True) + answers.to_json(double_precision=15)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_of_one_process_equal_those_of_separate_ones(members, benchmarks, precision):
    kept, instance = Kept(), Instance()
    apart = {name: score(folder, benchmarks, precision) for name, folder in members.items()}
    assert len(set(apart.values())) == len(apart)
    placed = {}
    for name in ("first", "second", "other", "second", "wide", "first", "first"):
        together = score(members[name], benchmarks, precision, kept, instance)
        assert together == apart[name], name
        placed[name] = instance.reused, instance.placed
    # only the first member reads the benchmarks
    assert len(kept.loaded) == 2 and kept.reused == 2 * 6
    # of these, only the last "first" came after a member of its architecture
    assert placed["first"][0] and not placed["wide"][0] and not placed["other"][0]


def test_an_instance_takes_the_weights_of_the_next_member(members):
    cpu, instance = Inference(torch.device("cpu"), "fp32"), Instance()
    first, _ = cpu.member(members["first"], instance)
    second, _ = cpu.member(members["second"], instance)
    assert second is first and instance.reused
    alone, _ = cpu.member(members["second"])
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    # a buffer that no file holds has changed, as with some rotary positions
    dict(second.named_buffers())["model.rotary_emb.inv_freq"].mul_(2)
    third, _ = cpu.member(members["second"], instance)
    assert third is not second and not instance.reused
    rounded, _ = Inference(torch.device("cpu"), "bf16").member(members["second"], instance)
    assert rounded.dtype == torch.bfloat16


def test_a_stopped_member_resumes_in_a_process_that_scored_another(members, benchmarks, tmp_path):
    apart, starts = score(members["second"], benchmarks), 0
    while True:
        kept, instance = Kept(), Instance()
        score(members["first"], benchmarks, kept=kept, instance=instance)
        try:
            with resume.saving(tmp_path, Stop(2)):
                together = score(members["second"], benchmarks, kept=kept, instance=instance)
            break
        except Stopped:
            starts += 1
    assert starts and together == apart


def test_other_questions_are_read_anew(members, benchmarks):
    kept = Kept()
    before = score(members["first"], benchmarks, kept=kept)
    tasks, requests, digests = benchmarks
    changed = {name: "0" + digest[1:] for name, digest in digests.items()}
    assert score(members["first"], (tasks, requests, changed), kept=kept) == before
    assert kept.reused == 0 and len(kept.loaded) == 2  # the former questions are forgotten


@pytest.mark.parametrize(
    ("measures", "task", "stays"),
    [({}, {}, True), ({"own": "x.py:f"}, {}, False), ({}, {"include_path": "x"}, False)],
)
def test_a_process_with_functions_of_the_user_scores_one_member(tmp_path, measures, task, stays):
    artifacts.write_json(tmp_path / "task.json", task)
    said = []
    job = SimpleNamespace(
        params=SimpleNamespace(evaluate={"measures": measures}, seed=1),
        files=lambda _: [tmp_path / "task.json"],
        key=str,
        claim=lambda *_, **__: None,  # it is done already
        stay=lambda with_gpu: said.append(with_gpu),
    )
    evaluate(job, tmp_path)
    assert bool(said) == stays
