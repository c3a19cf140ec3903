"""Other drivers, other users, and what lies outside a run's folder."""

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pollination.core.driver import FOLDER, hold
from pollination.core.lease import Lease, newest
from pollination.core.worker import TITLE as WORKER
from tests.conftest import ROOT, TOY, command, snakemake
from tests.slurm import until

CACHES = (
    ".cache/snakemake",
    ".cache/pollination/compiled",
    ".cache/matplotlib",
    ".config/matplotlib",
    ".cache/fontconfig",
)  # declared in docs/reliability.md


@pytest.fixture
def driver(tmp_path):
    """A driver at work in a folder of its own."""
    folder = tmp_path / "one"
    folder.mkdir()
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command(folder, "--until", "build_microworld"), stdout=log, stderr=log
        )
    until(lambda: newest(folder / "results/toy" / FOLDER)[1], 60, "the driver holds its run")
    process.send_signal(signal.SIGSTOP)  # it stays where it is
    yield folder
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_second_driver_is_refused_in_the_same_folder_and_in_any_other(driver, tmp_path):
    assert "Directory cannot be locked" in snakemake(driver, ok=False)
    other = tmp_path / "two"
    other.mkdir()
    (other / "results").symlink_to(driver / "results")
    output = snakemake(other, ok=False)
    line = next(line for line in output.splitlines() if line.startswith("error: "))
    assert (
        line.startswith("error: results/toy: process ")
        and "is already working on this run (it is suspended; to resume it, type kill" in line
        and "; wait for it, stop it there" in line
    )
    assert "Traceback" not in output and not (driver / "results/toy/founders").exists()
    assert "This was a dry run" in snakemake(other, "-n")  # one may look


def test_a_frozen_driver_that_lost_its_run_stops_and_touches_nothing_of_the_other(
    tmp_path, monkeypatch
):
    """The other driver ran elsewhere, so it could not see that the frozen process lives."""
    monkeypatch.setenv("POLLINATION_BEAT_S", "0.2")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command(tmp_path), stdout=log, stderr=log)
    run = tmp_path / "results/toy"
    until(lambda: newest(run / FOLDER)[1], 60, "the driver holds its run")
    until(lambda: list(run.glob("logs/**/*.log")), 60, "its first job runs")
    process.send_signal(signal.SIGSTOP)
    other = elsewhere(run / FOLDER)
    until(lambda: not jobs_of(process), 60, "the job of the frozen driver has ended")
    started = sorted(path.name for path in run.glob("logs/**/*.log"))
    locks = list((tmp_path / ".snakemake/locks").iterdir())
    process.send_signal(signal.SIGCONT)
    assert process.wait(10) == 1
    said = (tmp_path / "log").read_text().splitlines()
    assert [line for line in said if "error" in line.lower()] == [said[-1]]
    assert said[-1].startswith("error: results/toy: process ")
    assert "has taken over this run while this driver was frozen" in said[-1]
    assert sorted(path.name for path in run.glob("logs/**/*.log")) == started
    assert len(locks) == 2 and all(lock.exists() for lock in locks), "now the other driver's"
    assert newest(run / FOLDER)[0] == other.number and not other.taken
    other.release()


def jobs_of(driver: subprocess.Popen) -> list[psutil.Process]:
    """The processes of a driver's jobs that have not ended; its worker waits for more jobs."""
    children = psutil.Process(driver.pid).children(recursive=True)
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if child.cmdline()[:1] != [WORKER]]


def elsewhere(folder: Path) -> Lease:
    """The lease of a driver of another machine."""
    lease = Lease(folder, logging.getLogger("test"))
    lease.me["place"] = "another boot of another machine"
    assert lease.wait()
    return lease


def test_a_driver_of_another_machine_is_refused_while_its_count_moves_then_replaced(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("POLLINATION_BEAT_S", "0.2")
    lease = elsewhere(tmp_path / FOLDER)
    with pytest.raises(SystemExit, match="is already working on this run"):
        hold(str(tmp_path))
    lease.bell.set()  # its machine is gone
    hold(str(tmp_path))
    assert newest(tmp_path / FOLDER)[0] == lease.number + 1
    assert "waiting up to" in capsys.readouterr().err


def test_a_driver_that_ended_leaves_the_run_free(finished):
    assert newest(finished / "results/toy" / FOLDER)[1]["released"]


@pytest.fixture
def readonly(finished, tmp_path):
    """Results that one may read and not write, and a folder of one's own that leads to them; how to
    run a command there.
    """
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    shutil.copytree(finished / "results", theirs, copy_function=shutil.copy2)
    mine.mkdir()
    (mine / "results").symlink_to(theirs)
    entries = [theirs, *theirs.rglob("*")]
    for path in entries:
        path.chmod(path.stat().st_mode & ~0o222)
    capabilities = "-dac_override,-dac_read_search,-fowner"
    drop = (
        ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
        if os.geteuid() == 0
        else []
    )

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*drop, *words],
            cwd=mine,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    if drop and (not shutil.which("setpriv") or run("touch", "results/x").returncode == 0):
        pytest.skip("root writes everywhere here, and cannot lay that right down")
    yield mine, run
    for path in entries:
        path.chmod(path.stat().st_mode | 0o200)


def test_results_of_another_user_that_cannot_be_written_are_verified_looked_at_and_reported(
    readonly,
):
    mine, run = readonly
    assert run("touch", "results/toy/x").returncode != 0
    python = (sys.executable, "-m", "pollination")
    for words in (("verify", "results/toy"), ("status", "--configfile", str(TOY))):
        done = run(*python, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(*command(mine, "--report", "report.html"))
    assert done.returncode == 0 and (mine / "report.html").stat().st_size > 100_000, done.stderr[
        -3000:
    ]


def test_files_honour_the_umask(finished):
    """The run was made under umask 027."""
    for path in (finished / "results").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o750 if path.is_dir() else 0o640), f"{path}: {mode:o}"


def test_nothing_is_written_outside_the_run_but_declared_caches(finished):
    home = finished / "home"
    outside = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert not [path for path in outside if not path.startswith(CACHES)], outside
    assert not list((finished / "temporary").iterdir())
    assert {path.name for path in finished.iterdir()} == {
        "project",
        "home",
        "temporary",
        "results",
        ".snakemake",
    }
    original = {
        path.relative_to(ROOT)
        for name in ("rules", "workflow", "pollination")
        for path in (ROOT / name).rglob("*")
    }
    copied = {
        path.relative_to(finished / "project")
        for name in ("rules", "workflow", "pollination")
        for path in (finished / "project" / name).rglob("*")
    }
    assert not [path for path in copied - original if "__pycache__" not in path.parts]
