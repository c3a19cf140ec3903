"""Claims as tests: verdicts that were built in come out, chance does not become certainty, and what
has no data says so.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

from pollination.analysis import trajectories
from pollination.analysis.claims import noise, rounds, verdicts
from pollination.analysis.claims.noise import Side
from pollination.analysis.claims.verdicts import (
    Finding,
    around,
    correct,
    decide,
    power,
    row,
    student_draws,
)
from pollination.analysis.run import Run
from pollination.analysis.trajectories import Ecosystem
from pollination.core import artifacts
from pollination.figures import claims as page
from pollination.plan import layout
from pollination.plan.claims import CLAIMS, Claim, claim_config
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from pollination.plan.report import figure_config, figure_inputs
from tests.conftest import as_read
from tests.figures import test_ecosystems as eco
from tests.figures.test_report import settings

BY_ID = {claim.id: claim for claim in CLAIMS}
ABOVE = Claim("above", "figure_a6", "", "", "", "")
WITHIN = Claim("within", "figure_a6", "", "", "", "", margin=1.0)


def invent(
    folder: Path, population: float, line: float, seeds=(1, 2, 3), spread=1.0, draw=0, **change
) -> Plan:
    """Accuracies in percent: all begin at 80, and end where they are told, each run a normal
    `spread` off; members of a run share that. `controls`: name -> (experiment, its end).
    """
    controls = change.pop("controls", {})
    raw = settings(
        seeds=seeds,
        line_seeds=change.pop("line_seeds", (1, 2, 3)),
        tasks=("knowledge",),
        generations=2,
        **change,
    )
    raw["experiments"] |= {name: experiment for name, (experiment, _) in controls.items()}
    raw["figures"] = {"controls": list(controls)}
    plan = Plan(resolve(raw), str(folder / "results" / "invented"))
    rng, Q = np.random.default_rng(draw), 1000
    hard = rng.permutation(
        Q
        # a model of accuracy a answers the a easiest of ten slots of each, so that questions say
        # little
        # of chance
    )
    for name, experiment in plan.config["experiments"].items():
        off = spread * rng.standard_normal()
        for g in range(2):
            own = population if experiment["population"] > 1 else line
            end = (controls[name][1] if name in controls else own) + off
            for m in range(experiment["population"]):
                correct_ = hard < Q * (80 + 0.2 * (m % 2) if g == 0 else end) / 100
                table = pd.DataFrame({"task": "knowledge", "doc_id": range(Q), "score": correct_})
                table["chance"] = 0.5
                artifacts.write_table(
                    Path(layout.member_folder(plan, name, g, m), "answers.parquet"), table
                )
    return plan


def judged(plan: Plan) -> dict[str, list[dict]]:
    """The page drawn from its part of the config; claims.json by claim."""
    part = Plan(as_read(claim_config(plan)), plan.results)
    page.draw(Run(part), Path(plan.results, "report", "claims"))
    found: dict[str, list[dict]] = {}
    for one in json.loads(Path(plan.results, "claims.json").read_text())["claims"]:
        found.setdefault(one["id"], []).append(one)
    return found


def test_verdicts_that_were_built_in_come_out(tmp_path):
    found = judged(invent(tmp_path, population=60, line=40))
    assert set(found) == set(BY_ID)
    verdict = {name: [one["verdict"] for one in rows] for name, rows in found.items()}
    assert verdict["population_over_line"] == ["supported"] and verdict["line_collapses"] == [
        "supported"
    ]
    assert verdict["population_holds"] == ["contradicted"]
    (one,) = found["population_over_line"]
    assert (
        one["estimate"] == pytest.approx(20, abs=3)
        and one["replicates"] == "3"
        and one["variance_between_runs"] == "own"
    )
    html = Path(tmp_path, "results/invented/report/claims.html").read_text(encoding="utf-8")
    assert (
        html.count("<svg") == 3
        and "config/paper/epistemic_diversity.yaml" in html
        and "✗ contradicted" in html
    )


def test_a_control_is_compared_with_the_population_and_with_the_line(tmp_path):
    once = {"population": 4, "select": {"task": "knowledge", "rule": "once"}, "weights": "parent"}
    controls = {"once": (once | {"text": "weights_parent"}, 60.0)}
    found = judged(invent(tmp_path, population=75, line=40, controls=controls))
    (over,), (ahead,) = found["population_over_control"], found["control_over_line"]
    assert over["estimate"] == pytest.approx(15, abs=4) and over["verdict"] == "supported"
    assert ahead["estimate"] == pytest.approx(20, abs=4) and ahead["verdict"] == "supported"
    assert (over["tested_on"], ahead["tested_on"]) == ("knowledge over once", "once: knowledge")
    assert over["variance_between_runs"].startswith("borrowed")


def test_the_other_side_wins(tmp_path):
    assert (
        judged(invent(tmp_path, population=40, line=60))["population_over_line"][0]["verdict"]
        == "contradicted"
    )


def test_near_the_edge_other_seeds_are_undecided_not_true(tmp_path):
    """No difference in truth, one population of four members that share their run's luck: never
    certain, whatever the seed.
    """
    verdicts_ = [
        judged(
            invent(tmp_path / str(draw), population=70, line=70, seeds=(), spread=4.0, draw=draw)
        )["population_over_line"][0]["verdict"]
        for draw in range(8)
    ]
    assert verdicts_.count("supported") == 0 and verdicts_.count("undecided") >= 7


def test_what_ran_once_is_undecided_and_says_so(tmp_path):
    (one,) = judged(invent(tmp_path, population=60, line=40, seeds=(), line_seeds=(1,)))[
        "population_over_line"
    ]
    assert (
        one["verdict"] == "undecided"
        and one["variance_between_runs"] == "unknown"
        and one["in_this_run"] == "supported"
    )
    assert one["power"] == 0 and one["p"] is None and one["verdict_of_all"] == "undecided"


def test_a_run_alone_borrows_from_a_line_but_a_line_not_from_a_population(tmp_path):
    borrowed = judged(invent(tmp_path / "a", population=60, line=40, seeds=()))[
        "population_over_line"
    ][0]
    assert (
        borrowed["variance_between_runs"] == "borrowed from line"
        and borrowed["replicates"] == "1 and 3"
    )
    reverse = judged(invent(tmp_path / "b", population=60, line=40, line_seeds=(1,)))[
        "population_over_line"
    ][0]
    assert reverse["variance_between_runs"] == "unknown"


def test_claims_without_data_name_the_preset(tmp_path):
    plan = invent(tmp_path, population=60, line=40)
    found = judged(plan)
    assert (
        found["optimum_grows"][0]["verdict"] == "no data"
        and "config/paper/epistemic_diversity.yaml has it" in found["optimum_grows"][0]["note"]
    )
    assert "config/paper/deployed.yaml has it" in found["ovl"][0]["note"]
    assert "config/paper/theory.yaml has it" in found["w2_bounded"][0]["note"]
    assert "mmlu or mathqa" in found["population_rises"][0]["note"]
    inputs = [path for paths in figure_inputs(plan, "claims").values() for path in paths]
    assert {path.rsplit("/", 1)[1] for path in inputs} == {"answers.parquet"}


def test_the_numbers_of_the_page_add_up(tmp_path):
    """Claims with and without data are all claims; the kinds of tests and each row of verdicts are
    all tests; claims that lack a role share one line per reason.
    """
    plan = invent(tmp_path, population=60, line=40, seeds=())
    rows = [one for found in judged(plan).values() for one in found]
    html = Path(plan.results, "report/claims.html").read_text(encoding="utf-8")
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    said = re.search(r"make (\d+) claims: this run tests (\d+), and (\d+) have no data", words)
    everything, tested, lacking = map(int, said.groups())
    assert everything == len(CLAIMS) == tested + lacking
    absent = {row["id"] for row in rows if row["verdict"] == "no data"}
    assert lacking == len(absent) and tested == len({row["id"] for row in rows} - absent)
    tests = int(re.search(r"That gives (\d+) tests", words).group(1))
    assert tests == len(rows) - len(absent)
    kinds = re.search(r"That gives \d+ tests: (.*?)\. The table", words).group(1)
    assert sum(map(int, re.findall(r"\d+", kinds.replace("p-value", "")))) == tests
    for label in (r"each test alone \(95 %\)", r"corrected for all tests \(Holm, 5 %\)"):
        *verdicts_, total = map(int, re.search(label + r" (\d+) (\d+) (\d+) (\d+)", words).groups())
        assert sum(verdicts_) == total == tests
    lines = re.findall(r"<tr><td>.*?</details></td></tr>", html)
    unset = [line for line in lines if "is not set" in line]
    assert len(unset) == 2 and "figure_b3, figure_b5, figure_b6" in html  # one reason in each study
    assert sum(int(n) for n in re.findall(r"<summary>(\d+) claim", html)) == lacking


def test_a_saturated_benchmark_is_named_in_the_note(tmp_path):
    (one,) = judged(invent(tmp_path, population=100, line=100, spread=0.0))["population_over_line"]
    assert "saturated: every side answers at least 99.5 % correctly" in one["note"]


def test_other_parts_of_the_config_do_not_test_again():
    raw = settings(tasks=("knowledge",))
    plan = Plan(resolve(raw), "results/x")
    raw["experiments"]["line"] |= {"train": {"epochs": 3}}
    assert figure_config(Plan(resolve(raw), "results/x"), "claims") == figure_config(plan, "claims")


def test_student_interval_of_a_side_by_hand():
    """Four runs with means 1, 2, 3, 4 and no chance in questions: mean 2.5, sd 1.291, t(3) = 3.182:
    2.5 +- 2.054.
    """
    side = Side("a", 1, [(1.0, np.repeat(np.arange(1.0, 5.0), 10).reshape(4, 1, 10))])
    drawn = noise.draw([side], lambda x: x, seed=1, draws=200_000)
    low, high = verdicts.ends(drawn.full[:, 0, 0])
    assert (low, high) == (pytest.approx(0.446, abs=0.06), pytest.approx(4.554, abs=0.06))
    assert np.ptp(drawn.questions) == 0


def test_a_run_alone_with_a_borrowed_variance_by_hand():
    """One run at 5 beside three at 1, 2, 3: sd 1, difference 3 +- t(2) * sqrt(1 + 1/3) = 3 +-
    4.968.
    """
    one = Side("one", 4, [(1.0, np.full((1, 1, 5), 5.0))])
    three = Side("three", 1, [(1.0, np.repeat([1.0, 2.0, 3.0], 5).reshape(3, 1, 5))])
    drawn = noise.draw([one, three], lambda x: x, seed=1, draws=200_000)
    low, high = verdicts.ends(drawn.full[:, 0, 0] - drawn.full[:, 1, 0])
    assert (low, high) == (pytest.approx(-1.968, abs=0.15), pytest.approx(7.968, abs=0.15))


def test_matched_replicates_have_the_interval_of_the_paired_t_test():
    """Differences 1, 1.5, 2, 1.5 of runs that are far apart: 1.5 +- t(3) * 0.408 / 2 = +- 0.650."""

    def side(label: str, means: list[float], *pools: str, floor: float = 0.0) -> Side:
        runs = np.repeat(means, 5).reshape(len(means), 1, 5)
        return Side(label, 4, [(1.0, runs)], floor, pools=pools)

    def interval(*sides: Side) -> tuple[float, float]:
        drawn = noise.draw(list(sides), lambda x: x, seed=1, draws=200_000)
        return verdicts.ends(drawn.full[:, 0, 0] - drawn.full[:, 1, 0])

    levels = np.array([10.0, 20.0, 30.0, 40.0])
    low = side("low", levels, "p1", "p2", "p3", "p4")
    high = side("high", levels + [1, 1.5, 2, 1.5], "p1", "p2", "p3", "p4")
    assert interval(high, low) == pytest.approx((0.850, 2.150), abs=0.03)
    other = side("low", levels, "p2", "p1", "p3", "p4")  # other founders run by run
    for unmatched in (other, replace(low, pools=()), replace(low, floor=0.5)):
        assert interval(high, unmatched)[0] < -10, unmatched


def test_only_sides_of_one_pool_share_the_error_of_its_founders():
    """The spread is an estimate with 2 degrees of freedom: one per pool, one weight per side."""

    def sides(*pools: str) -> list[Side]:
        runs = np.repeat([1.0, 1.001], 5).reshape(2, 1, 5)  # hardly any variance between runs
        spread = {"founders": 1, "founder_sd": 1.0, "founder_df": 2}
        return [
            Side(str(place), 1, [(1.0, runs)], founder_pool=pool, **spread)
            for place, pool in enumerate(pools)
        ]

    def alike(*pools: str) -> float:
        drawn = noise.draw(sides(*pools), lambda x: x, seed=1)
        a, b = (drawn.full[:, place, 0] - drawn.point[place, 0] for place in (0, 1))
        for side in (a, b):  # Student's t with 2 degrees of freedom
            assert verdicts.ends(side) == pytest.approx((-4.303, 4.303), abs=0.5)
        assert abs(spearmanr(a, b).statistic) < 0.03
        return float(spearmanr(abs(a), abs(b)).statistic)

    assert alike("one", "one") > 0.2
    assert abs(alike("one", "other")) < 0.03


def test_runs_that_all_score_the_same_still_differ_by_one_answer():
    values = np.full((3, 1, 50), 100.0)
    drawn = noise.draw(
        [Side("a", 1, [(1.0, values)], floor=2.0)], lambda x: x, seed=1, draws=100_000
    )
    low, high = verdicts.ends(drawn.full[:, 0, 0])
    assert high - low == pytest.approx(2 * 4.303 * 2 / np.sqrt(3), rel=0.03)


def test_a_round_that_all_replicates_share_is_not_known():
    values = np.stack([np.stack([np.ones(4), np.full(4, run)]) for run in (2.0, 3.0)])
    drawn = noise.draw([Side("a", 1, [(1.0, values)])], lambda x: x, seed=1, draws=100)
    assert drawn.known.tolist() == [False, True]
    assert verdicts.measure(drawn, lambda x: x[:, 0, 0], "first", [0]).draws is None


def test_power_by_hand():
    """t(2), standard error 1: 80 % at 4.303 + 1.061 from the null; equivalence z: P(|Z| < margin -
    1.96) at no difference.
    """
    finding = Finding("", 0.3, student_draws(0.3, 1.0, 2))
    assert power(ABOVE, finding)["detectable"] == pytest.approx(
        student.ppf(0.975, 2) + student.ppf(0.8, 2), rel=0.01
    )
    paper = Claim("p", "figure_a6", "", "", "", "", paper=5.0)
    assert power(paper, finding)["power"] == pytest.approx(
        1 - student.cdf(student.ppf(0.975, 2) - 5, 2), abs=0.01
    )
    normal = Finding("", 0.0, around(0.0, -1.96 * 0.3, 1.96 * 0.3))
    assert power(WITHIN, normal)["power"] == pytest.approx(
        2 * 0.9152 - 1, abs=0.01
    )  # (1 - 0.588) / 0.3 = 1.373


@pytest.mark.parametrize(
    "claim, low, high, verdict",
    [
        (ABOVE, 0.1, 2, "supported"),
        (ABOVE, -0.1, 2, "undecided"),
        (ABOVE, -2, -0.1, "contradicted"),
        (ABOVE, 0, 0, "undecided"),
        (WITHIN, -0.9, 0.9, "supported"),
        (WITHIN, -0.9, 1.1, "undecided"),
        (WITHIN, 1.1, 3, "contradicted"),
        (WITHIN, -9, 9, "undecided"),
    ],
)
def test_the_verdict_rule(claim, low, high, verdict):
    assert decide(claim, low, high) == verdict


def test_with_many_tests_a_weak_one_becomes_undecided():
    strong, weak = (row(ABOVE, Finding("", e, student_draws(e, 1.0, 1000))) for e in (6.0, 2.1))
    rows = [strong] + [dict(weak) for _ in range(5)]
    correct(rows)
    assert [one["verdict"] for one in rows] == ["supported"] * 6
    assert [one["verdict_of_all"] for one in rows] == ["supported"] + ["undecided"] * 5


# --- ecosystems


def test_ecosystems_that_ran_once_are_undecided(tmp_path):
    found = judged(eco.invent(tmp_path, eco.config()))
    (one,) = found["optimum_grows"]
    assert (
        one["verdict"] == "undecided" and one["in_this_run"] == "supported" and one["estimate"] == 2
    )
    assert "D_opt 1 at T = 1, 4 at T = 4" in one["note"]


def test_independent_runs_decide_about_the_optimum(tmp_path):
    raw = eco.config()
    for name, experiment in raw["experiments"].items():
        raw["experiments"][name] = {key: experiment[key] for key in experiment if key != "seeds"}
        raw["experiments"][name]["replicates"] = [1, 2, 3]
    found = judged(eco.invent(tmp_path, raw))
    for claim in ("optimum_grows", "single_not_best_later", "single_best_at_first"):
        (one,) = found[claim]
        assert (one["replicates"], one["variance_between_runs"]) == ("4", "own")
        assert one["verdict"] == "supported", claim


class Given(rounds.Rounds):
    def __init__(self, found: list[Ecosystem], lent: list[Ecosystem]) -> None:
        self.given, self._donors = found, lent

    def read(self, entry: dict) -> list[Ecosystem]:
        return self.given


def ecosystem(diversity: int, replicates: int, rise: float, rng, run: float = 0.01) -> Ecosystem:
    """Nats 1 + 0.3 D + rise * t / D: the more diverse begin worse and hold; runs lie `run` apart in
    every round.
    """
    tokens, T, B = np.full(30, 10), 5, 30
    losses = []
    for _ in range(replicates):
        nats = (
            1 + 0.3 * diversity + rise * np.arange(T) / diversity + run * rng.standard_normal(T)
        )[:, None]
        losses.append(
            [(nats + 0.02 * rng.standard_normal((T, B)), tokens) for _ in range(diversity)]
        )
    return Ecosystem(str(diversity), float(diversity), losses)


def verdict_of(claim: str, found: list[Ecosystem], lent: list[Ecosystem] = ()) -> str:
    name = BY_ID[claim].test.split(".")[1]
    (one,) = getattr(rounds, name)(BY_ID[claim], None, {"entry": {}}, Given(found, list(lent)))
    return row(BY_ID[claim], one)["verdict"]


@pytest.mark.parametrize("rise, grows", [(2.0, "supported"), (0.0, "contradicted")])
def test_the_best_diversity_grows_where_it_was_built_in(rise, grows):
    rng = np.random.default_rng(0)
    found = [ecosystem(D, 4, rise, rng) for D in (1, 2, 4)]
    assert verdict_of("optimum_grows", found) == grows
    assert verdict_of("single_best_at_first", found) == "supported"
    assert verdict_of("single_not_best_later", found) == grows


def test_single_runs_borrow_from_independent_runs_of_one_model():
    rng = np.random.default_rng(1)
    found = [ecosystem(D, 1, 2.0, rng) for D in (1, 2, 4)]
    assert verdict_of("optimum_grows", found) == "undecided"
    assert verdict_of("optimum_grows", found, [ecosystem(1, 4, 2.0, rng)]) == "supported"
    assert verdict_of("optimum_grows", found, [ecosystem(1, 4, 2.0, rng, run=3.0)]) == "undecided"


def test_two_corpora_count_equally_on_both_sides():
    """One model on two corpora (75 and 25 test blocks) against a model on each, of the same
    perplexity: no difference, where weights by blocks give log(17.5 / 15) = 0.154.
    """
    parts = [
        (np.full((2, blocks), np.log(mu)), np.full(blocks, 10))
        for blocks, mu in ((75, 20), (25, 10))
    ]
    one = Ecosystem("one", 1.0, [parts], ("long", "short"), 1)
    two = Ecosystem("two", 2.0, [parts], ("long", "short"), 2)
    assert (one.models, two.models) == (1, 2)
    assert one.rows()[0]["mu"] == two.rows()[0]["mu"] == pytest.approx(15)
    for name in ("diverse_better", "diverse_from_start"):
        claim = BY_ID["communities_expansion"]
        (found,) = getattr(rounds, name)(claim, None, {"entry": {}}, Given([one, two], []))
        assert found.estimate == 0
    best = trajectories.optimum([one, two], "communities")
    assert best.mu_DT[:, -1] == pytest.approx([15, 15]) and np.ptp(best.mu_DT) == 0


def test_claims_and_figures_choose_optima_from_common_diversities():
    """D = 8 is best of 1, 2, 4, 8; of the common 1, 2, 4 it is 4 on both sides."""

    def made(values: dict[float, float]) -> list[Ecosystem]:
        return [
            Ecosystem(f"{D:g}", D, [[(np.log(np.full((2, 5), mu)), np.full(5, 10))]])
            for D, mu in values.items()
        ]

    wide, narrow = made({1: 9, 2: 8, 4: 7, 8: 5}), made({1: 9, 2: 8, 4: 7})
    common = trajectories.on_common_diversities(wide, narrow)
    best = [trajectories.optimum(found, "x") for found in common]
    assert [one.diversities[one.best_T[-1]] for one in best] == [4, 4]
    assert trajectories.optimum(wide, "x").best_T[-1] == 3
    (found,) = rounds._compare(
        Given([], []), [(("a", wide), ("b", narrow))], rounds._last_optimum, rounds._last_only, True
    )
    assert found.estimate == 0
    apart = rounds._compare(
        Given([], []),
        [(("a", wide), ("b", made({3: 1, 5: 2})))],
        rounds._last_optimum,
        rounds._last_only,
        True,
    )
    assert apart == "no two entries have enough diversities in common"


def test_little_change_needs_an_interval_inside_the_margin():
    rng = np.random.default_rng(2)
    same = [ecosystem(1, 4, 0.5, rng), ecosystem(1, 4, 0.5, rng)]
    same[1] = Ecosystem("twins", 1.0, [members * 2 for members in same[1].losses])
    assert verdict_of("twins_no_help", same) == "supported"
    wide = [ecosystem(1, 3, 0.5, rng, run=1.0), ecosystem(1, 3, 0.5, rng, run=1.0)]
    wide[1] = Ecosystem("twins", 1.0, [members * 2 for members in wide[1].losses])
    assert verdict_of("twins_no_help", wide) == "undecided"
