"""The answer of a run in a sentence: what its data decide, what they do not, and the controls."""

import re

import numpy as np
import pytest

from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.figures import answer
from pollination.figures.answer import Answer
from pollination.figures.difference import possible
from pollination.plan import layout
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from tests.figures.test_report import draw, invent, settings


def answered(plan) -> list[dict]:
    out, rows = draw("answer", plan)
    assert all(out.with_suffix(f".{end}").stat().st_size > 0 for end in ("svg", "png"))
    return rows


def sentences(rows, part: str) -> list[str]:
    return [row["sentence"] for row in rows if row["part"] == part]


def test_the_first_sentence_is_what_the_data_decide(tmp_path):
    rows = answered(invent(tmp_path, seeds=tuple(range(1, 7)), line_seeds=tuple(range(1, 7))))
    (said,) = sentences(rows, "answer")
    assert said.startswith("In generation 4, the population answers ")
    assert "more of the held-out knowledge questions correctly than the single line" in said
    low, mean, high = (float(rows[0][column]) for column in ("low", "mean", "high"))
    assert 0 < low < mean < high and f"{mean:.1f} percentage points" in said
    facts = [one for one in sentences(rows, "lost") if "facts known, " in one]
    assert "least mentioned quarter: population from" in facts[0]
    assert any("excess nats: single line from" in one for one in sentences(rows, "lost"))


@pytest.mark.parametrize("line_seeds", [(1, 2, 3), ()])
def test_the_next_figure_has_the_same_interval(tmp_path, line_seeds):
    plan = invent(tmp_path, seeds=(1, 2, 3), line_seeds=line_seeds)
    mine, *_ = answered(plan)
    name = "population minus line" if line_seeds else "change of population"
    _, rows = draw("difference", plan)
    (other,) = [
        one for one in rows if (one["measure"], one["comparison"]) == (mine["measure"], name)
    ]
    for end in ("mean", "low", "high"):
        assert float(mine[end]) == pytest.approx(float(other[end]))
    if line_seeds:
        assert float(mine["last"]) == pytest.approx(float(mine["mean"]))


def test_an_interval_has_no_impossible_values():
    assert possible((-400.0, 120.0), False) == (-100.0, 100.0)
    assert possible((-400.0, 120.0), False, 2) == (-200.0, 120.0)
    assert possible((-400.0, 120.0), True) == (-400.0, 120.0)


def test_lines_of_the_chosen_founders_say_what_their_choice_does_alone(tmp_path):
    plan = invent(tmp_path, replicates=[1, 2])
    run, measures = Run(plan), Run(plan).measures
    above, gained = list(Answer(run).chosen())
    assert above["comparison"].startswith("population minus mean of the single lines of its chosen")
    last = run.last
    by_hand = []
    for name in run.roles["line"]:
        population = name.replace("lines", "population")
        values = [
            measures(layout.member_folder(plan, name, last, m))["knowledge, accuracy", False].mean()
            for m in range(4)
        ]
        chosen = [values[m] for m in run.parents(population, 0)]
        assert len(chosen) == 2
        by_hand.append(np.mean(chosen) - np.mean(values))
    assert gained["mean"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert gained["replicates"] == "3" and gained["variance_between_runs"] == "own"
    rows = answered(plan)
    assert len(sentences(rows, "control")) == 2


def test_lines_that_do_not_start_from_the_populations_founders_say_nothing_about_the_choice(
    tmp_path,
):
    assert not list(Answer(Run(invent(tmp_path))).chosen())


def test_a_text_that_is_not_measured_at_the_end_is_left_out(tmp_path):
    plan = invent(tmp_path, generations=2)
    for name in ("population", "line.s42"):
        folder = layout.member_folder(plan, name, 1, 0)
        path = f"{folder}/sequences.parquet"
        artifacts.write_table(path, artifacts.read_table(path).to_pandas().iloc[:0])
    rows = answered(plan)
    assert rows[0]["part"] == "answer" and not any("nats" in row["measure"] for row in rows)


def test_questions_that_select_are_not_called_held_out(tmp_path):
    raw = settings(generations=2)
    plan = invent(tmp_path, generations=2)
    raw["tasks"]["knowledge"]["split"] = "none"
    run = Run(Plan(resolve(raw), plan.results))
    row = {"measure": "knowledge, accuracy", "mean": 3.0, "low": 1.0, "high": 5.0}
    row |= {"unit": answer.POINTS, "decided": True, "replicates": "3"}
    assert "more of the knowledge questions" in Answer(run).headline(row)
    assert "more of the held-out knowledge questions" in Answer(Run(plan)).headline(row)


def test_without_benchmarks_the_answer_is_in_nats(tmp_path):
    rows = answered(invent(tmp_path, tasks=(), seeds=(1, 2, 3), generations=2))
    (said,) = sentences(rows, "answer")
    assert re.match(
        r"In generation 1, the population has 0\.\d+ nats per token less on world", said
    )


def test_a_run_without_replicates_asks_for_them(tmp_path):
    rows = answered(invent(tmp_path, line_seeds=(42,)))
    (said,) = sentences(rows, "answer")
    assert said.startswith("This run does not decide whether") and said.endswith("set replicates.")


def test_a_run_of_one_side_says_how_that_side_changes(tmp_path):
    (tmp_path / "one").mkdir()
    (said,) = sentences(answered(invent(tmp_path / "one", population=0, line_seeds=(7,))), "answer")
    assert said.startswith(
        "From generation 0 to 4, the excess nats of the single line on world/test "
    )
    assert "rises by" in said and said.endswith("set replicates.")
    three = invent(tmp_path, population=0, line_seeds=(1, 2, 3, 4, 5, 6))
    (said,) = sentences(answered(three), "answer")
    assert "rises by" in said and "replicates: 6)" in said and "95 % confidence interval" in said


def test_a_difference_of_chance_says_how_many_replicates_would_show_it():
    row = {"unit": answer.POINTS, "replicates": "4", "low": -4.0, "high": 8.0}
    # half width 6 = t(3) * sd / 2, so sd = 3.77; (t(.975) + t(.8)) * sd / sqrt(R) <= 5 from R = 7
    assert "5 points with 7, 2.5 points with 20 replicates" in answer.enough(row)
    assert "10 points" not in answer.enough(row), "four replicates show this already"
    power = np.mean(
        [
            abs(x.mean() / (x.std(ddof=1) / np.sqrt(20))) > 2.093
            for x in np.random.default_rng(0).normal(2.5, 3.77, (4000, 20))
        ]
    )
    assert power == pytest.approx(0.8, abs=0.03)
