"""Code and config that are edited while snakemake runs, and between two calls of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pollination.core import artifacts
from pollination.core.driver import FOLDER
from tests.chaos.comparison import digests
from tests.conftest import ROOT, TOY, command, planned, snakemake
from tests.slurm import until
from tests.workflow.test_errors import left_behind, the_error

TARGET = "results/toy/models/toy/config.json"
PINS = f"results/toy/{FOLDER}/pins"
ACCURACY, LOSS = "pollination/figures/accuracy.py", "pollination/models/loss.py"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a copy of the project, and a space in its name."""
    folder = tmp_path / "a run"
    for name in ("rules", "workflow", "pollination", "envs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "project" / name, ignore=ignored)
    shutil.copy2(ROOT / "Snakefile", folder / "project")
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Jobs import the copy of the project."""
    return os.environ | {"PYTHONPATH": str(folder / "project")} | more


def edit(folder: Path, name: str) -> None:
    path = folder / "project" / name
    path.write_text(path.read_text() + "\n# changed\n")


def edited_while_running(folder: Path, beat_s: str) -> str:
    """What a driver prints during whose first jobs a file of the code changes."""
    with open(folder / "driver.log", "w") as log:
        process = subprocess.Popen(
            command(folder, "--", TARGET),
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment(folder, POLLINATION_BEAT_S=beat_s),
        )
    try:
        until((folder / PINS / "order").exists, 60, "the driver pins its code", 0.02)
        edit(folder, LOSS)
        assert process.wait(120) == 1
    finally:
        process.kill()
    return (folder / "driver.log").read_text()


def check_line(line: str) -> None:
    assert line.startswith(f"error: the code has changed since snakemake started: {LOSS}; its di")
    assert line.endswith("let snakemake end, then type the same command again")


@pytest.mark.slow
def test_a_job_whose_code_changed_stops_and_leaves_nothing(folder):
    """The driver looks for changes too rarely to notice this one."""
    output = edited_while_running(folder, beat_s="600")
    check_line(the_error(output))
    assert not [path for path in left_behind(folder) if path.endswith(".tmp")]
    assert not (folder / TARGET).exists()
    # The next driver pins the code anew, and says what it would mix.
    said = snakemake(folder, "-n", "--", TARGET, env=environment(folder), cwd=folder)
    made = (folder / "results/toy/corpora/world/run.json").exists()
    notes = [line for line in said.splitlines() if line.startswith("note: ")]
    assert len(notes) == made and all(f"of this run: {LOSS} (digest " in line for line in notes)
    snakemake(folder, "--", TARGET, env=environment(folder), cwd=folder)
    assert len((folder / PINS / "order").read_text().split()) == 2


def test_a_driver_whose_code_changed_starts_no_other_job(folder):
    output = edited_while_running(folder, beat_s="0.2")
    check_line(the_error(output))
    assert "Type the same command to resume" in output
    assert not (folder / TARGET).exists()


def test_a_figure_that_is_edited_between_two_calls_is_drawn_and_mixes_nothing(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))
    before = digests(folder / "results/toy")
    edit(folder, ACCURACY)
    output = snakemake(folder, env=environment(folder), cwd=folder)
    assert "draw_accuracy" in output and "note: " not in output
    record = artifacts.read_json(folder / "results/toy/report/accuracy.run.json")
    assert record["inputs"][f"project/{ACCURACY}"] == artifacts.digest(
        folder / "project" / ACCURACY
    )
    assert digests(folder / "results/toy") == before
    assert "Nothing to be done" in snakemake(folder, "-n", env=environment(folder), cwd=folder)


def test_an_own_function_that_changes_while_snakemake_runs_stops_the_jobs(folder, tmp_path):
    (folder / "own.py").write_text("def first(members, k, rng):\n    return list(range(k))\n")
    own = "{task: knowledge, rule: own.py:first}"
    text = TOY.read_text().replace("select: {task: knowledge}", f"select: {own}")
    (folder / "own.yaml").write_text(text)
    target = ["--configfile", str(folder / "own.yaml"), "--", TARGET]
    with open(folder / "driver.log", "w") as log:
        process = subprocess.Popen(
            command(folder, *target),
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment(folder, POLLINATION_BEAT_S="600"),
        )
    until((folder / PINS / "order").exists, 60, "the driver pins its code", 0.02)
    (folder / "own.py").write_text("def first(members, k, rng):\n    return [1, 0]\n")
    assert process.wait(120) == 1
    line = the_error((folder / "driver.log").read_text())
    assert line.startswith("error: the code has changed since snakemake started: /")
    assert "a run/own.py; its digest is" in line


def test_a_dry_run_says_that_libraries_changed_and_a_driver_says_it_too(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))
    shutil.rmtree(folder / PINS)  # a run of an earlier release
    path = folder / "results/toy/config.run.json"
    record = artifacts.read_json(path)
    old = {key: record[key] for key in record if key not in ("seal", "code")}
    versions = old["versions"] | {"torch": "1.0"}
    artifacts.write_json(path, artifacts.seal(old | {"versions": versions}))
    edit(folder, ACCURACY)
    for words in (["-n"], []):
        output = snakemake(folder, *words, env=environment(folder), cwd=folder)
        (line,) = [line for line in output.splitlines() if line.startswith("note: libraries ")]
        assert " have changed since the last snakemake of this run: torch 1.0 -> " in line
    assert not planned(snakemake(folder, "-n", env=environment(folder), cwd=folder))
