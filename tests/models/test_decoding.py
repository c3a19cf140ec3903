"""The table of decoding methods: it describes each method, and an entry and a module add one."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from pollination.analysis.cost.work import Loads
from pollination.models.completion import complete
from pollination.models.sampling import Decoding, draw, sample
from pollination.plan.config import schema as config_schema
from pollination.plan.config.resolve import resolve
from pollination.plan.decoding import DECODINGS, Method
from pollination.plan.plan import Plan
from tests.conftest import TOY
from tests.models.test_sampling import EOS, random_prompts, tiny_model

SETTINGS = {"batch_size": 4, "max_new_tokens": 12, "top_p": 0.9, "num_beams": 3}
PROMPTS = random_prompts([3, 9, 1, 6, 4])


def completions(decoding: str, seed: int = 0, temperature: float = 1.0) -> list[list[int]]:
    settings = SETTINGS | {"decoding": decoding, "temperature": temperature}
    seeds = [seed + n for n in range(len(PROMPTS))]
    return list(complete(tiny_model("llama"), PROMPTS, seeds, settings, EOS))


@pytest.mark.parametrize("decoding", DECODINGS)
def test_a_method_does_what_its_entry_says(decoding):
    method, written = DECODINGS[decoding], completions(decoding)
    assert len(written) == len(PROMPTS) and written == completions(decoding)
    assert (completions(decoding, seed=100) == written) == method.repeats
    assert (completions(decoding, temperature=6.0) != written) == method.temperature


def test_no_method_means_nucleus():
    settings = {key: value for key, value in SETTINGS.items() if key != "decoding"}
    seeds = list(range(len(PROMPTS)))
    written = list(
        complete(tiny_model("llama"), PROMPTS, seeds, settings | {"temperature": 1.0}, EOS)
    )
    assert written == completions("nucleus")


@pytest.fixture
def enter(monkeypatch):
    """Enter a method into the table, and its function into a module of pollination.models."""

    def entry(function, **facts) -> None:
        monkeypatch.setitem(
            sys.modules, "pollination.models.trial", SimpleNamespace(decode=function)
        )
        monkeypatch.setitem(DECODINGS, "trial", Method("a trial", "trial.decode", **facts))
        config_schema.schema.cache_clear()

    yield entry
    config_schema.schema.cache_clear()


def likely_only(logits_BV, keys_B, decoding):
    """Sample from the tokens that are at least top_p times as likely as the likeliest."""
    shares_BV = logits_BV.softmax(-1)
    outside_BV = shares_BV < decoding.top_p * shares_BV.amax(-1, keepdim=True)
    return draw(
        logits_BV.masked_fill(outside_BV, -torch.inf), keys_B, replace(decoding, decoding="sample")
    )


def test_a_sampler_is_an_entry_and_a_function_that_draws(enter):
    def decode(model, prompts, row_seeds, settings, eos_id, stop=None):
        decoding = replace(Decoding.from_settings(settings), top_p=1.0)
        return sample(model, prompts, row_seeds, decoding, eos_id, 4, stop, draw=likely_only)

    enter(decode)
    assert completions("trial") == completions("greedy")  # no token is as likely as the likeliest
    raw = yaml.safe_load(TOY.read_text())
    raw["defaults"]["generate"]["decoding"] = "trial"
    assert resolve(raw)["experiments"]["line"]["generate"]["decoding"] == "trial"


def test_a_method_that_could_write_ids_without_token_is_refused(enter):
    def decode(model, prompts, row_seeds, settings, eos_id, stop=None):
        return sample(model, prompts, row_seeds, Decoding(), eos_id, 4, stop)

    enter(decode)
    settings = SETTINGS | {"decoding": "trial"}
    with pytest.raises(ValueError, match="no parameter `never`, but the model has 1 ids"):
        complete(tiny_model("llama"), PROMPTS, [0] * 5, settings, EOS, never=torch.tensor([9]))


def written_flops(**generate) -> float:
    raw = yaml.safe_load(TOY.read_text())
    raw["defaults"]["generate"] |= {"tokens": None} | generate
    return sum(load.flops.get("write", 0.0) for load in writes(Plan(resolve(raw), "results/toy")))


def writes(plan: Plan):
    return (load for load in Loads(plan) if load.work.stage == "write")


def test_the_plan_and_the_forecast_read_the_entry(enter):
    enter(None, repeats=True, width="top_k")
    assert written_flops(decoding="trial", top_k=7) == pytest.approx(
        7 * written_flops(decoding="sample")
    )
    message = "decoding: trial, which writes only one completion per prompt"
    with pytest.raises(ValueError, match=message):
        written_flops(decoding="trial", tokens=1000)
