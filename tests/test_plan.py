"""Dry runs: the paper's plan in full, hundreds of generations, and nothing heavy imported while planning."""

import subprocess
import sys

import pytest
import yaml

from pollination.config import resolve
from pollination.status import jobs
from pollination.workflow import Plan
from tests.conftest import ROOT, TOY, planned, snakemake

PAPER = ROOT / "config/paper"


def dry(tmp_path, configfile) -> dict[str, int]:
    return planned(snakemake(tmp_path, "-n", "--quiet", "rules", configfile=configfile))


def test_study_a_is_320_models_with_founders_of_their_own(tmp_path):
    plan = dry(tmp_path, PAPER / "data_pollination.yaml")
    assert plan["train_founder"] == 64
    assert plan["train_founder"] + plan["train_child"] == 320 == plan["evaluate_member"]


@pytest.mark.parametrize(
    "config",
    [ROOT / "config/config.yaml", *(PAPER / f"{name}.yaml" for name in ("data_pollination", "epistemic_diversity", "theory"))],
    ids=lambda path: path.stem,
)
def test_status_lists_every_job_of_the_full_plans(tmp_path, config):
    plan = dry(tmp_path, config)
    listed = len(list(jobs(Plan(resolve(yaml.safe_load(config.read_text())), "results/any"))))
    assert listed == plan["total"] - plan["all"] - plan["write_config"] - plan.get("stage", 0)


def test_two_hundred_generations_plan(tmp_path):
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"] = {"line": raw["experiments"]["line"] | {"generations": 200}}
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert dry(tmp_path, path)["train_child"] == 199


def test_planning_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from snakemake.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('heavy:', [m for m in ('torch', 'transformers', 'datasets', 'lm_eval') if m in sys.modules])"
    )
    words = ["-n", "--quiet", "all", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--configfile", str(TOY)]
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert "heavy: []" in result.stdout, result.stdout + result.stderr


def sampled(**change) -> Plan:
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["evaluate"] |= change
    return Plan(resolve(raw), "r")


def test_samples_are_embedded_of_those_who_play_a_role_or_are_named():
    p = sampled()
    assert p.embedded() == ["population", "line.s42", "line.s123", "line.s456"] and p.embeddings == "r/semantics/tfidf.embeddings.parquet"
    assert p.embedded_groups()[1] == {"group": "line", "experiments": ["line.s42", "line.s123", "line.s456"], "population": 1}
    assert len(p.embedded_models()) == 4 + 4 * 4 + 3 * 4  # founders once
    assert p.figure_inputs("semantics") == {"embeddings": [p.embeddings]} and p.encoder == []
    named = sampled(semantics={"encoder": "{data}/roberta", "experiments": ["line"]})
    assert named.embedded() == ["line.s42", "line.s123", "line.s456"]
    assert named.semantics["encoder"] == "./roberta" and "r/semantics/encoder/model.safetensors" in named.staged()
    without = sampled(semantics=None)
    assert not {"semantics", "semantic_diversity"} & set(without.figures()) and "degeneration" in without.figures()
    assert without.figure_inputs("continuations")["vocabulary"] == ["r/corpora/world/vocabulary.parquet"]


def test_measuring_something_else_beside_the_scores_evaluates_nobody_again():
    assert sampled().measures("line.s42/gen1", 0) == sampled(semantics=None, quality=True).measures("line.s42/gen1", 0)
