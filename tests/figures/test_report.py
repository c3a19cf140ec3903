"""The report's figures, on a small invented run whose artifacts have the documented format."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pollination.analysis.claims.judge import judge
from pollination.analysis.claims.populations import Accuracies
from pollination.analysis.degeneration import KINDS, Span
from pollination.analysis.run import Run
from pollination.analysis.saturation import Limit, limit
from pollination.analysis.semantics import compare
from pollination.core import artifacts
from pollination.core.statistics import kernels
from pollination.data.microworld import expected_distinct_facts
from pollination.evolution.selection import select
from pollination.figures import continuations, difference, drawing, page, semantics
from pollination.plan import layout, report
from pollination.plan.claims import claim_config
from pollination.plan.config.resolve import resolve
from pollination.plan.embedding import embedded_groups, embedded_places
from pollination.plan.figures import FIGURES
from pollination.plan.job_kinds import activity_of
from pollination.plan.layout import member_files
from pollination.plan.lineage import ancestry, format_ancestry
from pollination.plan.plan import Plan
from pollination.plan.report import (
    figure_config,
    figure_inputs,
    report_files,
)
from pollination.plan.semantics import diversity_file, embeddings_file
from pollination.plan.splits import rule_splits
from tests.conftest import ROOT, as_read

HOSTILE = '<script>alert("x")</script> $x_{1}$ \x00\u202e & "quoted"\n' + "z" * 400


def settings(
    population=4, line_seeds=(42, 123, 456), generations=5, tasks=("knowledge", "social"), **change
) -> dict:
    """A config as a person writes it; population 0: none, no line seeds: no line."""
    selects = "parent" if change.get("select", True) and tasks else "own"
    experiments = {}
    if population:
        task = {"task": tasks[0]} if selects == "parent" else {}
        task |= {"rule": change["rule"]} if "rule" in change else {}
        experiments["population"] = {
            "population": population,
            "select": task,
            "weights": "soup" if "soup" in change else selects,
            "text": change.get("text", selects),
            **{key: change[key] for key in ("graph", "soup") if key in change},
        }
        experiments["population"] |= {
            "mutate": {"scale": 0.0 if "soup" in change else 0.01},
            "seeds": list(change.get("seeds", ())),
        }
    if replicates := change.get("replicates"):  # matched: a line from each founder of each pool
        alone = {"population": population, "weights": "own", "text": "own"}
        experiments["lines"] = alone | {"replicates": replicates}
        experiments["population"] = {
            key: value for key, value in experiments["population"].items() if key != "seeds"
        } | {"replicates": replicates}
    elif line_seeds:
        experiments["line"] = {
            "population": 1,
            "seeds": list(line_seeds),
            "weights": "own",
            "text": "own",
        }
    return {
        "run": "invented",
        "corpora": {"world": {"kind": "microworld"}},
        "models": {
            "tiny": {
                "architecture": "llama",
                "context_tokens": 1024,
                "tokenizer": {"kind": "word", "corpus": "world"},
            }
        },
        "founders": {"human": {"model": "tiny", "corpus": "world", "train": {"tokens": 1000}}},
        "tasks": {
            task: {"kind": "microworld", "corpus": "world", "benchmark": task} for task in tasks
        },
        "evaluate": {
            "perplexity": [{"corpus": "world"}] if change.get("text_measured", True) else [],
            "semantics": {"encoder": "tfidf"},
        },
        "defaults": {"founders": "human", "generations": generations},
        "experiments": experiments,
    }


def invent(folder: Path, microworld: bool = True, method: str = "loglikelihood", **change) -> Plan:
    """Write the artifacts of a run: members grow worse with the generations, the line faster."""
    if body := change.pop("own_rule", ""):
        (folder / "rules.py").write_text(f"def choose(members, k, rng):\n    {body}\n")
        change["rule"] = f"{folder}/rules.py:choose"
    plan = Plan(resolve(settings(**change)), str(folder / "results" / "invented"))
    for name, experiment in plan.config["experiments"].items():
        for g in range(experiment["generations"]):
            for m in range(experiment["population"]):
                member = Path(layout.member_folder(plan, name, g, m))
                if not (member / "scores.json").exists():
                    decay = g * (
                        0.13 if experiment["population"] == 1 or name.startswith("lines") else 0.05
                    )
                    invent_member(
                        member,
                        plan,
                        decay,
                        microworld,
                        method,
                        np.random.default_rng([g, m, experiment["seed"] if g else 0]),
                    )
            if layout.selects(plan, name):
                files = [
                    [Path(path) for path in member_files(plan, name, g, file)]
                    for file in ("scores.json", "answers.parquet")
                ]
                settled = experiment["select"]
                halves = rule_splits(plan, name), plan.config["evaluation_seed"]
                choice = select(
                    *files, settled["task"], settled["k"], g, settled["rule"], 0, *halves
                )
                artifacts.write_json(f"{plan.results}/{name}/gen{g}/selection.json", choice)
    artifacts.write_table(
        f"{plan.results}/corpora/world/vocabulary.parquet",
        pd.DataFrame({"word": ["quoted"], "count": [1]}),
    )
    table = pd.DataFrame(
        [row for place in embedded_places(plan) for row in invent_embeddings(*place)]
    )
    artifacts.write_table(embeddings_file(plan), table)
    artifacts.write_table(diversity_file(plan), compare(table, embedded_groups(plan), seed=1))
    return plan


def invent_embeddings(name: str, g: int, m: int, model: str) -> list[dict]:
    """Every model says to a prompt what the prompt is about, and something of its own."""
    own = np.random.default_rng([g, *model.encode()]).normal(size=(3, 4))
    about = {"experiment": name, "generation": g, "member": m, "model": model}
    return [
        about
        | {
            "prompt_id": f"p{p}",
            "completion": f"{model} says {p}",
            "embedding": [*(3 * np.eye(3)[p]), *own[p]],
        }
        for p in range(3)
    ]


def invent_member(
    folder: Path, plan: Plan, decay: float, microworld: bool, method: str, rng: np.random.Generator
) -> None:
    scores, answers = {"tasks": {}, "perplexity": {}, "truth": {}}, []
    for task in plan.config["tasks"]:
        correct = rng.random(120) < 0.95 - decay + rng.normal(0, 0.02)
        scores["tasks"][task] = {
            "accuracy": float(correct.mean()),
            "stderr": float(correct.std() / 120**0.5),
            "questions": 120,
        }
        scores["tasks"][task] |= {"questions_available": 200, "shots": 0, "method": method}
        chance = 0.25 if method == "loglikelihood" else None
        answers += [
            {"task": task, "doc_id": i, "correct": bool(c), "score": float(c), "chance": chance}
            for i, c in enumerate(correct)
        ]
    sequences = pd.DataFrame(
        {"corpus": "world", "split": "test", "sequence": range(40), "tokens": 20}
    )
    sequences["truth_nll"] = 20.0 if microworld else np.nan
    sequences["nll"] = 20.0 * (1.02 + 2 * decay**1.5 + rng.normal(0, 0.03, 40))
    rate = float(sequences.nll.sum() / sequences.tokens.sum())
    if plan.config["evaluate"]["perplexity"]:
        scores["perplexity"]["world/test"] = {
            "perplexity": float(np.exp(rate)),
            "nll_per_token": rate,
            "tokens": 800,
            "sequences": 40,
        }
        if microworld:
            scores["perplexity"]["world/test"] |= {"excess_nats_per_token": rate - 1.0}
    facts = pd.DataFrame(
        {
            "corpus": "world",
            "band": np.repeat(range(4), 12),
            "known": rng.random(48) < np.repeat([1, 0.97, 0.9, 0.8], 12) - decay,
        }
    )
    if microworld:
        bands = [band_summary(band, part, decay) for band, part in facts.groupby("band")]
        scores["truth"]["world"] = {"sentences": 10_000, "bands": bands}
    artifacts.write_json(folder / "scores.json", scores)
    artifacts.write_table(
        folder / "answers.parquet",
        pd.DataFrame(answers, columns=["task", "doc_id", "correct", "score", "chance"]),
    )
    artifacts.write_table(
        folder / "sequences.parquet", sequences if scores["perplexity"] else sequences[:0]
    )
    artifacts.write_table(folder / "facts.parquet", facts if microworld else facts[:0])
    samples = [
        {
            "prompt_id": f"p{i}",
            "prompt": f"prompt {i}",
            "completion": HOSTILE if i else "",
            "seed": i,
        }
        for i in range(3)
    ]
    artifacts.write_table(folder / "samples.parquet", pd.DataFrame(samples))
    losses = [
        {
            "step": s,
            "tokens": 64 * s,
            "loss": float(4 * np.exp(-s / 20) + 1 + decay + rng.normal(0, 0.05)),
        }
        for s in range(1, 61)
    ]
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in losses), encoding="utf-8"
    )
    artifacts.write_json(
        folder / "config.json", {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 200}
    )
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [200, 64], "data_offsets": [0, 0]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def band_summary(band: int, facts: pd.DataFrame, decay: float) -> dict:
    truth = np.full(len(facts), 0.1 / 2**band / len(facts))
    model = truth * (1 - decay) * facts.known
    masses = {
        "true_mass": float(model.sum()),
        "true_mass_truth": float(truth.sum()),
        "false_mass": float(decay * truth.sum()),
    }
    distinct = {
        "distinct_facts": expected_distinct_facts(model, 10_000),
        "distinct_facts_truth": expected_distinct_facts(truth, 10_000),
    }
    return {
        "band": int(band),
        "facts": len(facts),
        "known": float(facts.known.mean()),
        **masses,
        **distinct,
    }


def draw(figure: str, plan: Plan) -> tuple[Path, list[dict]]:
    """Draw with what the rule hands over: the figure's part of the config.

    Returns the stem and the CSV's rows.
    """
    out = Path(plan.results, "report", figure)
    drawing(figure).draw(Run(Plan(as_read(figure_config(plan, figure)), plan.results)), out)
    with open(f"{out}.csv", encoding="utf-8", newline="") as file:
        return out, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return invent(tmp_path_factory.mktemp("run"))


SHAPES = {
    "no line, no tasks": {"line_seeds": (), "tasks": ()},
    "no population, one line, real text, written answers": {
        "population": 0,
        "line_seeds": (7,),
        "microworld": False,
        "method": "generate",
    },
    "nothing measured, two generations": {
        "tasks": (),
        "text_measured": False,
        "microworld": False,
        "generations": 2,
    },
    "ecosystem": {"select": False, "text": "pool"},
    "a graph and soups": {
        "text": "graph",
        "graph": {"rule": "ring", "draw": "each_generation"},
        "soup": {"rule": "mixed"},
    },
    "one generation": {"generations": 1},
    "a rule of the user's own": {"own_rule": "return [m.slot for m in members[-k:]]"},
    "one member that selects": {"population": 1, "line_seeds": ()},
    "sixteen members, replicates": {"population": 16, "seeds": (1, 2), "generations": 2},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_is_drawn_for_every_shape_of_run_from_its_declared_inputs(shape, tmp_path):
    """Each is drawn in a tree that holds nothing but what its rule declares."""
    plan = invent(tmp_path, **{"generations": 3} | SHAPES[shape])
    made = set()
    for figure in report.figures(plan):
        bare = Plan(plan.config, str(tmp_path / figure))
        for path in [path for paths in figure_inputs(plan, figure).values() for path in paths]:
            copy = Path(path.replace(plan.results, bare.results))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.hardlink_to(path)
        out, _ = draw(figure, bare)
        made |= {
            f"{plan.results}/report/{path.name}"
            for path in out.parent.iterdir()
            if path.stat().st_size > 0
        }
    assert made == set(report_files(plan))


def test_equal_results_give_equal_files(plan):
    for figure, ends in (("accuracy", ("svg", "png", "csv")), ("lineage", ("html", "csv"))):
        out, _ = draw(figure, plan)
        first = [Path(f"{out}.{end}").read_bytes() for end in ends]
        draw(figure, plan)
        assert first == [Path(f"{out}.{end}").read_bytes() for end in ends]


def test_accuracy_marks_parents_and_knows_chance(plan):
    _, rows = draw("accuracy", plan)
    chosen = artifacts.read_json(f"{plan.results}/population/gen2/selection.json")["parents"]
    here = [
        r
        for r in rows
        if (r["role"], r["generation"], r["task"]) == ("population", "2", "knowledge")
    ]
    assert [int(r["member"]) for r in here if r["selected"] == "True"] == sorted(chosen)
    assert {r["chance"] for r in rows} == {"0.25"}
    assert {r["task"] for r in rows if r["selects"] == "True"} == {"knowledge"}
    founders = [r for r in rows if r["generation"] == "0" and r["task"] == "social"]
    assert len(founders) == 4 + 1  # three replicates of the line share one founder


def test_difference_finds_what_was_put_in(tmp_path):
    """Members lose 20 points, the line 52, and nats accordingly: significant, right signs."""
    plan = invent(tmp_path, seeds=(1, 2, 3, 4, 5, 6), line_seeds=(1, 2, 3, 4, 5, 6))
    _, rows = draw("difference", plan)
    found = {(r["measure"], r["comparison"]): r for r in rows}
    change = found["knowledge, accuracy", "change of population"]
    assert float(change["low"]) < -20 < float(change["high"]) and change["verdict"] == "falls"
    end = found["knowledge, accuracy", "population minus line"]
    assert (
        20 < float(end["mean"]) < 42
        and end["verdict"] == "population higher"
        and end["models"] == "24"
        and (end["replicates"], end["variance_between_runs"]) == ("6", "own")
    )
    assert found["world/test, excess nats", "population minus line"]["verdict"] == "line higher"
    assert end["sentence"].startswith(
        "knowledge, accuracy: in generation 4 the population exceeds the single line by "
        f"{float(end['mean']):.1f} points"
    )
    assert (
        "is below the single line by 0."
        in found["world/test, excess nats", "population minus line"]["sentence"]
    )

    def excess(role: str, members: int) -> float:
        paths = [
            f"{layout.member_folder(plan, name, 4, m)}/scores.json"
            for name in plan.config["figures"][role]
            for m in range(members)
        ]
        texts = [artifacts.read_json(path)["perplexity"]["world/test"] for path in paths]
        return float(np.mean([text["excess_nats_per_token"] for text in texts]))

    assert float(
        found["world/test, excess nats", "population minus line"]["mean"]
    ) == pytest.approx(excess("population", 4) - excess("line", 1), rel=1e-4)


def test_difference_and_claims_have_the_same_intervals(plan):
    """One population beside three lines: it borrows, and members are not units."""
    _, rows = draw("difference", plan)
    part = Plan(as_read(claim_config(plan)), plan.results)
    judged = {(row["id"], row["tested_on"]): row for row in judge(Run(part))}
    for claim, comparison, sign in (
        ("population_over_line", "population minus line", 1),
        ("population_holds", "change of population", 1),
        ("line_collapses", "change of line", -1),
    ):
        one = judged[claim, "knowledge"]
        (row,) = [
            row
            for row in rows
            if (row["measure"], row["comparison"]) == ("knowledge, accuracy", comparison)
        ]
        assert float(row["mean"]) == pytest.approx(sign * one["estimate"], rel=1e-5)
        near = 0.1 * (one["high"] - one["low"])  # other random numbers
        found = sorted(sign * float(row[key]) for key in ("low", "high"))
        assert found == pytest.approx([one["low"], one["high"]], abs=near)
        assert row["variance_between_runs"] == one["variance_between_runs"]


def test_metrics_of_every_kind_are_drawn_under_their_names(tmp_path):
    """A share for each question keeps its size; a perplexity is no accuracy, and no claim's."""
    plan = invent(tmp_path, generations=2, tasks=("knowledge", "social", "coreference"))
    for path in Path(plan.results).rglob("scores.json"):
        scores = artifacts.read_json(path)
        table = artifacts.read_table(path.with_name("answers.parquet")).to_pandas()
        table.loc[table.task == "social", "score"] = 0.3 + table.score / 10
        table.loc[table.task == "coreference", "score"] = np.nan
        table.loc[table.task != "knowledge", "chance"] = np.nan
        artifacts.write_table(path.with_name("answers.parquet"), table)
        shares = table.score[table.task == "social"]
        scores["tasks"]["social"] |= {
            "accuracy": float(shares.mean()),
            "stderr": float(shares.std() / 120**0.5),
            "metric": "f1",
        }
        del scores["tasks"]["coreference"]["accuracy"]
        scores["tasks"]["coreference"] |= {
            "score": 250.0,
            "stderr": None,
            "metric": "word_perplexity",
            "unfit": "lower values are better",
        }
        artifacts.write_json(path, scores)
    _, rows = draw("accuracy", plan)
    drawn = {row["task"]: row for row in rows}
    assert {task: row["metric"] for task, row in drawn.items()} == {
        "knowledge": "",
        "social": "f1",
        "coreference": "word_perplexity",
    }
    assert float(drawn["coreference"]["accuracy"]) == 250
    assert 0.3 <= float(drawn["social"]["accuracy"]) <= 0.4 and not drawn["social"]["chance"]
    run = Run(plan)
    folder = layout.member_folder(plan, "population", 1, 0)
    assert set(run.accuracy(folder)) == {"knowledge", "social"}
    assert run.measures(folder)["social, accuracy", False].max() == pytest.approx(40)
    assert not any("coreference" in name for name, _ in run.measures(folder))
    assert Accuracies(run).tasks("population") == ["knowledge", "social"]
    draw("difference", plan), draw("settings", plan)


