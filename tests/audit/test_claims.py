"""Estimates and intervals of the claims of both studies, recomputed from raw artifacts."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pollination.analysis.claims import rounds, verdicts
from pollination.analysis.claims.judge import judge
from pollination.analysis.run import Run
from pollination.plan.claims import CLAIMS, claim_config
from pollination.plan.plan import Plan
from tests.audit import made
from tests.audit.made import EXACT, GENERATIONS, LONG, RESAMPLED, ROUNDS, mu
from tests.audit.test_accuracy import (
    LINE,
    reported,
    resampled,
    runs_and_founders,
    selected_on,
    sides_of,
)
from tests.audit.test_ecosystems import diversity, entries
from tests.conftest import as_read

LAST = GENERATIONS - 1


def judged(plan: Plan) -> dict[str, dict[str, dict]]:
    """Claim -> instance -> its row."""
    part = Plan(as_read(claim_config(plan)), plan.results)
    found: dict[str, dict[str, dict]] = {}
    for row in judge(Run(part)):
        found.setdefault(row["id"], {})[row["tested_on"]] = row
    return found


@pytest.fixture(scope="module")
def claims_a(study_a):
    return judged(study_a)


@pytest.fixture(scope="module")
def claims_b(study_b):
    return judged(study_b)


def check(rows: dict[str, dict], expected: dict[str, float]) -> None:
    assert {name: row["estimate"] for name, row in rows.items()} == pytest.approx(
        expected, rel=EXACT, abs=EXACT
    )


# --- study A: accuracies, in percent


@pytest.fixture(scope="module")
def level(study_a):
    """(experiments, generation, benchmark) -> mean accuracy of the runs, in percent."""

    @cache
    def of(names: tuple[str, ...], g: int, task: str, answers=reported) -> float:
        return float(np.mean([100 * answers(study_a, name, g, task).mean() for name in names]))

    return of


def test_estimates_on_the_selecting_half(claims_a, level):
    """Study A's way, beside each estimate on the questions that select nothing."""
    for label, task in OWN.items():
        ends = [level((task,), g, task, selected_on) for g in (0, LAST)]
        line = [level(LINE, g, task, selected_on) for g in (0, LAST)]
        for claim, expected in (
            ("population_holds", ends[1] - ends[0]),
            ("line_collapses", line[0] - line[1]),
            ("population_over_line", ends[1] - line[1]),
        ):
            row = claims_a[claim][label]
            assert row["selecting_estimate"] == pytest.approx(expected, rel=EXACT, abs=EXACT)
            assert f"{expected:.1f}" in row["note"]


OWN = {"MMLU": "mmlu", "WinoGrande": "winogrande", "MathQA": "mathqa", "SIQA": "social_iqa"}


def test_line_collapses(claims_a, level):
    expected = {label: level(LINE, 0, t) - level(LINE, LAST, t) for label, t in OWN.items()}
    check(claims_a["line_collapses"], expected)


def test_population_changes(claims_a, level):
    expected = {
        label: level((task,), LAST, task) - level((task,), 0, task) for label, task in OWN.items()
    }
    check(claims_a["population_holds"], expected)
    check(claims_a["population_rises"], {label: expected[label] for label in ("MMLU", "MathQA")})
    assert {row["null"] for row in claims_a["population_holds"].values()} == {-2.0}


def test_population_over_line(claims_a, level):
    expected = {
        label: level((task,), LAST, task) - level(LINE, LAST, task) for label, task in OWN.items()
    }
    check(claims_a["population_over_line"], expected)


def test_larger_over_smaller(claims_a, level):
    at = {n: level((name,), LAST, "mmlu") for n, name in ((4, "mmlu_n4"), (9, "mmlu_n9"))}
    at |= {16: level(("mmlu",), LAST, "mmlu")}
    pairs = ((9, 4), (16, 9), (16, 4))
    check(
        claims_a["larger_over_smaller"],
        {f"N = {a} over N = {b}": at[a] - at[b] for a, b in pairs},
    )


