"""A target for every figure and table of the two studies."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.core.questions import selecting_half
from pollination.figures import drawing, style
from pollination.figures.paper import tables
from pollination.figures.theory import shared as theory
from pollination.plan import jobs, layout, measuring, paper, report, synthetic
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.config.targets import TARGETS
from pollination.plan.paper import (
    paper_files,
    target_config,
    target_files,
    target_inputs,
    why_missing,
)
from pollination.plan.plan import Plan
from pollination.plan.standalone import fingerprint_files, theory_files
from tests.conftest import ROOT, as_read, snakemake
from tests.figures import test_ecosystems as test_ecosystem_figures
from tests.figures import test_report as test_figures

SHARED = {"weights": "own", "text": "pool"}


def plan_of(path: str) -> Plan:
    return Plan(
        resolve(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")), path), "results/run"
    )


def test_all_figures_and_tables_of_both_studies_have_a_target():
    a = [f"figure_a{n}" for n in range(3, 13)] + [f"table_a{n}" for n in range(1, 6)]
    b = [f"figure_b{n}" for n in (*range(3, 11), *range(13, 22))] + ["table_b1"]
    assert set(TARGETS) == {*a, *b, "appendix_a2"}


def test_each_target_names_a_preset_that_has_it_and_is_drawn_with_it():
    plans = {path: plan_of(path) for path in {one.preset for one in TARGETS.values()}}
    for target, one in TARGETS.items():
        plan = plans[one.preset]
        assert why_missing(plan, target) is None
        assert set(target_files(plan, target)) <= {
            *paper_files(plan),
            *theory_files(plan),
            *fingerprint_files(plan),
        }


def test_where_a_role_is_missing_one_line_says_which_preset_has_it():
    plan = plan_of("config/config.yaml")
    lacking = {target: why_missing(plan, target) for target in TARGETS if why_missing(plan, target)}
    assert {"figure_a9", "figure_a12", "figure_b3", "figure_b21"} <= set(lacking) and not {
        "figure_a6",
        "figure_a8",
        "figure_a3",
        "table_a1",
        "table_b1",
    } & set(lacking)
    for target, said in lacking.items():
        assert (
            "\n" not in said
            and said.startswith(target)
            and said.endswith(f"{TARGETS[target].preset} has it")
        )
        with pytest.raises(ValueError, match=target):
            target_files(plan, target)
    theory = plan_of("config/paper/theory.yaml")
    assert "there are no experiments" in paper.why_missing(
        theory, "figure_a6"
    ) and "`fingerprint` is empty" in paper.why_missing(theory, "figure_a3")


def test_snakemake_says_it_in_that_line_and_plans_nothing(tmp_path):
    said = snakemake(tmp_path, "-n", "figure_b3", ok=False)
    assert (
        "error: figure_b3 (Optimal diversity by number of rounds): figures.paper.figure_b3 is not "
        "set" in said
    )
    assert "Traceback" not in said and "Job stats" not in said


@pytest.mark.parametrize(
    "paper, said",
    [
        (
            {"figure_a99": {"x": "m1"}},
            "'figure_a99' is not in the figures and tables that take a role",
        ),
        (
            {"figure_b3": ["nobody"]},
            "'nobody' is not in figures.ecosystems and figures.comparisons",
        ),
        ({"figure_a9": {"N = 2": "m2x"}}, "'m2x' is not in experiments (did you mean 'm2'?)"),
        ({"figure_a3": ["m1"]}, "has the wrong type; allowed: the name of a survey"),
        (
            {"figure_b16": {"x": {"one": "m2:7"}}},
            "m2:7 is not a member; allowed: members 0 to 1",
        ),
    ],
)
def test_wrong_roles_are_named(paper, said):
    raw = test_ecosystem_figures.config()
    with pytest.raises(ConfigError) as error:
        resolve(raw | {"figures": raw["figures"] | {"paper": paper}})
    assert said in str(error.value)


def draw(plan: Plan, target: str) -> pd.DataFrame:
    """Draw a target from copies of its declared inputs alone."""
    bare = Plan(plan.config, str(Path(plan.results) / "only" / target))
    for path in [path for paths in target_inputs(plan, target).values() for path in paths]:
        copy = Path(path.replace(plan.results, bare.results, 1))
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            copy.hardlink_to(path)
    out = Path(bare.results, "paper", target)
    module = drawing(TARGETS[target].draws)
    module.draw(
        Run(Plan(as_read(json.loads(json.dumps(target_config(bare, target)))), bare.results)),
        out,
        target,
        TARGETS[target].panels,
    )
    for path in paper.target_files(bare, target):
        assert Path(path).stat().st_size > 0
    with open(f"{out}.csv", encoding="utf-8", newline="") as file:
        return pd.DataFrame(csv.DictReader(file))


@pytest.fixture(scope="module")
def ecosystems(tmp_path_factory) -> Plan:
    """The run that the report's figures are tested on, with pretrained models and the text of two
    experiments measured on them.
    """
    raw = test_ecosystem_figures.config(evaluate={"disagreement": None, "quality": False})
    raw["models"] |= {"student": {"pretrained": {"founders": "first"}, "context_tokens": 64}}
    raw["founders"] = {
        name: pool | {"model": "student"} for name, pool in raw["founders"].items()
    } | {"first": raw["founders"]["f1"]}
    raw["experiments"] |= {
        f"reads_m{n}": {
            "population": 1,
            "founders": "f1",
            "weights": "base",
            "text": "pool",
            "text_of": f"m{n}",
        }
        for n in (2, 4)
    }
    written = {"kind": "synthetic", "held_out": {"validation": 0, "test": 0, "prompts": 0}}
    raw["corpora"] |= {
        f"wrote{n}_{g}": written | {"experiment": f"m{n}", "generation": g}
        for n in (2, 4)
        for g in (0, 1)
    }
    raw["evaluate"]["perplexity"] += [
        {"corpus": f"wrote{n}_{g}", "split": "train", "generations": [-1]}
        for n in (2, 4)
        for g in (0, 1)
    ]
    entry = {"tiny": ["m1", "m2", "m4"]}
    two = {"small": ["m1", "m2", "m4"], "large": ["m1", "m2", "m4"]}
    pair = {"alone or together": {"one": "m1", "its like": "m2:0"}}
    roles = {
        "figure_b9": {"runs": ["m1", "reads_m2", "reads_m4"]},
        "figure_b18": {"read": {"of two": "reads_m2", "of four": "reads_m4"}},
    }
    roles |= dict.fromkeys(("figure_b5", "figure_b6", "figure_b7", "figure_b14"), two)
    roles |= {f"figure_b{n}": pair for n in (15, 16, 17, 19, 20, 21)} | {
        f"figure_b{n}": entry for n in (3, 4, 8, 10, 13)
    }
    raw["figures"]["paper"] = roles
    plan = test_ecosystem_figures.invent(tmp_path_factory.mktemp("paper"), raw)
    texts = [
        ("world", "test", 2.0),
        *((f"wrote{n}_{g}", "train", 1.0 + 0.25 * g + n) for n in (2, 4) for g in (0, 1)),
    ]
    rows = [
        {
            "corpus": c,
            "split": s,
            "sequence": i,
            "tokens": 10,
            "nll": 10 * nats,
            "truth_nll": np.nan,
        }
        for c, s, nats in texts
        for i in range(5)
    ]
    artifacts.write_table(
        f"{plan.results}/base/student/member0/sequences.parquet", pd.DataFrame(rows)
    )
    return plan


@pytest.mark.parametrize(
    "target", [name for name, one in TARGETS.items() if one.draws == "paper_ecosystems"]
)
def test_each_figure_of_study_b_is_drawn_from_its_inputs_alone(ecosystems, target):
    rows = draw(ecosystems, target)
    assert len(rows) and set("abcdefgh"[: rows.panel.nunique()]) == set(rows.panel)


def test_panels_say_what_the_report_says(ecosystems):
    best = draw(ecosystems, "figure_b5")
    optimum = (
        best[(best.panel == "a") & (best.label == "small")]
        .sort_values("T", key=lambda t: t.astype(int))
        .diversity.astype(float)
    )
    assert (optimum.iloc[0], optimum.iloc[-1]) == (1, 4) and optimum.is_monotonic_increasing
    assert set(best[best.panel == "c"].diversity.astype(float)) == {1} and set(
        best[best.panel == "d"].diversity.astype(float)
    ) == {4}
    base = draw(ecosystems, "figure_b8")
    first = base[base.t == "-1"]
    assert len(first) == 3 and first.mu.astype(float).to_numpy() == pytest.approx(
        np.exp(2.0), rel=1e-5
    )
    text = draw(ecosystems, "figure_b18").query("panel == 'b'")
    found = {(row.source, int(row.t)): float(row.mu) for row in text.itertuples()}
    assert found == pytest.approx(
        {(f"m{n}", g): float(np.exp(1.0 + 0.25 * g + n)) for n in (2, 4) for g in (0, 1)}, rel=1e-5
    )


def test_each_independent_run_has_its_own_mean_and_standard_deviation(ecosystems):
    """Figure B9: mean and standard deviation per run and round, as figure B4 has them for m1."""
    runs = draw(ecosystems, "figure_b9")
    names = ("m1.s1", "m1.s2", "reads_m2", "reads_m4")
    assert runs.groupby("experiment").size().to_dict() == dict.fromkeys(names, 4)
    values = runs.astype({"mu": float, "sd": float, "mean_of_runs": float, "sd_of_runs": float})
    last = values[values.t == "3"]
    assert last.mean_of_runs.iloc[0] == pytest.approx(last.mu.mean(), rel=1e-5)
    assert last.sd_of_runs.iloc[0] == pytest.approx(last.mu.std(), rel=1e-3)
    for name, part in values.groupby("experiment"):
        for t, mu, sd in zip(range(4), part.mu, part.sd, strict=True):
            folder = layout.member_folder(ecosystems, name, t, 0)
            nats, _ = Run(ecosystems).blocks(folder, "world", "test")
            assert mu == pytest.approx(np.exp(nats).mean(), rel=1e-5)
            assert sd == pytest.approx(np.exp(nats).std(), rel=1e-4)


def test_a_model_stands_at_the_round_whose_text_it_trained_on(ecosystems):
    """Figure B18a: t = 0 is generation 1, which read the text of round 0, and the last round's
    text has a model; the human round has no place.
    """
    rows = draw(ecosystems, "figure_b18").query("panel == 'a' and experiment == 'of two'")
    assert rows.t.tolist() == ["0", "1", "2"]
    for t, mu in zip(range(3), rows.mu.astype(float), strict=True):
        folder = layout.member_folder(ecosystems, "reads_m2", t + 1, 0)
        nats, _ = Run(ecosystems).blocks(folder, "world", "test")
        assert mu == pytest.approx(np.exp(nats).mean(), rel=1e-5)
    preset = plan_of("config/paper/epistemic_diversity.yaml")
    reader = preset.experiment("opt_on_text_of_m16")
    assert reader["generations"] == 1 + len(paper.base_texts(preset, "figure_b18")["opt_m16"])


def test_a_reader_of_text_may_have_one_generation_more_than_its_writer():
    raw = test_ecosystem_figures.config(evaluate={"disagreement": None, "quality": False})
    reader = {"population": 1, "founders": "f1", "weights": "base", "text": "pool"}
    reader |= {"text_of": "m2", "generations": test_ecosystem_figures.GENERATIONS + 1}
    raw["models"] |= {"student": {"pretrained": {"founders": "first"}, "context_tokens": 64}}
    raw["founders"] |= {"first": raw["founders"]["f1"]}
    raw["founders"]["f1"] = raw["founders"]["f1"] | {"model": "student"}
    plan = Plan(resolve(raw | {"experiments": raw["experiments"] | {"reads": reader}}), "r")
    last = test_ecosystem_figures.GENERATIONS - 1
    assert synthetic.writers(plan, "m2", last) and not synthetic.writers(plan, "m4", last)
    written = {job.output for job in jobs.jobs(plan)}
    assert set(synthetic.pooled(plan, "reads", last)) <= written
    reader["generations"] += 1
    with pytest.raises(ConfigError, match="allowed: 1 to 5"):
        resolve(raw | {"experiments": raw["experiments"] | {"reads": reader}})


def test_optima_compare_on_the_diversities_that_all_entries_have(ecosystems):
    """The small entry has 1, 2, 4 and the other 1 and 4; D_opt is chosen among 1 and 4 in both."""
    plan = Plan(json.loads(json.dumps(ecosystems.config)), ecosystems.results)
    role = plan.config["figures"]["paper"]["figure_b6"]
    role["large"] = {name: role["large"][name] for name in ("m1", "m4")}
    rows = draw(plan, "figure_b6").query("panel == 'a'")
    assert set(rows.diversity) == {"1", "4"}
    chosen = {label: part.diversity.tolist() for label, part in rows.groupby("label")}
    assert chosen["small"] == chosen["large"] and len(chosen["small"]) == 4
    role["large"] = {"m2": role["small"]["m2"]}
    role["small"] = {name: role["small"][name] for name in ("m1", "m4")}
    assert draw(plan, "figure_b6").empty


def test_a_model_on_two_corpora_must_be_measured_on_each():
    raw = test_ecosystem_figures.config(evaluate={"disagreement": None, "quality": False})
    raw["corpora"] |= {
        "b": {"kind": "microworld"},
        "both": {"kind": "union", "corpora": ["world", "b"]},
    }
    raw["founders"]["f1"] = raw["founders"]["f1"] | {"corpus": "both"}
    raw["evaluate"]["perplexity"] = [{"corpus": "own"}]
    with pytest.raises(ConfigError) as error:
        resolve(raw)
    assert "it is not measured on b/test in every generation; add {corpus: b, split: test" in str(
        error.value
    )
    raw["evaluate"]["perplexity"] += [
        {"corpus": name, "founders": ["f1"]} for name in ("world", "b")
    ]
    plan = Plan(resolve(raw), "r")

    def found_in(plan, name, split="test"):
        return measuring.test_corpora(plan, name, 0, "own", split)

    found = {name: found_in(plan, name) for name in ("m1.s1", "m2")}
    assert found == {"m1.s1": [("world", "world"), ("b", "b")], "m2": [("world", "own")]}
    part = Plan(as_read(report.figure_config(plan, "comparisons")), "r")
    assert found_in(part, "m1.s1") == found["m1.s1"]
    assert found_in(plan, "m1.s1", "segment") == [("both", "own")]  # one text, not two
    raw["evaluate"]["perplexity"].append({"corpus": "own", "split": "train", "generations": [1]})
    raw["figures"]["distribution_text"] = "own/train"
    with pytest.raises(ConfigError, match="it is not measured on world/train in generation 1; add"):
        resolve(raw)


def test_the_theory_has_the_colours_of_all_figures():
    """Evolution is a population, and the baseline a single line."""
    roles = {"evolution": "population", "baseline": "line"}
    assert {name: style.COLOUR[role] for name, role in roles.items()} == theory.COLOUR
    caption = (ROOT / "workflow/report/theory_runs.rst").read_text(encoding="utf-8")
    assert "Blue: the best of K" in caption and "vermillion: a single estimator" in caption
    plan = plan_of("config/paper/theory.yaml")
    assert target_files(plan, "appendix_a2")[0].endswith("theory_sensitivity.svg")


def test_figures_of_study_a_are_the_accuracies_of_their_populations(tmp_path):
    plan = test_figures.invent(tmp_path, population=4, generations=3)
    roles = {
        "figure_a9": {"N = 4": ["population"], "one": ["line.s42"]},
        "figure_a12": {f"variant {n}": ["population"] for n in range(5)},
    }
    plan.config["figures"]["paper"] = {
        target: {label: {label: names} for label, names in role.items()}
        for target, role in roles.items()
    }
    for target in ("figure_a6", "figure_a9", "figure_a12"):
        rows = draw(plan, target)
        mine = rows[(rows.role == "population") & (rows.experiment == "population")]
        assert set(rows.task) == {"knowledge"} and len(mine) == 4 * 3 * (
            5 if target == "figure_a12" else 1
        )
        one = mine[(mine.generation == "2") & (mine.member == "3")]
        answers = artifacts.read_table(
            f"{layout.member_folder(plan, 'population', 2, 3)}/answers.parquet"
        ).to_pandas()
        answers = answers[answers.task == "knowledge"]
        half = selecting_half(plan.config["evaluation_seed"], "knowledge", answers.doc_id)
        for column, part in (("accuracy", ~half), ("selecting_accuracy", half)):
            assert float(one[column].iloc[0]) == pytest.approx(
                answers.correct[part].mean(), rel=1e-5
            )


def test_tables_put_the_papers_value_beside_ours(tmp_path):
    plan = test_figures.invent(tmp_path, population=4, generations=2)
    for name in (*plan.config["figures"]["population"][:1], *plan.config["figures"]["line"][:1]):
        artifacts.write_json(
            f"{layout.member_folder(plan, name, 0, 0)}/run.json",
            {
                "versions": {"pollination": "9.9", "python": "3.12", "torch": "2.13.0"},
                "hardware": {"device": "cpu"},
            },
        )
    found = {
        target: draw(plan, target).set_index("setting")
        for target in ("table_a1", "table_a2", "table_b1")
    }
    assert found["table_a1"].loc["layers", ["population", "paper"]].tolist() == ["2", "12"]
    assert found["table_a2"].loc["PyTorch", ["population", "paper"]].tolist() == ["2.13.0", "2.1.0"]
    assert (
        found["table_a2"].loc["device", "population"] == "cpu"
        and found["table_a2"].loc["CUDA", "population"] == "not recorded"
    )
    assert found["table_a2"].loc["population N", ["population", "line", "paper"]].tolist() == [
        "4",
        "1",
        "16",
    ]
    assert (
        found["table_b1"].loc["beams", "paper"] == "5"
        and found["table_b1"].loc["batch, prompts", ["population", "paper"]].tolist()
        == ["128", "32"]
        and found["table_b1"].loc["block, tokens", "population"] == "1024"
    )


def test_batches_of_table_b1_are_prompts_on_both_sides():
    """160 rows of 5 beams are 32 prompts; a nucleus has one row per prompt."""
    plan = plan_of("config/paper/epistemic_diversity.yaml")
    assert tables.prompts_per_batch(Run(plan), "population") == tables.BATCH_PROMPTS == 32
    plan.experiment("opt_m4")["generate"] |= {"decoding": "nucleus"}
    assert tables.prompts_per_batch(Run(plan), "population") == 160


def test_tables_of_text_show_one_prompt_and_their_generations(tmp_path):
    plan = test_figures.invent(tmp_path, population=4, generations=5)
    found = {
        target: draw(plan, target) for target in ("figure_a7", "table_a3", "table_a4", "table_a5")
    }
    prompts = {target: rows.prompt_id.unique().tolist() for target, rows in found.items()}
    assert prompts == {
        "figure_a7": ["p0"],
        "table_a3": ["p1"],
        "table_a4": ["p2"],
        "table_a5": ["p2"],
    }
    generations = {target: sorted(rows.generation.unique()) for target, rows in found.items()}
    assert (
        generations["table_a4"] == ["0", "1", "2"]
        and generations["table_a5"] == ["3", "4"]
        and len(generations["figure_a7"]) == 5
    )
    plan.config["figures"]["paper"]["figure_a7"] = ["p1"]
    assert draw(plan, "figure_a7").prompt_id.unique().tolist() == ["p1"]
    page = Path(plan.results, "only", "figure_a7", "paper", "figure_a7.html").read_text(
        encoding="utf-8"
    )
    assert "<script" not in page
    plan.config["figures"]["paper"]["figure_a7"] = ["nowhere"]
    with pytest.raises(ValueError, match="has no sample of prompt 'nowhere'"):
        draw(plan, "figure_a7")