def test_a_difference_between_runs_that_were_not_repeated_is_undecided(tmp_path):
    """One line of 52 points lost, measured once: the CSV, the verdict and the sentence say so."""
    _, rows = draw("difference", invent(tmp_path, line_seeds=(42,)))
    assert {row["verdict"] for row in rows} == {"undecided"}
    assert {row["variance_between_runs"] for row in rows} == {"unknown"}
    fall = next(row for row in rows if row["comparison"] == "change of line")
    assert float(fall["high"]) < 0
    assert "the variance between runs is unknown" in fall["sentence"]
    assert {row["measure"] for row in rows} >= {"world/test, excess nats"}


def test_the_difference_between_equal_models_is_not_significant(tmp_path):
    plan = invent(tmp_path, population=1, seeds=(42, 123, 456))
    lines = plan.config["figures"]["line"]
    roles = plan.config["figures"] | {"population": lines}
    _, rows = draw("difference", Plan(plan.config | {"figures": roles}, plan.results))
    ends = [r for r in rows if r["comparison"] == "population minus line"]
    assert {r["verdict"] for r in ends} == {"not significant"}
    assert ends[0]["sentence"].startswith(
        "knowledge, accuracy: in generation 4 the difference between population and single line is "
        "not significant (+0.0 points, 95 % confidence interval -"
    )


