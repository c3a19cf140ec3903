"""A config that is another one at another size."""

from pathlib import Path

import pytest
import yaml

from pollination.plan import outputs
from pollination.plan.config.overlay import expand
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.inputs import staged_files
from pollination.plan.paper import paper_targets, players_of
from tests.conftest import ROOT

BASE = """
run: whole
founders:
  a: &pool {num_segments: 1, train: &train {tokens: 100, epochs: 5}}
  b: {<<: *pool, num_segments: 16}
  base_c: {train: *train}
experiments: {m1: {population: 1}, m16: {population: 16}, other: {}}
"""


@pytest.fixture
def base(tmp_path) -> str:
    path = tmp_path / "whole.yaml"
    path.write_text(BASE, encoding="utf-8")
    return str(path)


def test_values_are_dropped_set_and_mapped_where_the_paths_match(base):
    overlay = {
        "base": base,
        "drop": ["experiments.other"],
        "set": {
            "founders.?.train.tokens": 7,
            "experiments.m*.generations": 2,
            "founders.a.train.checkpoint": None,
        },
    }
    found = expand(
        {
            "run": "small",
            "device": "cpu",
            "overlay": overlay
            | {"map": {"experiments.*.population": {16: 4}, "founders.?.num_segments": {16: 4}}},
        }
    )
    assert found == {
        "run": "small",
        "device": "cpu",
        "founders": {
            "a": {"num_segments": 1, "train": {"tokens": 7, "epochs": 5, "checkpoint": None}},
            "b": {"num_segments": 4, "train": {"tokens": 7, "epochs": 5}},
            "base_c": {"train": {"tokens": 100, "epochs": 5}},
        },
        "experiments": {
            "m1": {"population": 1, "generations": 2},
            "m16": {"population": 4, "generations": 2},
        },
    }
    assert Path(base).read_text(encoding="utf-8") == BASE and expand({"run": "as it is"}) == {
        "run": "as it is"
    }


@pytest.mark.parametrize(
    "overlay, said",
    [
        ({"set": {"founders.x.train": 1}}, "overlay.set: 'founders.x.train' matches nothing"),
        ({"map": {"founders.*.off": {1: 2}}}, "overlay.map: 'founders.*.off' matches nothing"),
        ({"map": {"founders.*.num_segments": {99: 5}}}, "num_segments: no value is 99 in"),
        ({"map": {"founders.*.num_segments": {True: 4}}}, "num_segments: no value is True"),
        ({"drop": ["nothing"]}, "overlay.drop: 'nothing' matches nothing"),
        ({"of": "absent.yaml"}, "overlay.of: this key is now called 'base'"),
        ({"base": "absent.yaml"}, "overlay.base: 'absent.yaml': there is no such file"),
        ({"take": {}}, "is not allowed; allowed: {base: CONFIG"),
        ({"map": {"founders.*.of": 4}}, "is not allowed; allowed: {base: CONFIG"),
        ({"drop": "experiments.other"}, "is not allowed; allowed: {base: CONFIG"),
    ],
)
def test_a_path_that_matches_nothing_is_named(base, overlay, said):
    with pytest.raises(ConfigError, match="small.yaml: overlay") as error:
        resolve({"run": "small", "overlay": {"base": base} | overlay}, "small.yaml")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["data_pollination", "epistemic_diversity"])
def test_the_laptop_twins_have_every_experiment_and_figure_of_the_presets(name):
    from pollination.plan.plan import Plan

    def plan(folder: str) -> Plan:
        return Plan(
            resolve(
                yaml.safe_load(
                    (ROOT / "config" / folder / f"{name}.yaml").read_text(encoding="utf-8")
                ),
                name,
            ),
            "results/x",
        )

    whole, overlay = plan("paper"), plan("laptop")
    # the overlay may repeat an experiment less often
    few, many = overlay.config["experiments"], whole.config["experiments"]
    assert set(few) <= set(many) and {name for name in many if ".s" not in name} <= set(few)
    assert paper_targets(whole) == paper_targets(overlay)
    assert len(outputs.trained(overlay)) < len(outputs.trained(whole)) / 3 and not staged_files(
        overlay
    )
    for target in paper_targets(whole):
        assert players_of(overlay, target) == [
            name for name in players_of(whole, target) if name in few
        ]


def test_the_primary_setting_of_study_b_runs_more_than_once():
    from pollination.plan.plan import Plan

    for folder in ("paper", "laptop"):
        path = ROOT / "config" / folder / "epistemic_diversity.yaml"
        plan = Plan(resolve(yaml.safe_load(path.read_text(encoding="utf-8"))), "r")
        runs = plan.config["figures"]["paper"]["figure_b3"]["OPT-125m"]
        assert {name: len(names) >= 3 for name, names in runs.items()} == dict.fromkeys(
            ("opt_m1", "opt_m2", "opt_m4", "opt_m16"), True
        )
        for names in runs.values():
            experiments = [plan.experiment(name) for name in names]
            for key in ("founders", "seed"):
                assert len({experiment[key] for experiment in experiments}) == len(names)
        assert len(runs["opt_m1"]) == 4  # as in appendix B
