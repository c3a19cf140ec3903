"""Dry runs: the paper's plan in full, hundreds of generations, and nothing heavy imported while
planning.
"""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from pollination.plan.config.resolve import resolve
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from tests.conftest import ROOT, TOY, planned, snakemake

PAPER = ROOT / "config/paper"


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """A function: config file -> {rule: number of jobs}."""

    @cache
    def counted(configfile: Path) -> dict[str, int]:
        folder = tmp_path_factory.mktemp("dry")
        return planned(snakemake(folder, "-n", "--quiet", "rules", configfile=configfile))

    return counted


def test_study_a_is_320_models_with_founders_of_their_own(dry):
    plan = dry(PAPER / "data_pollination.yaml")
    assert (
        plan["train_founder"] == 64
    )  # shared by what stands beside the 320: lines of three seeds, N = 4 and 9, text only
    assert (
        plan["train_founder"] + plan["train_child"]
        == 320 + 3 * 4 + (4 + 9) * 4 + 16 * 4
        == plan["evaluate_member"]
    )
    config = resolve(yaml.safe_load((PAPER / "data_pollination.yaml").read_text()))
    four = [config["experiments"][name] for name in ("mmlu", "winogrande", "mathqa", "social_iqa")]
    assert (
        sum(one["population"] * one["generations"] for one in four) == 320
        and len({one["founders"] for one in four}) == 4
    )
    assert (
        {one["train"]["tokens"] for one in four}
        == {one["generate"]["tokens"] for one in four}
        == {1_000_000_000}
    )
    assert {pool["train"]["tokens"] for pool in config["founders"].values()} == {1_000_000_000}


@pytest.mark.parametrize(
    "config",
    [
        ROOT / "config/config.yaml",
        *(PAPER / f"{name}.yaml" for name in ("data_pollination", "theory")),
        # the preset has 17 times as many jobs, of the same kinds
        ROOT / "config/laptop/epistemic_diversity.yaml",
    ],
    ids=lambda path: path.stem,
)
def test_status_lists_every_job_of_the_plans(dry, config):
    plan = dry(config)
    listed = len(list(jobs(Plan(resolve(yaml.safe_load(config.read_text())), "results/any"))))
    assert listed == plan["total"] - plan["all"] - plan["write_config"]


def test_two_hundred_generations_plan(tmp_path, dry):
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"] = {"line": raw["experiments"]["line"] | {"generations": 200}}
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert dry(path)["train_child"] == 199


def test_planning_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from snakemake.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('heavy:', [m for m in ('torch', 'transformers', 'datasets', 'lm_eval') if m in "
        "sys.modules])"
    )
    words = [
        "-n",
        "--quiet",
        "all",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(tmp_path),
        "--configfile",
        str(TOY),
    ]
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT
    )
    assert "heavy: []" in result.stdout, result.stdout + result.stderr