def test_a_saturated_measure_is_reported_as_saturated():
    assert limit([100, 100], 5) == Limit("saturated", 1.0, exact=True)
    assert limit([0, 0], 5) == Limit("saturated", 0.0, exact=True)
    assert limit([100, 80], 5) is None
    row = {"mean": 0.0, "low": 0.0, "high": 0.0, "unit": difference.POINTS}
    row["variance_between_runs"] = "own"
    for measure, comparison, level, said in (
        (
            "mmlu, accuracy",
            "change of population",
            1.0,
            (
                "mmlu, accuracy: from generation 0 to 4 the population is unchanged at 1.00 "
                "(saturated: every model answers every question)."
            ),
        ),
        (
            "world, facts known",
            "population minus line",
            0.0,
            (
                "world, facts known: in generation 4 population and single line are equal at 0.00 "
                "(saturated: no model knows any fact)."
            ),
        ),
    ):
        shown = row | {"measure": measure, "comparison": comparison}
        assert difference.sentence(shown, 4, Limit("saturated", level, True)) == said
    every = Limit("saturated", 1.0, True)
    assert difference.verdict("change of line", row, every) == "unchanged at 1.00"


def test_a_nearly_saturated_measure_and_one_at_chance_are_reported_as_such():
    """99.6 % and 99.9 % of 1,000 questions; 25 % +- 2.7 points is what a guesser of 1,000 gets."""
    assert limit([99.6, 99.9], 1000) == Limit("saturated", 1.0)
    assert limit([99.4, 99.9], 1000) is None
    assert limit([22.4, 27.6], 1000, 0.25) == Limit("at chance", 0.25)
    assert limit([25.0, 27.8], 1000, 0.25) is None and limit([0.1, 0.2], 1000, 0.25) is None
    row = {"mean": 0.3, "low": 0.1, "high": 0.5, "unit": difference.POINTS}
    row["variance_between_runs"] = "own"
    row |= {"measure": "mmlu, accuracy", "comparison": "change of line"}
    nearly, guessing = Limit("saturated", 1.0), Limit("at chance", 0.25)
    assert difference.sentence(row, 4, nearly) == (
        "mmlu, accuracy: from generation 0 to 4 the change of the single line is +0.3 points, 95 % "
        "confidence interval +0.1 to +0.5 (saturated: every side answers at least 99.5 % "
        "correctly, so no difference can show)."
    )
    assert difference.verdict("change of line", row, nearly) == "saturated"
    assert difference.verdict("change of line", row, guessing) == "rises"
    assert difference.sentence(row, 4, guessing).endswith(
        "by 0.3 points (95 % confidence interval 0.1 to 0.5). The benchmark is at chance (0.25): "
        "no side is distinguishable from guessing."
    )