def test_inheritance(claims_a, level):
    full, data = (
        level((name,), LAST, "winogrande") for name in ("winogrande", "winogrande_data_only")
    )
    line = level(LINE, LAST, "winogrande")
    check(claims_a["full_over_data_only"], {"full inheritance over text only": full - data})
    check(claims_a["data_only_over_line"], {"text only over the line": data - line})


@pytest.mark.parametrize("label", ["MMLU", "WinoGrande"])
def test_interval_of_population_over_line(study_a, claims_a, label):
    """Questions, runs (the population borrows the line's variance) and shared founders.

    On MMLU both sides have founders of one pool and share its chi-square; on WinoGrande not.
    """
    rng, task = np.random.default_rng(2), OWN[label]
    population = 100 * reported(study_a, task, LAST, task).mean(axis=0)
    lines = 100 * np.mean([reported(study_a, name, LAST, task)[0] for name in LINE], axis=0)
    sides = sides_of(study_a, task, task, LAST)
    found = resampled(rng, (1, population), (-1, lines)) + runs_and_founders(rng, sides, 40_000)
    low, high = np.quantile(found, [0.025, 0.975])
    row = claims_a["population_over_line"][label]
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=RESAMPLED * (high - low))
    assert row["high"] - row["low"] == pytest.approx(high - low, rel=RESAMPLED)


# --- study A: theory


def w2(plan: Plan, role: str) -> np.ndarray:
    """(generations, runs) without generation 0: all runs, of which the figures draw four."""
    table = pd.read_parquet(f"{plan.results}/theory/every_run.parquet")
    table = table[(table.role == role) & (table.generation > 0)]
    return np.array([part.sort_values("generation").w2 for _, part in table.groupby("run")]).T


