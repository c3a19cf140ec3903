"""The whole loop by real Snakemake runs at toy size: complete, idempotent, minimal in its reruns, resumable, reproducible."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pollination.artifacts import digest
from pollination.config import resolve
from pollination.workflow import Plan
from tests.conftest import ROOT

TOY = ROOT / "config/test/toy.yaml"
PLAN = Plan(resolve(yaml.safe_load(TOY.read_text())), "results/toy")


def command(folder: Path, *words: str, configfile: Path = TOY) -> list[str]:
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return [*base, "--profile", str(ROOT / "profiles/local"), "--cores", "2", "--configfile", str(configfile), *words]


def snakemake(folder: Path, *words: str, configfile: Path = TOY, ok: bool = True) -> str:
    result = subprocess.run(command(folder, *words, configfile=configfile), capture_output=True, text=True, timeout=900)
    output = result.stdout + result.stderr
    assert (result.returncode == 0) == ok, output[-5000:]
    return output


def planned(output: str) -> dict[str, int]:
    """Rule -> jobs, from the table of a dry run."""
    counts, lines = {}, output.splitlines()
    for line in lines[lines.index("Job stats:") + 3 :] if "Job stats:" in lines else []:
        if not line.strip() or line.startswith("total"):
            break
        rule, count = line.split()
        counts[rule] = int(count)
    return counts


def digests(folder: Path) -> dict[str, str]:
    """Digest of every artifact of a run: what rules write, without logs, timings and work in progress."""
    base = folder / "results/toy"
    files = [p for p in base.rglob("*") if p.is_file() and p.relative_to(base).parts[0] not in ("logs", "benchmarks")]
    skip = ("cost.", "run.json")
    return {
        str(p.relative_to(base)): digest(p)
        for p in files
        if not any(word in p.name for word in skip) and "/." not in str(p.relative_to(base))
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    snakemake(folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run"


def change(tmp_path: Path, **experiment) -> Path:
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"]["population"] |= experiment
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_finished_run_has_every_file_and_a_second_call_does_nothing(finished):
    for path in PLAN.evaluations("scores.json") + PLAN.selections() + PLAN.report_files():
        assert (finished / path).stat().st_size > 0, path
    assert "Nothing to be done" in snakemake(finished)


def test_another_mutation_scale_reruns_only_what_depends_on_it(finished, tmp_path):
    plan = planned(snakemake(finished, "-n", configfile=change(tmp_path, mutate={"scale": 0.02})))
    assert (plan["mutate_parent"], plan["train_child"]) == (4, 8)  # two parents and four children of two generations
    assert plan["evaluate_member"] == 8 and plan["generate_shard"] == 4  # generation 0 has written already
    assert "train_founder" not in plan and "build_microworld" not in plan


def test_a_changed_plot_redraws_only_that_plot(copy, tmp_path):
    plot = copy / "results/toy/report/accuracy.svg"
    plot.unlink()
    assert planned(snakemake(copy, "-n", str(plot.relative_to(copy)))) == {"draw_figure": 1, "total": 1} or planned(
        snakemake(copy, "-n", str(plot.relative_to(copy)))
    ) == {"draw_figure": 1}


def test_one_generation_rebuilds_bit_for_bit_and_nothing_later_is_scheduled(copy):
    before = digests(copy)
    files = PLAN.generation_files("population", 1)
    for path in files:
        (copy / path).unlink()
    output = snakemake(copy, *files)
    assert digests(copy) == before
    assert "gen2" not in output.replace("gen2/member", "gen2/member") or "train_child" in output
    assert "Nothing to be done" in snakemake(copy, "-n")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(finished, tmp_path, seed):
    chance = random.Random(seed)
    environment = os.environ | {"POLLINATION_SAVE_EVERY_S": "0.05"}
    for _ in range(2):
        driver = subprocess.Popen(
            command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        time.sleep(chance.uniform(15, 45))
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        snakemake(tmp_path, "--unlock")
    snakemake(tmp_path)
    assert digests(tmp_path) == digests(finished)