def test_selection_rows_repeat_selection_json(plan):
    _, rows = draw("selection", plan)
    choice = artifacts.read_json(f"{plan.results}/population/gen3/selection.json")
    here = [r for r in rows if r["generation"] == "3"]
    assert [int(r["member"]) for r in here] == choice["parents"]
    assert float(here[0]["same_set"]) == pytest.approx(choice["confidence"]["same_set"], rel=1e-5)
    assert float(here[0]["same_set_by_chance"]) == pytest.approx(1 / 6, rel=1e-5)


def test_a_choice_by_an_own_rule_is_shown_as_such(tmp_path):
    plan = invent(tmp_path, own_rule="return [m.slot for m in members[-k:]]", generations=3)
    out, rows = draw("selection", plan)
    assert {row["in_best_k"] for row in rows} == {""} and all(row["gap"] for row in rows)
    out, rows = draw("lineage", plan)
    champion = next(r for r in rows if r["champion"] == "True")
    assert (champion["experiment"], champion["generation"], champion["member"]) == (
        "population",
        "2",
        "2",
    )
    assert champion["weights_from"] == "generation 1 member 3"  # child (1, 0): parents are 2 and 3
    html = Path(f"{out}.html").read_text(encoding="utf-8")
    assert "first choice of the custom rule" in html
    assert "Colour and number: <bdi>accuracy on knowledge, reporting half</bdi>" in html


