"""Study A's accuracies, recomputed from single answers: figures 6, 9, 12, and differences."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pollination.analysis.run import Run
from pollination.core.statistics import selection_confidence
from pollination.evolution import selection
from pollination.figures import accuracy, difference, style
from pollination.plan.plan import Plan
from tests.audit import made
from tests.audit.made import CSV, EXACT, GENERATIONS, QUESTIONS, RESAMPLED, correct

LINE = ("line.s42", "line.s123", "line.s456")


@pytest.fixture(scope="module")
def drawn(study_a):
    return cache(lambda target: made.draw(study_a, target))


def reported(plan: Plan, name: str, g: int, task: str) -> np.ndarray:
    """(members, questions): answers to the questions that a figure reports."""
    return correct(plan, name, g, task)


def populations(plan: Plan, target: str) -> dict[str, tuple[str, str]]:
    """Label -> (experiment, the benchmark that selects in it)."""
    found = {}
    for entry in plan.config["figures"]["paper"][target].values():
        for label, (name,) in entry.items():
            found[label] = (name, plan.config["experiments"][name]["select"]["task"])
    return found


CHANCE = {"mmlu": 1 / 4, "winogrande": 1 / 2, "mathqa": 1 / 5, "social_iqa": 1 / 3}


@pytest.mark.parametrize("target", ["figure_a6", "figure_a9", "figure_a12"])
def test_accuracy_of_each_member(study_a, drawn, target):
    """Violins, and the single line on the same benchmark: the share of correct answers."""
    rows = drawn(target)
    for label, (name, task) in populations(study_a, target).items():
        mine = rows[rows.label == label]
        assert set(mine.task) == {task}
        assert set(mine.chance.round(4)) == {round(CHANCE[task], 4)}
        for g in range(GENERATIONS):
            expected = reported(study_a, name, g, task).mean(axis=1)
            here = mine[(mine.generation == g) & (mine.experiment == name)].sort_values("member")
            assert here.accuracy.to_numpy() == pytest.approx(expected, rel=CSV)
            chosen = np.argsort(-correct(study_a, name, g, task).mean(axis=1), kind="stable")
            k = int(len(expected) ** 0.5)
            assert set(here.member[here.selected]) == set(chosen[:k])
            for one in LINE[: 1 if g == 0 else 3]:  # all lines start from the same founder
                expected = reported(study_a, one, g, task).mean()
                here = mine[(mine.generation == g) & (mine.experiment == one)]
                assert here.accuracy.tolist() == pytest.approx([expected], rel=CSV)


def test_band_of_the_line_and_of_inheritance():
    """A t-interval over replicates; for one model the Wilson interval over questions."""
    values = np.array([0.4, 0.5, 0.65])
    mean, half = style.mean_band(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=EXACT)
    rows = pd.DataFrame({"generation": 0, "experiment": "line", "accuracy": [0.3]})
    axis = style.Figure().subplots()
    accuracy.draw_line(axis, rows.assign(questions=QUESTIONS))
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    ends = stats.binomtest(12, QUESTIONS).proportion_ci(0.95, "wilson")
    assert (band.min(), band.max()) == pytest.approx((ends.low, ends.high), rel=EXACT)


def test_confidence_in_a_selection():
    """P(the best k) and each parent's probability, by resampling the questions one by one."""
    rng = np.random.default_rng(3)
    answers = rng.random((9, 60)) < np.linspace(0.4, 0.6, 9)[:, None]
    ranking = np.argsort(-answers.mean(axis=1), kind="stable")
    chosen, draws = ranking[:3].tolist(), 4000
    found = selection_confidence(answers, chosen, 3, seed=1, resamples=4000)
    same, inside, regret = 0.0, np.zeros(3), 0.0
    for _ in range(draws):
        asked = answers[:, rng.integers(0, 60, 60)].mean(axis=1)
        order = np.lexsort((rng.random(9), -asked))[:3]  # ties at random
        same += set(order) == set(chosen)
        inside += [c in order for c in chosen]
        regret += np.sort(asked)[-3:].mean() - asked[chosen].mean()
    error = 4 * (0.25 * (1 / draws + 1 / 4000)) ** 0.5  # four standard errors, both sides
    assert error < RESAMPLED
    assert found["same_set"] == pytest.approx(same / draws, abs=error)
    assert found["in_best_k"] == pytest.approx((inside / draws).tolist(), abs=error)
    assert found["expected_overlap"] == pytest.approx(inside.sum() / draws, abs=3 * error)
    assert found["expected_regret"] == pytest.approx(regret / draws, rel=RESAMPLED)


