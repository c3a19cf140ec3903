"""Interaction graphs in a real run: own, parent and pool as graphs, and a mixture of writers."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pollination.core import artifacts
from pollination.core.artifacts import digest
from pollination.plan.config.resolve import resolve
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from tests.conftest import TOY, planned, snakemake

pytestmark = pytest.mark.slow
SELECTED = {"population": 1, "weights": "parent", "select": {"task": "knowledge", "k": 1}}
EXPERIMENTS = {
    "own": {"text": "own"},
    "own_graph": {"text": "graph", "graph": {"rule": "ring", "own": 1}},
    "pool": {"text": "pool"},
    "pool_graph": {"text": "graph", "graph": {"rule": "mixed"}},
    "parent": {**SELECTED, "text": "parent"},
    "parent_graph": {**SELECTED, "text": "graph", "graph": {"rule": "star"}},
    "soup": {
        "text": "own",
        "weights": "soup",
        "soup": {"rule": "shares", "shares": [[0.25, 0.75]] * 2},
    },
    "mixture": {"text": "graph", "graph": {"rule": "mixed", "own": 0.25}},
}
WEIGHTS = [f"{name}/gen1/member0/model.safetensors" for name in EXPERIMENTS]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    raw = yaml.safe_load(TOY.read_text())
    raw |= {"run": "graph", "experiments": copy.deepcopy(EXPERIMENTS)}
    raw["founders"]["human"]["train"] |= {"tokens": 1600, "epochs": 1}
    raw["evaluate"] = {"samples": raw["evaluate"]["samples"]}
    raw["tasks"] = {"knowledge": raw["tasks"]["knowledge"]}
    raw["defaults"] |= {"population": 2, "generations": 2, "weights": "fresh"}
    raw["defaults"]["generate"] |= {"tokens": 600, "shards": 1}
    path = tmp_path_factory.mktemp("config") / "graph.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    snakemake(folder, "--", *(f"results/graph/{path}" for path in WEIGHTS), configfile=config)
    return folder / "results/graph"


def test_snakemake_plans_the_jobs_of_the_graph(config, tmp_path):
    found = planned(snakemake(tmp_path, "-n", configfile=config))
    assert found["deal_pool"] == 4 and found["mix_text"] == 2 and found["average_weights"] == 1
    plan = Plan(resolve(yaml.safe_load(config.read_text())), "results/graph")
    assert len(list(jobs(plan))) == found["total"] - found["all"] - found["write_config"]


@pytest.mark.parametrize("operator", ["own", "pool", "parent"])
def test_an_operator_and_its_graph_give_equal_weights(run, operator):
    first, second, other = (
        digest(run / f"{name}/gen1/member0/model.safetensors")
        for name in (operator, f"{operator}_graph", "mixture")
    )
    assert first == second != other


def test_a_soup_is_the_average_of_the_founders_with_their_shares(run):
    first, second, soup = (
        load_file(run / f"{folder}/model.safetensors")
        for folder in ("founders/human/member0", "founders/human/member1", "soup/gen0/soup0")
    )
    assert soup.keys() == first.keys()
    for name, tensor in soup.items():
        assert torch.allclose(tensor, 0.25 * first[name] + 0.75 * second[name], atol=1e-6)
    record = artifacts.read_json(run / "soup/gen1/member0/run.json")
    assert any("soup0/model.safetensors" in path for path in record["inputs"])


def test_a_mixture_holds_the_shares_of_its_writers(run):
    written = [
        artifacts.read_table(run / f"mixture/gen0/synthetic{rank}/shard0.parquet").to_pylist()
        for rank in (0, 1)
    ]
    read = artifacts.read_table(run / "mixture/gen0/mix0/text.parquet").to_pylist()
    counts = [sum(row in rows for row in read) for rows in written]
    assert counts == [round(0.25 * len(written[0])), round(0.75 * len(written[1]))]