def test_lineage_draws_the_champion_and_its_parents(plan):
    out, rows = draw("lineage", plan)
    assert {r["experiment"] for r in rows} == {"population", "line.s42"} and len(rows) == 4 * 5 + 5
    champion = next(r for r in rows if r["champion"] == "True")
    choice = artifacts.read_json(f"{plan.results}/population/gen4/selection.json")
    assert int(champion["member"]) == choice["ranking"][0]
    parents = artifacts.read_json(f"{plan.results}/population/gen3/selection.json")["parents"]
    i, j = divmod(int(champion["member"]), 2)
    assert champion["weights_from"] == f"generation 3 member {parents[i]}"
    assert champion["text_from"] == f"generation 3 member {parents[j]}"
    html = Path(f"{out}.html").read_text(encoding="utf-8")
    assert (
        html.count('class="card"') == len(rows)
        and "<script" not in html
        and "&lt;script&gt;" in html
    )


def test_pages_escape_what_models_write(plan):
    out, rows = draw("continuations", plan)
    html = Path(f"{out}.html").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;" in html and "\x00" not in html
    assert "(nothing)" in html  # an empty completion is visible as such
    assert not re.search(r'(src|href)="', html)
    assert len(rows) == 3 * 5 * 2


def test_degenerate_text_is_underlined_and_its_shares_are_in_the_csv(plan):
    out, rows = draw("continuations", plan)
    html = Path(f"{out}.html").read_text(encoding="utf-8")
    assert f'<u class="repetition" title="{KINDS["repetition"]}">{"z" * 400}</u>' in html
    assert f'<u class="unknown" title="{KINDS["unknown"]}">' in html  # in the legend
    assert "\u202e" not in html and ">quoted<" not in html
    hostile = next(row for row in rows if row["prompt_id"] == "p1")
    assert float(hostile["repetition"]) == pytest.approx(400 / len(HOSTILE), rel=1e-4)
    _, rows = draw("degeneration", plan)
    found = {(r["role"], r["generation"], r["kind"]): r for r in rows}
    assert float(found["population", "2", "repetition"]["value"]) == pytest.approx(
        2 / 3 * 400 / len(HOSTILE), rel=1e-4
    )
    assert float(found["line", "0", "empty"]["value"]) == pytest.approx(1 / 3, rel=1e-4)
    assert found["line", "0", "any"]["models"] == "1" and found["line", "1", "any"]["models"] == "3"


