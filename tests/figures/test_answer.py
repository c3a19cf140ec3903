"""The page that answers in a sentence: what its data decide, what they do not, and the controls."""

import numpy as np
import pytest

from pollination.figures import answer
from tests.figures.test_report import draw, invent


def answered(plan) -> tuple[str, list[dict]]:
    out, rows = draw("answer", plan)
    return out.with_suffix(".html").read_text(encoding="utf-8"), rows


def sentences(rows, part: str) -> list[str]:
    return [row["sentence"] for row in rows if row["part"] == part]


def test_the_first_sentence_is_what_the_data_decide(tmp_path):
    html, rows = answered(invent(tmp_path, seeds=tuple(range(1, 7)), line_seeds=tuple(range(1, 7))))
    (said,) = sentences(rows, "answer")
    assert said.startswith("In generation 4, the population answers ")
    assert "more of the held-out knowledge questions correctly than the single line" in said
    low, mean, high = (float(rows[0][column]) for column in ("low", "mean", "high"))
    assert 0 < low < mean < high and f"{mean:.1f} percentage points" in said
    assert said in html.replace("<bdi>", "")
    facts = [one for one in sentences(rows, "lost") if "facts known, " in one]
    assert "least mentioned quarter: population from" in facts[0]
    assert any("excess nats: single line from" in one for one in sentences(rows, "lost"))


def test_a_run_without_replicates_asks_for_them(tmp_path):
    _, rows = answered(invent(tmp_path, line_seeds=(42,)))
    (said,) = sentences(rows, "answer")
    assert said.startswith("This run does not decide whether") and said.endswith("set replicates.")


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
