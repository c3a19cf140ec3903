"""A finished run as tables."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import pollination
from pollination.core import artifacts
from pollination.core.questions import read_answers
from tests.conftest import ROOT, TOY_PLAN


@pytest.fixture
def run(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return pollination.load_run("results/toy")


def test_every_member_of_every_experiment_has_a_row(run):
    shapes = {
        name: one["generations"] * one["population"]
        for name, one in TOY_PLAN.config["experiments"].items()
    }
    assert run.members.groupby("experiment").size().to_dict() == shapes
    assert run.members.scored.all()
    assert set(run.members[run.members.generation == 0].place) == {"founders/human"}
    assert repr(run) == (
        f"<run toy in results/toy: {len(run.members)} of {len(run.members)} members scored>"
    )


def test_scores_are_those_of_the_files(run):
    of = {"experiment": "population", "generation": 1, "member": 2}
    folder = "results/toy/population/gen1/member2"
    written = artifacts.read_json(f"{folder}/scores.json")
    mine = run.scores[(run.scores[list(of)] == list(of.values())).all(axis=1)]
    values = mine.set_index(["kind", "name", "metric"]).value
    text, entry = next(iter(written["perplexity"].items()))
    assert values["text", text, "perplexity"] == entry["perplexity"]
    assert values["benchmark", "knowledge", "acc"] == written["tasks"]["knowledge"]["accuracy"]
    seed = TOY_PLAN.config["evaluation_seed"]
    half = read_answers(f"{folder}/answers.parquet", {"knowledge": "half"}, seed)["knowledge"]
    for metric, questions in (("accuracy", half.reporting), ("accuracy_selecting", half.selecting)):
        found = values["benchmark", "knowledge", metric]
        assert found == pytest.approx(half.score[questions].mean())
    world, truth = next(iter(written["truth"].items()))
    assert values["world", world, "known"] == truth["known"]
    # the parts of the loss add up to the summary
    lost = run.sequences[(run.sequences[list(of)] == list(of.values())).all(axis=1)]
    assert lost.nll.sum() / lost.tokens.sum() == pytest.approx(entry["nll_per_token"])
    asked = run.answers[(run.answers[list(of)] == list(of.values())).all(axis=1)]
    assert len(asked) == sum(task["questions"] for task in written["tasks"].values())


def test_children_have_weights_and_text_of_selected_parents(run):
    chosen = artifacts.read_json("results/toy/population/gen0/selection.json")["parents"]
    edges = run.lineage.query("experiment == 'population' and generation == 1")
    for m in range(4):
        mine = edges[edges.member == m].set_index("inherits")
        assert mine.from_member.to_dict() == {"weights": chosen[m // 2], "text": chosen[m % 2]}
        assert (mine.from_generation == 0).all()


def test_costs_are_those_of_the_jobs(run):
    costs = run.costs.set_index("job")
    trained = [job for job in costs.index if job.endswith("/train")]
    assert len(trained) == run.members.folder.nunique()
    assert (costs.seconds >= 0).all() and np.isfinite(costs.loc[trained, "max_rss_mib"]).all()


def test_the_page_does_what_it_says(run, capsys):
    page = (ROOT / "docs/howto/analyse.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", page)
    exec(code.replace("results/demo", "results/toy"), {})
    said = capsys.readouterr().out
    assert "population" in said and "generation" in said and "NaN" not in said.split("\n")[2]
    for table, columns in re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", page, re.M):
        named = [name.rstrip("._") for name in columns.split(", ") if "those of" not in name]
        for name in named:
            assert any(column.startswith(name) for column in getattr(run, table)), (table, name)


def test_a_run_that_is_not_finished_has_the_rows_that_it_has(run, finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "results/toy", tmp_path / "part", symlinks=True)
    (tmp_path / "part/population/gen1/member2/scores.json").unlink()
    shutil.rmtree(tmp_path / "part/line/gen2")
    (tmp_path / "part/population/gen0/selection.json").unlink()
    part = pollination.load_run(tmp_path / "part")
    assert len(run.members) == len(part.members) and not part.members.scored.all()
    next((tmp_path / "part/benchmarks").rglob("*.tsv")).write_text("")
    assert 0 < len(part.costs) < len(run.costs)
    missing = part.scores.query("experiment == 'population' and generation == 1 and member == 2")
    assert missing.empty and len(part.scores) > 0
    assert set(part.lineage.experiment) == {"line"}
    answers = tmp_path / "part/line/gen1/member0/answers.parquet"
    answers.unlink()
    answers.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="answers.parquet: not a readable parquet file"):
        _ = pollination.load_run(tmp_path / "part").answers
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="nowhere: there is no such folder; give the path of a"):
        pollination.load_run("nowhere")


def test_the_package_stays_light_until_a_run_is_loaded():
    code = "import json, sys, pollination; print(json.dumps([m for m in sys.modules]))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "numpy", "torch"} & set(json.loads(said.stdout))
    with pytest.raises(AttributeError, match="has no attribute 'load'"):
        pollination.load  # noqa: B018