def test_tables_of_chosen_prompts_and_generations(plan, tmp_path):
    run = Run(Plan(as_read(figure_config(plan, "continuations")), plan.results))
    rows = continuations.read(
        run,
        {"population": "population", "line": "line.s123"},
        prompt_ids=["p2", "p0"],
        generations=[0, 4],
    )
    assert [(r["prompt_id"], r["generation"], r["experiment"]) for r in rows[:4]] == [
        ("p2", 0, "population"),
        ("p0", 0, "population"),
        ("p2", 4, "population"),
        ("p0", 4, "population"),
    ]
    assert len(rows) == 8 and continuations.tables(rows)[0].startswith("<h2>Prompt <bdi>p2</bdi>")
    with pytest.raises(ValueError, match="population has no sample of prompt 'spring'"):
        continuations.read(run, {"population": "population"}, prompt_ids=["spring"])


def test_a_map_has_every_text_of_a_group_once(plan, tmp_path):
    _, rows = draw("semantics", plan)

    def counted(group: str, g: int) -> int:
        return len([r for r in rows if (r["group"], r["generation"]) == (group, str(g))])

    assert (
        counted("population", 0),
        counted("population", 4),
        counted("line", 0),
        counted("line", 4),
    ) == (12, 12, 3, 9)
    at = {
        (r["group"], r["experiment"], r["member"], r["prompt_id"]): (r["x"], r["y"])
        for r in rows
        if r["generation"] == "0"
    }
    assert (
        at["population", "population", "0", "p1"] == at["line", "line.s42", "0", "p1"]
    )  # one founder, one place
    table = artifacts.read_table(embeddings_file(plan)).to_pandas()
    group = {"group": "one", "experiments": ["line.s42"], "population": 1}
    semantics.draw_panels(table, [group], 30, tmp_path / "part", generations=[1, 3])
    with open(tmp_path / "part.csv", encoding="utf-8", newline="") as file:
        assert {r["generation"] for r in csv.DictReader(file)} == {"1", "3"}


