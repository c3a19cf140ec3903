"""The figures on ecosystems, on a small invented run whose artifacts have the documented format."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.figures import drawing
from pollination.plan import layout, report
from pollination.plan.config.resolve import resolve
from pollination.plan.figures import REPORT
from pollination.plan.plan import Plan
from pollination.plan.report import figure_config, figure_inputs, report_files
from tests.conftest import as_read
from tests.figures.test_report import settings

GENERATIONS, BLOCKS = 4, 30

OPTIONAL = {name for name, figure in REPORT.items() if figure.optional and name != "sweep"}


def config(**change) -> dict:
    """Ecosystems of 1 (two replicates), 2 and 4 members."""
    raw = settings(line_seeds=(), tasks=(), generations=GENERATIONS) | change.pop("raw", {})
    raw["founders"] = {
        f"f{n}": raw["founders"]["human"] for n in (1, 2, 4)
    }  # a pool each: they would share the founders of one
    shared = {"weights": "own", "text": "pool"}
    raw["experiments"] = {
        f"m{n}": {"population": n, "founders": f"f{n}", **shared}
        | ({"seeds": [1, 2]} if n == 1 else {})
        for n in (1, 2, 4)
    }
    raw["evaluate"] |= {
        "disagreement": {"corpus": "world"},
        "quality": True,
        "semantics": None,
    } | change.pop("evaluate", {})
    comparisons = {"sizes": {"one model": "m1", "four": "m4"}, "two": ["m2", "m4:3"]}
    return raw | {
        "figures": change.pop(
            "figures", {"ecosystems": {"tiny": ["m1", "m2", "m4"]}, "comparisons": comparisons}
        )
    }


def invent(folder: Path, raw: dict) -> Plan:
    """A single model is best at first and decays fast; four begin worse and hold.

    Text that is farther from the truth than its reader harms.
    """
    plan = Plan(resolve(raw), str(folder / "results" / "invented"))
    for name, experiment in plan.config["experiments"].items():
        size = experiment["population"]
        for g in range(experiment["generations"]):
            for m in range(size):
                rng, member = (
                    np.random.default_rng([size, g, m, experiment["seed"]]),
                    Path(layout.member_folder(plan, name, g, m)),
                )
                nats = 1 + 0.1 * size + g * 0.8 / size + 0.05 * rng.standard_normal(BLOCKS)
                table = pd.DataFrame(
                    {
                        "corpus": "world",
                        "split": "test",
                        "sequence": range(BLOCKS),
                        "tokens": 10,
                        "nll": 10 * nats,
                    }
                )
                artifacts.write_table(member / "sequences.parquet", table.assign(truth_nll=10.0))
                delta, text = rng.normal(), 0.5 + 0.8 * rng.normal()
                distance = {
                    "text": text,
                    "text_floor": 0.1,
                    "text_floor_sd": 0.01,
                    "before": text - delta,
                    "after": 0.3,
                }
                distances = {
                    "sentences": distance | {"delta": delta, "delta_corrected": delta - 0.1}
                }
                trained = [
                    {"step": s + 1, "tokens": (s + 1) * 64, "loss": 2.0} for s in range(8 // size)
                ] + [{"step": 8 // size, "validation_loss": 2.0}]
                (member / "train.jsonl").write_text(
                    "".join(f"{json.dumps(row)}\n" for row in trained), encoding="utf-8"
                )
                performance = {
                    "change": 0.5 * (delta - 0.2),
                    "change_stderr": 0.01,
                    "nll_per_token_before": 2 + text - delta,
                }
                artifacts.write_json(
                    member / "quality.json",
                    {"kind": "truth", "distances": distances, "performance": performance},
                )
            if size > 1:
                found = {"js": 0.3 - 0.05 * g, "effective_models": float(np.exp(0.3 - 0.05 * g))}
                artifacts.write_json(f"{plan.results}/{name}/gen{g}/disagreement.json", found)
    return plan


def draw(figure: str, plan: Plan) -> list[dict]:
    out = Path(plan.results, "report", figure)
    part = Plan(as_read(figure_config(plan, figure)), plan.results)
    drawing(figure).draw(Run(part), out)
    assert all(Path(f"{out}.{end}").stat().st_size > 0 for end in ("svg", "png", "csv"))
    with open(f"{out}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return invent(tmp_path_factory.mktemp("run"), config())


def test_optimal_diversity_grows_with_the_rounds(plan):
    rows = draw("diversity", plan)
    best = [
        float(row["diversity"])
        for row in sorted(rows, key=lambda row: int(row["T"]))
        if row["optimum"] == "True"
    ]
    assert best[0] == 1 and best[-1] == 4 and best == sorted(best) and len(best) == GENERATIONS
    assert {(row["diversity"], row["replicates"]) for row in rows} == {
        ("1", "2"),
        ("2", "1"),
        ("4", "1"),
    }
    assert all(
        float(row["optimum_low"]) <= float(row["diversity"]) <= float(row["optimum_high"])
        for row in rows
        if row["optimum"] == "True"
    )
    assert (
        rows[0]["monotone"] == "True"
        and float(rows[0]["monotone_probability"]) > 0.9
        and float(rows[0]["rises_probability"]) == 1
    )
    for T in range(1, GENERATIONS + 1):
        assert sum(
            float(row["probability"]) for row in rows if int(row["T"]) == T
        ) == pytest.approx(1, abs=1e-4)


def test_trajectories_aggregates_and_comparisons_say_the_same(plan):
    rows = draw("trajectories", plan)
    mine = [row for row in rows if row["experiment"] == "m2"]
    tables = [
        [
            Run(plan).blocks(layout.member_folder(plan, "m2", t, m), "world", "test")[0]
            for m in range(2)
        ]
        for t in range(GENERATIONS)
    ]
    for row, nats in zip(mine, tables, strict=True):
        assert float(row["mu"]) == pytest.approx(np.exp(nats).mean(), rel=1e-5) and float(
            row["sd"]
        ) == pytest.approx(np.exp(nats).std(), rel=1e-4)
        assert float(row["token_perplexity"]) == pytest.approx(
            np.mean([np.exp(member.mean()) for member in nats]), rel=1e-5
        )
    (aggregate,) = [row for row in draw("aggregates", plan) if row["diversity"] == "2"]
    assert float(aggregate["mu"]) == pytest.approx(
        np.mean([float(row["mu"]) for row in mine]), rel=1e-5
    )
    compared = draw("comparisons", plan)
    assert {(row["title"], row["experiment"], row["replicates"]) for row in compared} == {
        ("sizes", "one model", "2"),
        ("sizes", "four", "1"),
        ("two", "m2", "1"),
        ("two", "m4:3", "1"),
    }
    alone = [
        np.exp(Run(plan).blocks(layout.member_folder(plan, "m4", t, 3), "world", "test")[0]).mean()
        for t in range(GENERATIONS)
    ]
    assert [float(row["mu"]) for row in compared if row["experiment"] == "m4:3"] == pytest.approx(
        alone, rel=1e-5
    )
    assert {row["aggregate"] for row in compared if row["experiment"] == "m2"} == {aggregate["mu"]}


def test_distributions_are_densities_of_the_first_and_the_last_round(plan):
    rows = pd.DataFrame(draw("distributions", plan)).astype(
        {"perplexity": float, "density": float, "t": int}
    )
    for (_, t), part in rows.groupby(["experiment", "t"]):
        assert t in (0, GENERATIONS - 1)
        assert np.trapezoid(part.density, np.log10(part.perplexity)) == pytest.approx(1, abs=0.02)


def test_training_text_ranks_no_member(tmp_path):
    plan = Plan(resolve(config()), str(tmp_path))
    for m, (held_out, read) in enumerate([(1.0, 9.0), (2.0, 0.5)]):
        texts = {"own/segment": read, "own/train": read, "world/test": held_out}
        scores = {"perplexity": {text: {"nll_per_token": nll} for text, nll in texts.items()}}
        artifacts.write_json(f"{layout.member_folder(plan, 'm2', 0, m)}/scores.json", scores)
    what, losses = Run(plan).yardstick("m2", 0)
    assert what == "nats per token on held-out text" and losses.tolist() == [1.0, 2.0]


def test_the_budget_of_all_members_is_summed_round_by_round(plan):
    rows = draw("budget", plan)
    assert len(rows) == 3 * GENERATIONS and {row["models"] for row in rows} == {"1", "2", "4"}
    assert {(row["tokens"], row["steps"], row["relative"]) for row in rows} == {("512", "8", "1")}


def test_disagreement_stands_beside_the_change_that_follows(plan):
    rows = draw("disagreement", plan)
    assert {row["experiment"] for row in rows} == {"m2", "m4"} and len(rows) == 2 * GENERATIONS
    assert float(rows[0]["effective_models"]) == pytest.approx(np.exp(0.3), rel=1e-5)
    assert rows[GENERATIONS - 1]["change_of_log_mu"] == "" and float(
        rows[0]["change_of_log_mu"]
    ) == pytest.approx(0.4, abs=0.05)


def test_quality_finds_the_boundary_that_was_put_in(plan):
    rows = draw("quality", plan)
    raw = [row for row in rows if row["corrected"] == "False"]
    assert len(raw) == 1 + 2 + 4 + (GENERATIONS - 1) * (
        2 * 1 + 2 + 4
    )  # replicates share their founder
    assert float(raw[0]["rank_correlation"]) == pytest.approx(1) and float(raw[0]["parted"]) == 1
    assert raw[0]["verdict"] == "supported" and float(raw[0]["partial_low"]) > 0
    assert float(raw[0]["permutation_p"]) < 0.01 and float(raw[0]["rank_correlation_null"]) < 0.9
    floor = next(row for row in rows if row["corrected"] == "True")
    assert floor["partial"] == raw[0]["partial"]  # ranks do not see an equal floor
    assert float(raw[0]["boundary_low"]) <= 0.2 <= float(raw[0]["boundary_high"])
    for row in raw:
        assert row["regime"] == (
            "low"
            if float(row["delta"]) > 0.02
            else "high"
            if float(row["delta"]) < -0.02
            else "medium"
        )
    assert {row["outcome"] for row in raw} <= {"helped", "harmed", "unchanged"}


@pytest.mark.parametrize(
    "figures, evaluate, made",
    [
        ({}, {"disagreement": None, "quality": False}, set()),
        ({}, {}, {"quality"}),
        ({"comparisons": {"all": ["m1", "m2"]}}, {"quality": False}, {"comparisons"}),
        (
            {"ecosystems": {"alone": ["m1"]}},
            {},
            OPTIONAL - {"comparisons", "semantics", "semantic_diversity", "interaction_graph"},
        ),
    ],
)
def test_a_figure_is_made_where_its_role_is_given_and_from_its_declared_inputs(
    figures, evaluate, made, tmp_path
):
    plan = invent(tmp_path, config(figures=figures, evaluate=evaluate))
    assert set(report.figures(plan)) & OPTIONAL == made
    for figure in made:
        bare = Plan(plan.config, str(tmp_path / figure))
        for path in [path for paths in figure_inputs(plan, figure).values() for path in paths]:
            copy = Path(path.replace(plan.results, bare.results))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.hardlink_to(path)
        draw(figure, bare)
        assert f"{bare.results}/report/{figure}.svg" in report_files(bare)
