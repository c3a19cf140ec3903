"""A config that is another one at another size."""

from pathlib import Path

import pytest
import yaml

from pollination.config import ConfigError, resolve
from pollination.twin import expand
from tests.conftest import ROOT

BASE = """
run: whole
founders:
  a: &pool {of: 1, train: &train {tokens: 100, epochs: 5}}
  b: {<<: *pool, of: 16}
  base_c: {train: *train}
experiments: {m1: {population: 1}, m16: {population: 16}, other: {}}
"""


@pytest.fixture
def base(tmp_path) -> str:
    path = tmp_path / "whole.yaml"
    path.write_text(BASE, encoding="utf-8")
    return str(path)


def test_values_are_dropped_set_and_mapped_where_the_paths_match(base):
    twin = {
        "of": base,
        "drop": ["experiments.other"],
        "set": {"founders.?.train.tokens": 7, "experiments.m*.generations": 2, "founders.a.train.keep": None},
    }
    found = expand(
        {"run": "small", "device": "cpu", "twin": twin | {"map": {"experiments.*.population": {16: 4}, "founders.?.of": {16: 4}}}}
    )
    assert found == {
        "run": "small",
        "device": "cpu",
        "founders": {"a": {"of": 1, "train": {"tokens": 7, "epochs": 5, "keep": None}}, "b": {"of": 4, "train": {"tokens": 7, "epochs": 5}}, "base_c": {"train": {"tokens": 100, "epochs": 5}}},
        "experiments": {"m1": {"population": 1, "generations": 2}, "m16": {"population": 4, "generations": 2}},
    }  # fmt: skip
    assert Path(base).read_text(encoding="utf-8") == BASE and expand({"run": "as it is"}) == {"run": "as it is"}


@pytest.mark.parametrize(
    "twin, said",
    [
        ({"set": {"founders.x.train": 1}}, "twin.set: 'founders.x.train' matches nothing"),
        ({"map": {"founders.*.off": {1: 2}}}, "twin.map: 'founders.*.off' matches nothing"),
        ({"drop": ["nothing"]}, "twin.drop: 'nothing' matches nothing"),
        ({"of": "absent.yaml"}, "twin.of: 'absent.yaml': there is no such file"),
        ({"take": {}}, "is not allowed; allowed: {of: CONFIG"),
        ({"map": {"founders.*.of": 4}}, "is not allowed; allowed: {of: CONFIG"),
        ({"drop": "experiments.other"}, "is not allowed; allowed: {of: CONFIG"),
    ],
)
def test_a_path_that_matches_nothing_is_named(base, twin, said):
    with pytest.raises(ConfigError, match="small.yaml: twin") as error:
        resolve({"run": "small", "twin": {"of": base} | twin}, "small.yaml")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["data_pollination", "epistemic_diversity"])
def test_the_laptop_twins_have_every_experiment_and_figure_of_the_presets(name):
    from pollination.workflow import Plan

    def plan(folder: str) -> Plan:
        return Plan(resolve(yaml.safe_load((ROOT / "config" / folder / f"{name}.yaml").read_text(encoding="utf-8")), name), "results/x")

    whole, twin = plan("paper"), plan("laptop")
    assert set(whole.config["experiments"]) == set(twin.config["experiments"]) and whole.paper_targets() == twin.paper_targets()
    assert len(twin.trained()) < len(whole.trained()) / 3 and not twin.staged()
    for target in whole.paper_targets():
        assert twin.players(target) == whole.players(target)