def test_diversity_is_compared_at_equal_counts(plan):
    _, rows = draw("semantic_diversity", plan)
    counts = {(r["group"], r["scope"], r["models"]) for r in rows if r["against"] == ""}
    assert counts == {
        *((group, scope, "3") for group in ("population", "line") for scope in ("prompt", "all")),
        *(("population", scope, "4") for scope in ("prompt", "all")),
        *((group, "model", "1") for group in ("population", "line")),
    }
    assert {r["against"] for r in rows} == {"", "line"}


def test_settings_say_how_many_questions_and_where_we_differ(plan):
    out, rows = draw("settings", plan)
    found = {(r["section"], r["setting"]): r for r in rows}
    assert (
        found["Evaluation", "task knowledge"]["population"]
        == "120 of 200 questions, 0 shots, loglikelihood, half of them select"
    )
    unselected = found["Evaluation", "task social"]["population"]
    assert unselected == "120 of 200 questions, 0 shots, loglikelihood"
    assert found["Model", "parameters"]["population"] == "12800"
    assert (
        found["Evolution", "population N"]["population"] == "4"
        and found["Evolution", "population N"]["paper"] == "16"
    )
    assert '<span class="other"><bdi>4</bdi></span>' in Path(f"{out}.html").read_text(
        encoding="utf-8"
    )


def test_cost_adds_up_benchmarks(plan):
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    for path, s, memory in (
        ("founders/human/member0/train", 10, 300),
        ("population/gen1/member0/train", 30, 500),
        ("population/gen0/select", 1, "-"),
    ):
        file = Path(plan.results, "benchmarks", f"{path}.tsv")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{header}{s}\t0:00:10\t{memory}\t-\t-\t-\t-\t-\t99.0\t{2 * s}\n")
    # what other jobs do meanwhile: a benchmark is being written, another and a checkpoint are
    # deleted before they are read
    file.with_name("mutate.tsv").touch()
    for name in (
        file.with_name("gone.tsv"),
        Path(plan.results, "population/gen0/gone.safetensors"),
    ):
        name.symlink_to("nowhere")
    _, rows = draw("cost", plan)
    timed = [r for r in rows if not r["job"].startswith("disk: ")]
    assert [
        (r["job"], r["jobs"], r["wall_s"], r["cpu_s"], r["peak_memory_mib"]) for r in timed
    ] == [
        ("train a model", "2", "40", "80", "500"),
        ("select parents", "1", "1", "2", ""),
    ]
    trained = next(
        r for r in timed if r["job"] == "train a model"
    )  # 4 founders, and 4 generations of 4 and of three lines
    assert trained["predicted_jobs"] == "32" and float(trained["predicted_s"]) > 32
    disk = {r["job"]: r for r in rows if r["job"].startswith("disk: ")}
    assert (
        float(disk["disk: scores and samples"]["bytes"]) > 0
        and float(disk["disk: weights of members"]["predicted_bytes"]) > 0
    )
    assert activity_of("line.s42/gen1/synthetic0/shard0.tsv") == "write synthetic text"