def test_parents_of_a_generation(study_a):
    """Appendix C: rank by accuracy, keep floor(sqrt(N)), the lower slot first on a tie."""
    paths = [made.folder(study_a, "mmlu", 1, m) for m in range(16)]
    scores = [path / "scores.json" for path in paths]
    answers = [path / "answers.parquet" for path in paths]
    found = selection.select(scores, answers, "mmlu", 4, seed=1)
    level = correct(study_a, "mmlu", 1, "mmlu").mean(axis=1)
    ranking = pd.DataFrame({"level": -level, "slot": range(16)}).sort_values(["level", "slot"])
    assert found["ranking"] == ranking.slot.tolist() and found["parents"] == found["ranking"][:4]
    assert found["accuracies"] == pytest.approx(level, rel=EXACT)
    cut = level[found["parents"][-1]]
    assert set(found["ties"]["at_the_cut"]) == set(np.flatnonzero(level == cut))


def interval(parts: list[tuple[float, str, np.ndarray]], draws: int = 1500) -> np.ndarray:
    """Ends of a sum of signed means (groups, questions); equal keys draw the same groups."""
    rng, found = np.random.default_rng(5), []
    questions = parts[0][2].shape[1]
    for _ in range(draws):
        asked = rng.integers(0, questions, questions)
        drawn = {key: rng.integers(0, len(v), len(v)) for _, key, v in parts}
        found.append(sum(s * v[drawn[key]][:, asked].mean() for s, key, v in parts))
    return np.quantile(found, [0.025, 0.975])


def test_differences_of_the_main_result(study_a):
    """Change of population and line, their difference at the end, and the difference of changes."""
    last, rows = GENERATIONS - 1, pd.DataFrame(difference.comparisons(Run(study_a)))
    for task in CHANCE:
        ends = [100 * reported(study_a, "mmlu", g, task) for g in (0, last)]
        line = [
            100 * np.concatenate([reported(study_a, name, g, task) for name in LINE])
            for g in (0, last)
        ]
        expected = {
            "change of population": [(1, "b", ends[1]), (-1, "a", ends[0])],
            "change of line": [(1, "l", line[1]), (-1, "l", line[0])],
            "population minus line": [(1, "b", ends[1]), (-1, "l", line[1])],
            "change of population minus change of line": [
                (1, "b", ends[1]),
                (-1, "a", ends[0]),
                (-1, "l", line[1]),
                (1, "l", line[0]),
            ],
        }
        mine = rows[rows.measure == f"{task}, accuracy"].set_index("comparison")
        for name, parts in expected.items():
            row = mine.loc[name]
            assert row["mean"] == pytest.approx(sum(s * v.mean() for s, _, v in parts), abs=1e-9)
            low, high = interval(parts)
            near = RESAMPLED * (high - low)
            assert (row.low, row.high) == pytest.approx((low, high), abs=near)
            verdict = {-1: "lower", 0: "not", 1: "higher"}
            sign = int(row.low > 0) - int(row.high < 0)
            said = {"higher": ("rises", "population higher"), "lower": ("falls", "line higher")}
            allowed = said.get(verdict[sign], ("no significant change", "not significant"))
            assert row.verdict in allowed
