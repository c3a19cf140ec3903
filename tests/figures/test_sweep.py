"""The figure of a sweep, on a small invented run."""

import copy
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_string

from pollination.core import artifacts
from pollination.core.statistics import bootstrap_mean_interval
from pollination.figures import style
from pollination.figures.sweep import Scale, draw_group
from pollination.plan import layout
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from pollination.plan.report import figure_config, figure_inputs, figures, report_files
from tests.conftest import ROOT
from tests.figures.test_captions import SNAKEMAKE
from tests.figures.test_report import draw, invent_member, settings


def swept(folder: Path, sweep: dict | list, **more) -> Plan:
    """Write the artifacts of a sweep. Members with a larger scale of mutation are worse."""
    raw = settings(population=0, line_seeds=(), generations=2, tasks=("knowledge",))
    alone = {"weights": "own", "text": "own", "population": 2}
    alone = {key: value for key, value in alone.items() if key not in str(sweep)}
    raw["experiments"] = {"noise": alone | more | {"sweep": sweep}}
    plan = Plan(resolve(raw), str(folder / "results" / "invented"))
    for name, one in plan.config["experiments"].items():
        for g in range(one["generations"]):
            for m in range(one["population"]):
                member = Path(layout.member_folder(plan, name, g, m))
                if not (member / "scores.json").exists():
                    rng = np.random.default_rng([g, m, one["seed"] if g else 0])
                    decay = g * (0.1 + 0.3 * one["human"]["fraction"])
                    invent_member(member, plan, decay, True, "loglikelihood", rng)
    return plan


def drawn(plan: Plan, folder: Path) -> tuple[Path, list[dict]]:
    """Draw the sweep in a tree that holds nothing but the inputs that its rule declares."""
    bare = Plan(plan.config, str(folder / "bare"))
    for path in [path for paths in figure_inputs(plan, "sweep_noise").values() for path in paths]:
        made = Path(path.replace(plan.results, bare.results))
        made.parent.mkdir(parents=True, exist_ok=True)
        made.hardlink_to(path)
    return draw("sweep_noise", bare)


def test_each_measure_is_drawn_against_the_key_with_the_interval_of_its_questions(tmp_path):
    plan = swept(tmp_path, {"human.fraction": [0, 0.01, 1]})
    assert "sweep_noise" in figures(plan) and "sweep" not in figures(plan)
    out, rows = drawn(plan, tmp_path)
    assert all(Path(f"{out}.{end}").stat().st_size for end in ("svg", "png"))
    assert f"{plan.results}/report/sweep_noise.svg" in report_files(plan)
    measures = dict.fromkeys(row["measure"] for row in rows)
    assert {"knowledge, accuracy", "world/test, excess nats", "world/test, perplexity"} <= set(
        measures
    )
    assert not any("selecting" in measure for measure in measures)
    for measure in measures:
        shown = [row for row in rows if row["measure"] == measure]
        assert [row["human.fraction"] for row in shown] == ["0", "0.01", "1"]
        assert [row["variant"] for row in shown][1] == "noise.human-fraction0.01"
        assert {row["interval"] for row in shown} == {"questions"}
        assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in shown)
    run = [row for row in rows if row["measure"] == "knowledge, accuracy"]
    assert float(run[0]["mean"]) > float(run[2]["mean"])
    answers = [
        layout.member_folder(plan, "noise.human-fraction0", 1, m) + "/answers.parquet"
        for m in (0, 1)
    ]
    tables = [artifacts.read_table(path, ["task", "score"]).to_pandas() for path in answers]
    score = np.mean([t[t.task == "knowledge"].score.to_numpy(float) for t in tables], axis=0)
    expected = bootstrap_mean_interval(100 * score, seed=0)
    for key in ("mean", "low", "high"):
        assert float(run[0][key]) == pytest.approx(expected[key], abs=0.6), key
    excess = [row for row in rows if row["measure"] == "world/test, perplexity"]
    assert float(excess[0]["mean"]) > 1 and excess[0]["unit"] == "perplexity"


