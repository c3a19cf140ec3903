"""Study A's accuracies, recomputed from single answers: figures 6, 9, 12, and differences."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pollination.analysis.saturation import limit
from pollination.core.statistics import selection_confidence
from pollination.evolution import selection
from pollination.figures import accuracy, difference, drawing, style
from pollination.plan.plan import Plan
from tests.audit import made
from tests.audit.made import CSV, EXACT, GENERATIONS, QUESTIONS, RESAMPLED, correct

LINE = ("line.s42", "line.s123", "line.s456")


@pytest.fixture(scope="module")
def drawn(study_a):
    return cache(lambda target: made.draw(study_a, target))


@pytest.fixture(scope="module")
def compared(study_a):
    return pd.DataFrame(difference.comparisons(made.run(study_a.results, study_a)))


def reported(plan: Plan, name: str, g: int, task: str) -> np.ndarray:
    """(members, questions): answers to the questions that a figure reports."""
    return correct(plan, name, g, task, "reporting")


def selected_on(plan: Plan, name: str, g: int, task: str) -> np.ndarray:
    """(members, questions): answers to the questions that select parents, as in study A."""
    return correct(plan, name, g, task, "selecting")


def founders(plan: Plan, name: str, task: str) -> np.ndarray:
    """(founders,): accuracies in generation 0, in percent."""
    return 100 * reported(plan, name, 0, task).mean(axis=1)


def runs_and_founders(rng, sides: list[dict], draws: int) -> np.ndarray:
    """(draws,): noise of a difference of sides, each with a sign.

    `sd`, `degrees`, `runs`: the standard deviation between runs, its degrees of freedom and the
    number of runs; `pool`: accuracies of the founders that the runs share; `founders`: how many a
    side has. Sides that use the same variance share its chi-square: that of the runs is one line's
    here, and each pool has its own. No variance is below one answer, `least`.
    """
    found, errors = np.zeros(draws), {}

    def error(name, degrees: int) -> np.ndarray:
        if name not in errors:
            errors[name] = np.sqrt(rng.chisquare(degrees, draws) / degrees)
        return errors[name]

    for side in sides:
        normal = rng.standard_normal((2, draws))
        spread = max(side["sd"], side["least"]) / np.sqrt(side["runs"])
        found += spread * normal[0] / error("runs", side["degrees"])
        pool = side["pool"]
        spread = max(pool.std(ddof=1), side["least"]) / np.sqrt(side["founders"])
        found += spread * normal[1] / error(tuple(pool), len(pool) - 1)
    return found


def sides_of(plan: Plan, task: str, name: str | None, g: int) -> list[dict]:
    """The line's three runs, and before it the population `name`, which borrows their variance."""
    lines = np.array([100 * reported(plan, one, g, task)[0] for one in LINE])
    of_line = {"sd": lines.mean(axis=1).std(ddof=1), "degrees": 2, "least": 100 / lines.shape[1]}
    line = of_line | {"runs": 3, "pool": founders(plan, "mmlu", task), "founders": 1}
    if name is None:
        return [line]
    size = len(reported(plan, name, 0, task))
    # a smaller population of a pool has fewer founders; the pool's spread is that of all
    pool = founders(plan, name.split("_n")[0], task)
    return [of_line | {"runs": 1, "pool": pool, "founders": size}, line]


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
            expected = selected_on(study_a, name, g, task).mean(axis=1)
            assert here.selecting_accuracy.to_numpy() == pytest.approx(expected, rel=CSV)
            assert set(here.questions) == set(here.selecting_questions) == {QUESTIONS // 2}
            chosen = np.argsort(-expected, kind="stable")
            k = int(len(expected) ** 0.5)
            assert set(here.member[here.selected]) == set(chosen[:k])
            lines = rows[rows.label == "single line"] if target == "figure_a12" else mine
            for one in LINE[: 1 if g == 0 else 3]:  # all lines start from the same founder
                expected = reported(study_a, one, g, task).mean()
                here = lines[(lines.generation == g) & (lines.experiment == one)]
                assert here.accuracy.tolist() == pytest.approx([expected], rel=CSV)
                expected = selected_on(study_a, one, g, task).mean()
                assert here.selecting_accuracy.tolist() == pytest.approx([expected], rel=CSV)


def test_bands_of_figure_12(study_a, drawn):
    """Means, and 95 % intervals with the run as the unit: questions, runs and founders.

    In generation 0 all runs are the founders, so the band covers other questions only.
    """
    rows, task, draws = drawn("figure_a12"), "winogrande", 20_000
    curves = {label: name for label, (name, _) in populations(study_a, "figure_a12").items()}
    for label, name in (curves | {"single line": None}).items():
        for g in range(GENERATIONS):
            rng = np.random.default_rng([3, g])
            names = [name] if name else LINE
            answers = 100 * np.array([reported(study_a, n, g, task).mean(axis=0) for n in names])
            answers = answers.mean(axis=0)
            found = answers[rng.integers(0, len(answers), (draws, len(answers)))].mean(axis=1)
            if g > 0:
                found += runs_and_founders(rng, sides_of(study_a, task, name, g)[:1], draws)
            low, high = np.clip(np.quantile(found, [0.025, 0.975]), 0, 100)
            mine = rows[(rows.label == label) & (rows.generation == g)]
            assert set(mine["mean"].round(5)) == {round(answers.mean() / 100, 5)}
            near = RESAMPLED * (high - low) / 100
            assert set(mine.variance) == {"unknown"} if g == 0 else {"own", "borrowed from line"}
            row = mine.iloc[0]
            assert (row.low, row.high) == pytest.approx((low / 100, high / 100), abs=near)


def test_band_of_the_line():
    """A t-interval over replicates; for one model the Wilson interval over questions."""
    values = np.array([0.4, 0.5, 0.65])
    mean, half = style.mean_band(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=EXACT)
    stderr = (0.3 * 0.7 / (QUESTIONS - 1)) ** 0.5  # of answers that are right or wrong
    rows = pd.DataFrame(
        {"generation": 0, "experiment": "line", "member": 0, "accuracy": [0.3], "stderr": stderr}
    )
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
    seed = study_a.config["evaluation_seed"]
    half = {"splits": {"mmlu": "half"}, "evaluation_seed": seed}
    found = selection.select(scores, answers, "mmlu", 4, seed=1, **half)
    level = selected_on(study_a, "mmlu", 1, "mmlu").mean(axis=1)
    ranking = pd.DataFrame({"level": -level, "slot": range(16)}).sort_values(["level", "slot"])
    assert found["ranking"] == ranking.slot.tolist() and found["parents"] == found["ranking"][:4]
    assert found["accuracies"] == pytest.approx(level, rel=EXACT)
    cut = level[found["parents"][-1]]
    assert set(found["ties"]["at_the_cut"]) == set(np.flatnonzero(level == cut))


def test_winners_curse(study_a, tmp_path):
    """By how much the selecting half flatters the parents, and its standard error; in the figure.

    A question's value is the parents' mean answer minus that of all members.
    """
    drawing("selection").draw(made.run(study_a.results, study_a), tmp_path / "s")
    csv = pd.read_csv(tmp_path / "s.csv")
    paths = [[made.folder(study_a, "mmlu", g, m) for m in range(16)] for g in range(GENERATIONS)]
    for g in range(GENERATIONS):
        scores, answers = (
            [path / name for path in paths[g]] for name in ("scores.json", "answers.parquet")
        )
        half = {"splits": {"mmlu": "half"}, "evaluation_seed": study_a.config["evaluation_seed"]}
        found = selection.select(scores, answers, "mmlu", 4, seed=1, **half)
        halves = [of(study_a, "mmlu", g, "mmlu") for of in (selected_on, reported)]
        parents = np.argsort(-halves[0].mean(axis=1), kind="stable")[:4]
        leads = [h[parents].mean(axis=0) - h.mean(axis=0) for h in halves]
        gap = leads[0].mean() - leads[1].mean()
        stderr = np.sqrt(sum(stats.sem(lead) ** 2 for lead in leads))
        assert found["winners_curse"] == pytest.approx({"gap": gap, "stderr": stderr}, rel=EXACT)
        every = np.concatenate(halves, axis=1)
        for part, values in (("reported", halves[1]), ("all", every)):
            assert found[part]["accuracies"] == pytest.approx(values.mean(axis=1), rel=EXACT)
            assert found[part]["standard_errors"] == pytest.approx(stats.sem(values, axis=1))
            assert found[part]["questions"] == values.shape[1]
        rows = csv[csv.generation == g].sort_values("rank")
        assert rows.gap.to_numpy() == pytest.approx(np.full(4, gap), rel=CSV)
        assert rows.gap_stderr.to_numpy() == pytest.approx(np.full(4, stderr), rel=CSV)
        levels = rows[["accuracy", "reported_accuracy", "all_accuracy"]].to_numpy().T
        expected = [values.mean(axis=1)[parents] for values in (*halves, every)]
        assert levels == pytest.approx(np.array(expected), rel=CSV)


LAST, DRAWS = GENERATIONS - 1, 40_000


def resampled(rng, *signed: tuple[int, np.ndarray]) -> np.ndarray:
    """(draws,): the sum of signed means over the same resampled questions (questions,)."""
    each = sum(sign * values for sign, values in signed)
    return each[rng.integers(0, len(each), (DRAWS, len(each)))].mean(axis=1)


@pytest.mark.parametrize("task", CHANCE)
def test_differences_of_the_main_result(study_a, compared, task):
    """Change of population and line, their difference at the end, and the difference of changes."""
    ends = [100 * reported(study_a, "mmlu", g, task).mean(axis=0) for g in (0, LAST)]
    line = [
        100 * np.mean([reported(study_a, name, g, task)[0] for name in LINE], axis=0)
        for g in (0, LAST)
    ]
    both = sides_of(study_a, task, "mmlu", LAST)
    changes = [(1, ends[1]), (-1, ends[0])], [(1, line[1]), (-1, line[0])]
    expected = {
        "change of population": (changes[0], both[:1]),
        "change of line": (changes[1], both[1:]),
        "population minus line": ([(1, ends[1]), (-1, line[1])], both),
        "change of population minus change of line": (
            [*changes[0], *((-sign, values) for sign, values in changes[1])],
            both,
        ),
    }
    mine = compared[compared.measure == f"{task}, accuracy"].set_index("comparison")
    for name, (parts, sides) in expected.items():
        rng, row = np.random.default_rng(5), mine.loc[name]
        estimate = sum(sign * values.mean() for sign, values in parts)
        assert row["mean"] == pytest.approx(estimate, abs=EXACT)
        found = resampled(rng, *parts) + runs_and_founders(rng, sides, DRAWS)
        low, high = np.quantile(found, [0.025, 0.975])
        near = RESAMPLED * (high - low)
        most = 200 if "minus change" in name else 100  # no difference of percentages exceeds it
        cut = np.clip((low, high), -most, most)
        assert (row.low, row.high) == pytest.approx(tuple(cut), abs=near)
        sign = int(row.low > 0) - int(row.high < 0)
        said = {1: ("rises", "population higher"), -1: ("falls", "line higher")}
        assert row.verdict in said.get(sign, ("no significant change", "not significant"))
        borrows = "population" in name
        assert row.variance_between_runs == ("borrowed from line" if borrows else "own")
    other = compared[compared.measure == f"{task}, accuracy on the selecting half"]
    leads = [selected_on(study_a, "mmlu", g, task).mean() for g in (LAST, 0)]
    change = other.set_index("comparison").loc["change of population", "mean"]
    assert change == pytest.approx(100 * (leads[0] - leads[1]), abs=EXACT)


def test_differences_in_nats(study_a, compared):
    """Nats per token of a text; nats have no least variance, and the run is the unit."""

    def nats(name: str, g: int) -> np.ndarray:
        size = study_a.config["experiments"][name]["population"]
        every = [
            made.table(made.folder(study_a, name, g, m) / "sequences.parquet") for m in range(size)
        ]
        return np.array([(rows.nll / rows.tokens.mean()).to_numpy() for rows in every])

    population = nats("mmlu", LAST).mean(axis=0)
    lines = np.array([nats(name, LAST)[0] for name in LINE])
    pool = nats("mmlu", 0).mean(axis=1)
    shared = {"sd": lines.mean(axis=1).std(ddof=1), "degrees": 2, "least": 0.0, "pool": pool}
    sides = [shared | {"runs": 1, "founders": 16}, shared | {"runs": 3, "founders": 1}]
    rng = np.random.default_rng(6)
    found = resampled(rng, (1, population), (-1, lines.mean(axis=0)))
    found += runs_and_founders(rng, sides, DRAWS)
    low, high = np.quantile(found, [0.025, 0.975])
    row = compared[compared.measure == "fineweb/test, log perplexity"].set_index("comparison")
    row = row.loc["population minus line"]
    assert row["mean"] == pytest.approx(population.mean() - lines.mean(), rel=EXACT)
    assert (row.low, row.high) == pytest.approx((low, high), abs=RESAMPLED * (high - low))


@pytest.mark.parametrize(
    ("levels", "chance", "kind"),
    [
        ((99.5, 100), 0.25, "saturated"),
        ((99.4, 100), 0.25, ""),
        ((0.4, 0.0), None, "saturated"),
        ((0.4, 0.0), 0.25, ""),
        ((26.0, 24.0), 0.25, "at chance"),
        ((30.0, 25.0), 0.25, ""),
    ],
)
def test_saturated_and_at_chance(levels, chance, kind):
    """99.5 % and more; inside the normal interval of a guesser of 500 questions."""
    found = limit(levels, 500, chance)
    assert (found.kind if found else "") == kind
    shares = np.array(levels) / 100
    guess = (
        (0, 0)
        if chance is None
        else stats.norm.interval(0.95, chance, (chance * (1 - chance) / 500) ** 0.5)
    )
    inside = ((shares > guess[0]) & (shares < guess[1])).all()
    floor = chance is None and (shares <= 0.005).all()
    said = "saturated" if (shares >= 0.995).all() or floor else "at chance" if inside else ""
    assert said == kind