def test_theory_claims(study_a, claims_a):
    population, line = w2(study_a, "evolution"), w2(study_a, "baseline")
    n = len(line)
    quarter, half, last = n // 4, n // 2, 3 * n // 4
    bounded = np.log10(population[last:].mean(axis=0) / population[quarter:half].mean(axis=0))
    grows = np.log10(line[last:].mean(axis=0) / line[: n // 20].mean(axis=0))
    below = np.log10(line[-(n // 4) :].mean(axis=0) / population[-(n // 4) :].mean(axis=0))
    for name, values in (
        ("w2_bounded", bounded),
        ("w2_line_grows", grows),
        ("w2_below_line", below),
    ):
        (row,) = claims_a[name].values()
        assert row["replicates"] == "10"
        assert row["estimate"] == pytest.approx(values.mean(), rel=EXACT)
        ends = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        near = RESAMPLED * np.ptp(ends)
        assert (row["low"], row["high"]) == pytest.approx(ends, abs=near)


def test_bound_holds(study_a, claims_a):
    table = pd.read_parquet(f"{study_a.results}/theory/bound.parquet")
    (row,) = claims_a["bound_holds"].values()
    assert row["estimate"] == pytest.approx(np.log10(table.printed / table.exact).min(), rel=EXACT)
    assert row["verdict"] == "contradicted"


# --- study B: log perplexity and D_opt


def ladders(plan: Plan, target: str) -> dict[str, dict[float, list[str]]]:
    return {
        title: dict(sorted((diversity(plan, names), names) for names in entry.values()))
        for title, entry in entries(plan, target).items()
    }


def log_mu(plan: Plan, names: list[str], rounds: int, summed: bool = True) -> np.ndarray:
    """(T,): the mean over runs of log mu_T (`summed`) or log mu_t; the run is the unit."""
    mus = np.array([mu(plan, name, rounds) for name in names])
    if summed:
        mus = np.cumsum(mus, axis=1) / np.arange(1, rounds + 1)
    return np.log(mus).mean(axis=0)


def running(plan: Plan, levels: dict[float, list[str]], rounds: int) -> np.ndarray:
    """(D, T): log of the running mean of mu_t."""
    return np.array([log_mu(plan, names, rounds) for names in levels.values()])


def best(levels: dict, log_mu: np.ndarray) -> np.ndarray:
    """(T,): log2 of D_opt."""
    return np.log2(list(levels))[log_mu.argmin(axis=0)]


def test_single_collapses(study_b, claims_b):
    """Four runs: the mean rise of log perplexity; interval of Student's t and of the blocks."""
    ((title, entry),) = entries(study_b, "figure_b9").items()
    (names,) = entry.values()
    rise = [np.log(m[-1] / m[0]) for m in (mu(study_b, name, LONG) for name in names)]
    check(claims_b["single_collapses"], {title: np.mean(rise)})
    rng = np.random.default_rng(1)
    ends = [[made.perplexities(study_b, name, t)[0] for t in (0, LONG - 1)] for name in names]
    values = np.array(ends)  # (runs, 2, B)
    size = values.shape[2]
    shares = rng.multinomial(size, np.full(size, 1 / size), 8000) / size
    logs = np.log(np.einsum("db,rtb->drt", shares, values))
    draws = (logs[:, :, 1] - logs[:, :, 0]).mean(axis=1) + stats.sem(rise) * rng.standard_t(3, 8000)
    low, high = np.quantile(draws, [0.025, 0.975])
    row = claims_b["single_collapses"][title]
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=RESAMPLED * (high - low))


def test_single_model_at_first_and_later(study_b, claims_b):
    """The lead of D = 1 over the closest in round 1, and of the best other over D = 1 at the end.

    The closest is the one with the lowest end of its interval, so its lead is one of the leads.
    """
    for title, levels in ladders(study_b, "figure_b3").items():
        log_mu = running(study_b, levels, ROUNDS)
        leads = log_mu[1:, 0] - log_mu[0, 0]
        row = claims_b["single_best_at_first"][title]
        named = float(row["note"].split()[2])
        expected = leads[list(levels).index(named) - 1]
        assert row["estimate"] == pytest.approx(expected, rel=EXACT)
        greatest = (log_mu[0, -1] - log_mu[1:, -1]).max()
        row = claims_b["single_not_best_later"][title]
        assert row["estimate"] == pytest.approx(greatest, rel=EXACT)


def test_optimum_grows(study_b, claims_b):
    grows, falls = {}, {}
    for title, levels in ladders(study_b, "figure_b3").items():
        path = best(levels, running(study_b, levels, ROUNDS))
        grows[title] = path[-1] - path[0]
        falls[title] = min(path[i] - path[: i + 1].max() for i in range(len(path)))
    check(claims_b["optimum_grows"], grows)
    check(claims_b["optimum_monotone"], falls)


def test_optimum_still_grows(study_b, claims_b):
    ((title, levels),) = ladders(study_b, "figure_b10").items()
    path = best(levels, running(study_b, levels, LONG))
    check(claims_b["optimum_still_grows"], {title: path[-1] - path[LONG // 2 - 1]})


SIZES = {
    "larger_models_raise": ("figure_b5", "OPT-125m", "OPT-350m"),
    "larger_models_raise_other": ("figure_b14", "GPT2", "GPT2-medium"),
}


@pytest.mark.parametrize("claim", SIZES)
def test_larger_models(study_b, claims_b, claim):
    target, small, large = SIZES[claim]
    every, raised, collapsed = ladders(study_b, target), {}, {}
    for text in ("", ", all text"):
        a, b = every[small + text], every[large + text]
        ends = [best(e, running(study_b, e, ROUNDS))[-1] for e in (a, b)]
        raised[f"{large}{text} against {small}{text}"] = ends[1] - ends[0]
        rise = [m[-1] - m[0] for m in (log_mu(study_b, e[1.0], ROUNDS, False) for e in (a, b))]
        collapsed[f"{large}{text} against {small}{text}"] = rise[1] - rise[0]
    check(claims_b[claim], raised)
    if claim == "larger_models_raise":
        check(claims_b["larger_models_collapse"], collapsed)


def against_first(plan: Plan, target: str) -> tuple[dict, dict]:
    """Instance -> change of log2 D_opt on the common ladder; drop of log mu_T at the lowest D."""
    (title, first), *others = ladders(plan, target).items()
    moved, gained = {}, {}
    for name, levels in others:
        pair = [{d: e[d] for d in e if d in first and d in levels} for e in (first, levels)]
        logs = [running(plan, e, ROUNDS) for e in pair]
        ends = [best(e, log)[-1] for e, log in zip(pair, logs, strict=True)]
        moved[f"{name} against {title}"] = ends[1] - ends[0]
        gained[f"{name} against {title}"] = logs[0][0, -1] - logs[1][0, -1]
    return moved, gained


def test_human_text_and_temperature(study_b, claims_b):
    moved, gained = against_first(study_b, "figure_b6")
    check(claims_b["human_text_little"], moved)
    check(claims_b["human_text_helps"], gained)
    check(claims_b["temperature_little"], against_first(study_b, "figure_b7")[0])


def test_families_expansion_twins_and_human_text(study_b, claims_b):
    """Log of mu_T, first minus second label; the test corpora of communities count equally."""
    over_all, at_first, at_last = {}, {}, {}
    for target in ("figure_b16", "figure_b17", "figure_b20", "figure_b21"):
        for title, entry in entries(study_b, target).items():
            a, b = (log_mu(study_b, names, ROUNDS) for names in entry.values())
            over_all[title], at_first[title] = a[-1] - b[-1], a[0] - b[0]
            a, b = (log_mu(study_b, names, ROUNDS, False) for names in entry.values())
            at_last[title] = a[-1] - b[-1]
    for claim, target, values in (
        ("two_families", "figure_b16", over_all),
        ("communities_expansion", "figure_b17", over_all),
        ("communities_from_start", "figure_b17", at_first),
        ("twins_no_help", "figure_b20", over_all),
        ("own_text_collapses", "figure_b21", at_last),
    ):
        check(claims_b[claim], {title: values[title] for title in entries(study_b, target)})


def test_second_of_a_comparison(study_b):
    """Log of mu_T, first minus second label; other claims test twins, families and communities."""
    claim = next(claim for claim in CLAIMS if claim.id == "second_better")
    run = Run(Plan(as_read(claim_config(study_b)), study_b.results))
    role, every = entries(study_b, "figure_b15"), rounds.Rounds(run)
    every.limit(role)
    assert "claims test all" in rounds.second_better(claim, run, role, every)
    one, *_, most = entries(study_b, "figure_b3")["OPT-125m"].values()
    both = {"many, then one": {"many": most, "one": one}}
    (found,) = rounds.second_better(claim, run, role | both, every)
    a, b = (log_mu(study_b, names, ROUNDS) for names in (most, one))
    assert found.instance == "many, then one"
    assert found.estimate == pytest.approx(a[-1] - b[-1], rel=EXACT)


# --- verdicts


def test_verdict_p_and_correction():
    """The interval decides; p is twice the smaller share of draws; Holm over all tests."""
    above, little = CLAIMS[0], next(claim for claim in CLAIMS if claim.margin is not None)
    rng = np.random.default_rng(0)
    rows = []
    for centre in (3.2, 2.5, 2.1, 0.3, -2.6):
        draws = centre + rng.standard_normal(9999)
        row = verdicts.row(above, verdicts.Finding("", centre, draws))
        tail = min((draws <= 0).sum(), (draws > 0).sum())
        assert row["p"] == pytest.approx(min(1, 2 * (1 + tail) / 10_000), rel=EXACT)
        low, high = np.quantile(draws, [0.025, 0.975])
        assert (row["low"], row["high"]) == pytest.approx((low, high), rel=EXACT)
        said = "supported" if low > 0 else "contradicted" if high < 0 else "undecided"
        assert row["verdict"] == said
        rows.append(row)
    verdicts.correct(rows)
    p = np.array([row["p"] for row in rows])
    order, still = np.argsort(p), True
    for place, index in enumerate(order):
        still = still and p[index] <= 0.05 / (len(p) - place)
        expected = rows[index]["verdict"] if still else "undecided"
        assert rows[index]["verdict_of_all"] == expected
    draws = little.margin * (0.2 + 0.3 * rng.standard_normal(9999))
    row = verdicts.row(little, verdicts.Finding("", 0.0, draws))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (row["verdict"] == "supported") == (-little.margin <= low and high <= little.margin)


def test_all_claims_are_judged(claims_a, claims_b):
    assert set(claims_a) == set(claims_b) == {claim.id for claim in CLAIMS}