def test_ancestry_follows_ranks_and_every_operator(plan, tmp_path):
    tree = ancestry(plan, "population", 2, 3)
    first = artifacts.read_json(f"{plan.results}/population/gen1/selection.json")["parents"]
    child = tree["nodes"][0]
    assert (
        child["weights_from"] == (1, first[1])
        and child["text_from"] == [(1, first[1])]
        and child["mutated"]
    )
    assert child["shards"] == [f"{plan.results}/population/gen1/synthetic1/shard0.parquet"]
    assert {node["generation"] for node in tree["nodes"]} == {0, 1, 2} and tree["nodes"][-1][
        "human"
    ] == "world"
    text = format_ancestry(tree)
    assert (
        f"generation 2, member 3: weights from generation 1, member {first[1]}, mutated" in text
        and "synthetic1/shard0.parquet" in text
    )
    line = ancestry(plan, "line.s42", 4, 0)["nodes"]
    assert [node["weights_from"] for node in line] == [(3, 0), (2, 0), (1, 0), (0, 0), None]
    for weights, expected in (("fresh", None), ("founder", (0, 2)), ("own", (2, 2))):
        raw = settings(select=False, text="pool")
        raw["experiments"]["population"] |= {"weights": weights, "mutate": {"scale": 0}}
        node = ancestry(Plan(resolve(raw), str(tmp_path)), "population", 3, 2)["nodes"][0]
        assert (
            node["weights_from"] == expected
            and node["text_from"] == [(2, m) for m in range(4)]
            and len(node["shards"]) == 4
        )


def test_text_is_escaped_and_control_characters_are_shown():
    assert page.text("a<b\x07") == "<bdi>a&lt;b\ufffd</bdi>"
    assert page.text("\x1b[31m\u202eabc\u2069") == "<bdi>\ufffd[31m\ufffdabc\ufffd</bdi>"
    marked = page.text("<i> x<y>", [Span(0, 3, "url"), Span(4, 8, "unknown")])
    assert (
        re.sub("<u [^>]*>", "[", marked).replace("</u>", "]")
        == "<bdi>[&lt;i&gt;] [x&lt;y&gt;]</bdi>"
    )


def test_figures_and_lineage_import_no_torch():
    names = ", ".join(f"pollination.figures.{figure.module}" for figure in FIGURES.values())
    code = (
        f"import pollination.plan.lineage, {names}, sys; sys.exit('torch' in sys.modules or "
        "'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_lineage_page_names_the_measure_of_each_experiment(plan):
    """The population is ranked by accuracy; the line selects nothing and shows nats."""
    out, _ = draw("lineage", plan)
    html = Path(f"{out}.html").read_text(encoding="utf-8")
    population, line = (re.sub(r"<[^>]+>", "", one) for one in html.split("<section")[1:3])
    assert "number: accuracy on knowledge, reporting half (higher is better)" in population
    assert "Colour and number: nats per token on held-out text (lower is better)" in line
    assert "Champion: lowest nats per token" in line and "accuracy" not in line


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, np.inf), (-np.inf, 1.0), (-np.inf, np.inf)])
@pytest.mark.parametrize("width", [0.02, 0.2, 3.0])
def test_a_density_has_no_mass_beyond_its_bounds(bounds, width):
    values = np.array([0.0, 0.01, 0.5, 0.97, 1.0])
    ends = np.clip([-12 * width, 1 + 12 * width], *bounds)
    edges = np.linspace(*ends, 20_001)
    heights = kernels(values, (edges[:-1] + edges[1:]) / 2, width, bounds)
    assert heights.sum(axis=1) * np.diff(edges[:2]) == pytest.approx(1, abs=1e-3)