def test_replicates_give_intervals_over_runs_and_each_variant_has_its_own_last_generation(tmp_path):
    sweep = {"zip": {"generations": [2, 3], "population": [2, 3]}}
    plan = swept(tmp_path, sweep, seeds=[1, 2, 3])
    _, rows = drawn(plan, tmp_path)
    assert {(row["generations"], row["generation"], row["members"]) for row in rows} == {
        ("2", "1", "2"),
        ("3", "2", "3"),
    }
    assert {row["replicates"] for row in rows} == {"3"}
    assert "runs and questions" in {row["interval"] for row in rows}


def test_a_second_key_and_words_are_drawn(tmp_path):
    plan = swept(tmp_path, {"text": ["own", "pool"], "human.fraction": [0, 0.1]})
    out, rows = drawn(plan, tmp_path)
    svg = Path(f"{out}.svg").read_text()
    assert len({(row["text"], row["human.fraction"]) for row in rows}) == 4
    for label in ("human.fraction 0", "human.fraction 0.1", "pool"):
        assert f"<!-- {label} -->" in svg, label


@pytest.mark.parametrize(
    "values, kind, order",
    [
        ([0.1, 0, 0.01], "symlog", [0, 0.01, 0.1]),
        ([1e-3, 1e-4], "log", [1e-4, 1e-3]),
        ([16, 4, 9], "linear", [4, 9, 16]),
        ([0], "linear", [0]),
        (["b", "a"], "text", ["b", "a"]),
        ([None, 5], "text", ["null", "5"]),
        ([True, False], "text", ["true", "false"]),
    ],
)
def test_the_axis_fits_the_values(values, kind, order):
    scale = Scale.of(values)
    assert (scale.kind, scale.values) == (kind, order)


def test_the_axes_hold_all_points_and_bars():
    _, (axis,) = style.grid(1, columns=1)
    rows = pd.DataFrame({"mean": [70.0, 40.0], "low": [60.0, 30.0], "high": [80.0, 50.0]})
    rows["interval"] = "questions"
    draw_group(axis, rows, np.array([1.0, 0.0]), {"color": "k", "marker": "o", "ls": "-"}, 5.0)
    Scale.of([0, 1]).show(axis)
    bottom, top = axis.get_ylim()
    assert 20 < bottom <= 30 and 80 <= top < 90
    first, last = axis.get_xlim()
    assert first < 0 and last > 1


def test_another_variant_or_role_redraws_no_other_sweep(tmp_path):
    raw = settings(line_seeds=())
    raw["experiments"]["a"] = {"population": 1, "weights": "own", "text": "own"}
    raw["experiments"]["b"] = copy.deepcopy(raw["experiments"]["a"])
    for name in "ab":
        raw["experiments"][name]["sweep"] = {"human.fraction": [0, 0.5]}
    first = figure_config(Plan(resolve(raw), "r"), "sweep_a")
    raw["experiments"]["b"]["sweep"]["human.fraction"].append(1)
    raw["figures"] = {"comparisons": {"b": ["b"]}}
    assert figure_config(Plan(resolve(raw), "r"), "sweep_a") == first


@pytest.mark.parametrize("seeds", [[], [1, 2]])
def test_the_caption_says_what_the_bars_cover(tmp_path, seeds):
    raw = settings(population=0, line_seeds=(), tasks=())
    raw["experiments"] = {
        "noise": {"population": 1, "weights": "own", "text": "own", "seeds": seeds}
        | {"sweep": {"human.fraction": [0, 1], "train.tokens": [500]}}
    }
    template = SNAKEMAKE.from_string((ROOT / "workflow/report/sweep.rst").read_text())
    wildcards = SimpleNamespace(figure="sweep_noise")
    text = template.render(snakemake=SimpleNamespace(config=resolve(raw), wildcards=wildcards))
    said = io.StringIO()
    publish_string(text, writer="html", settings_overrides={"warning_stream": said})
    assert not said.getvalue() and "``human.fraction``" in text and "``train.tokens``" in text
    assert ("Each point is one run" in text) == (not seeds)
    assert ("Each point has 2" in text) == bool(seeds)
