"""Effective numbers of sources, and the figure of the interaction graph."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pollination.analysis import ecosystems, interaction
from pollination.analysis.fingerprint.inheritance import parents
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.core.settings import schema, whole
from pollination.figures import interaction_graph
from pollination.plan import layout
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from pollination.plan.report import figure_config, figure_inputs, report_files
from pollination.plan.standalone import families
from tests.conftest import study_a


def plan(results: str = "r", **experiments) -> Plan:
    raw = study_a()
    raw["defaults"] |= {"weights": "fresh", "text": "graph", "population": 4, "mutate": {}}
    raw["experiments"] = {name: {"generations": 3} | one for name, one in experiments.items()}
    return Plan(resolve(raw), results)


def test_sources_kinds_and_d_follow_the_shares():
    ring = interaction.rows(plan(e={"graph": {"rule": "ring"}}), "e")
    assert [(row["generation"], row["member"]) for row in ring[3:5]] == [(1, 3), (2, 0)]
    assert ring[0]["writers"] == "0:0.5 3:0.5"
    assert {row["sources"] for row in ring} == {2.0} and {row["diversity"] for row in ring} == {4}
    assert ring[0]["kinds"] == 2
    binomial = -2 * 0.25 * np.log(0.25) - 0.5 * np.log(0.5)  # 1/4, 1/2, 1/4 of three founders
    assert ring[-1]["kinds"] == pytest.approx(np.exp(binomial))
    human = {"graph": {"rule": "mixed", "own": 0.5}, "human": {"fraction": 0.5}, "population": 2}
    assert [row["sources"] for row in interaction.rows(plan(e=human), "e")] == [2.0] * 4


def test_d_of_an_ecosystem_follows_its_graph():
    given = {
        "pool": {"text": "pool"},
        "mixed": {"graph": {"rule": "mixed"}},
        "cycle": {"graph": {"rule": "ring", "own": 0}},
        "hub": {"graph": {"rule": "shares", "shares": [[1, 0, 0, 0]] * 4}},
        "half": {"graph": {"rule": "shares", "shares": [[0.75, 0.25, 0, 0]] * 4}},
    }
    p = plan(**given)
    found = {name: interaction.diversity(p, name) for name in given}
    assert found["pool"] == ecosystems.diversity(layout.kinds(p, "pool")) == 4
    assert (found["mixed"], found["cycle"], found["hub"]) == (4, 4, 1)
    assert found["half"] == pytest.approx(ecosystems.hill_shannon([0.75, 0.25]))


def test_the_figure_shows_each_distinct_graph_of_experiments_that_have_one(tmp_path):
    given = {
        "moves": {"graph": {"rule": "islands", "every": 2}},
        "plain": {"text": "own"},
        "ranks": {
            "graph": {"rule": "ring"},
            "select": {"task": "knowledge", "k": 2},
        },
    }
    whole_plan = plan(str(tmp_path), **given)
    for path in figure_inputs(whole_plan, "interaction_graph")["selection"]:
        Path(path).parent.mkdir(parents=True)
        artifacts.write_json(path, {"parents": [2, 3]})
    # the job gets only a part of the config, without keys at their former values
    part = Plan(whole(figure_config(whole_plan, "interaction_graph"), schema()), str(tmp_path))
    assert set(part.config["experiments"]) == {"moves", "ranks"}
    run = Run(part)
    assert interaction_graph.distinct(run, "moves") == [[1], [2]]
    interaction_graph.draw(run, tmp_path / "graph")
    table = pd.read_csv(tmp_path / "graph.csv")
    assert list(table.columns) == list(interaction_graph.COLUMNS)
    assert len(table) == 2 * 2 * 4 and (tmp_path / "graph.png").stat().st_size > 10_000
    assert set(table[table.experiment == "ranks"].kinds) == {2}
    picture = (tmp_path / "graph.svg").read_bytes()
    interaction_graph.draw(run, tmp_path / "again")
    assert (tmp_path / "again.svg").read_bytes() == picture
    assert not [path for path in report_files(plan(e={"text": "own"})) if "interaction" in path]


def test_fingerprints_descend_from_the_models_of_a_graph_and_a_soup():
    raw = study_a()
    raw["defaults"]["mutate"] = {}
    child = {"population": 3, "generations": 2, "weights": "soup", "text": "graph"}
    child |= {"soup": {"rule": "ring"}, "graph": {"rule": "ring", "own": 0}}
    raw["experiments"] = {"e": child}
    raw["fingerprint"] = {"survey": {"kind": "population", "experiments": ["e"]}}
    (_, second, _) = families(Plan(resolve(raw), "r"), "survey")
    found = parents(second)
    assert found["text_from"] == ["founders/human/member0"]
    assert found["weights_from"] == ["founders/human/member0", "founders/human/member1"]
