"""The plan: which files an experiment consists of and what each step reads."""

import subprocess
import sys

import yaml

from pollination.config import resolve
from pollination.workflow import Plan
from tests.conftest import ROOT


def plan(**experiments) -> Plan:
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["experiments"] = experiments
    return Plan(resolve(raw), "r")


FULL = {"population": 9, "select": {"task": "social"}, "mutate": {"scale": 0.01}, "generate": {"shards": 2}}


def test_child_takes_weights_of_parent_i_and_text_of_parent_j():
    p = plan(full=FULL)
    assert p.child_inputs("full", 3, 5) == {
        "weights": ["r/full/gen2/parent1/model.safetensors"],
        "text": ["r/full/gen2/synthetic2/shard0.parquet", "r/full/gen2/synthetic2/shard1.parquet"],
    }
    pairs = {(p.weights("full", 1, m)[0], p.text("full", 1, m)[0]) for m in range(9)}
    assert len(pairs) == 9


def test_generation_0_is_the_pool_and_a_smaller_population_takes_a_prefix():
    p = plan(full=FULL, small={**FULL, "population": 4})
    assert p.pool_sizes == {"human": 9}
    assert p.member("small", 0, 3) == p.member("full", 0, 3) == "r/founders/human/member3"
    assert len(p.evaluations("scores.json")) == 9 + 4 * 9 + 4 * 4


def test_whoever_may_hold_a_rank_is_an_input_of_what_the_rank_does():
    inputs = plan(full=FULL).parent_inputs("full", 1, 2)
    assert inputs["selection"] == ["r/full/gen1/selection.json"]
    assert inputs["members"] == [f"r/full/gen1/member{m}/model.safetensors" for m in range(9)]


def test_operators_without_selection_use_slots():
    line = {"population": 3, "weights": "own", "text": "own"}
    p = plan(own=line, fresh={**line, "weights": "fresh"}, back={**line, "weights": "founder"}, noisy={**line, "mutate": {"scale": 0.1}})
    assert p.child_inputs("own", 2, 1) == {
        "weights": ["r/own/gen1/member1/model.safetensors"],
        "text": ["r/own/gen1/synthetic1/shard0.parquet"],
    }
    assert p.weights("fresh", 2, 1) == []
    assert p.weights("back", 2, 1) == ["r/founders/human/member1/model.safetensors"]
    assert p.weights("noisy", 2, 1) == ["r/noisy/gen1/parent1/model.safetensors"]
    assert p.parent_inputs("own", 1, 2) == {"members": ["r/own/gen1/member2/model.safetensors"]}


def test_pool_deals_everybodys_text():
    p = plan(ecosystem={"population": 3, "weights": "own", "text": "pool", "human": {"fraction": 0.1}})
    inputs = p.child_inputs("ecosystem", 1, 2)
    assert inputs["text"] == ["r/ecosystem/gen0/deal2/text.parquet"]
    assert inputs["human"] == ["r/tokens/tiny/world/train.bin"]
    assert p.all_shards("ecosystem", 0) == [f"r/ecosystem/gen0/synthetic{m}/shard0.parquet" for m in range(3)]


def test_best_on_validation_reads_validation_text():
    assert plan(best={**FULL, "train": {"keep": "best"}}).child_inputs("best", 1, 0)["validation"] == ["r/tokens/tiny/world/validation.bin"]


def test_the_rules_floor_imports_nothing_heavy():
    heavy = ["torch", "transformers", "datasets", "lm_eval", "pandas", "matplotlib"]
    code = f"import sys, pollination.workflow, pollination.config; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
