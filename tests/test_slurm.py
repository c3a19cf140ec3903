"""The workflow through profiles/slurm on a real Slurm of four virtual nodes: same files, one GPU a model, and every accident survived."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pollination.artifacts import digest
from pollination.lease import newest
from pollination.slurm import parse_duration
from tests.conftest import ROOT, snakemake
from tests.slurm import Cluster, call, missing, until

CONFIG = ROOT / "config/test/slurm.yaml"
CHILDREN = [f"results/slurm/lines/gen1/member{m}/model.safetensors" for m in (0, 1)]
TARGETS = [*CHILDREN, "results/slurm/founders/human/member0/scores.json"]
MEMBER, LOG = "results/slurm/lines/gen1/member0", "results/slurm/logs/lines/gen1/member0/train.log"
STEPS = 2200
WARNING = "'--signal=TERM@5'"  # Slurm's own look at the clock may come 60 s early; here the job's is tried
LIMIT_S = 400
started: list[subprocess.Popen] = []  # drivers of the test that runs
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")

pytestmark = pytest.mark.slow
accident = pytest.mark.skipif(
    os.environ.get("POLLINATION_SLURM") != "all", reason="minutes of waiting for Slurm's own delays: set POLLINATION_SLURM=all"
)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a test run that is terminated stops its Slurm too
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    assert not cluster.overlaps


@pytest.fixture(scope="module")
def local(slurm, tmp_path_factory) -> Path:
    """The same config run without Slurm."""
    folder = tmp_path_factory.mktemp("local")
    snakemake(folder, "--", *TARGETS, configfile=CONFIG)
    return folder


def driver(folder: Path, *words: str, targets: list[str] = TARGETS) -> subprocess.Popen:
    """snakemake --profile profiles/slurm, as a user types it, in a process group of its own."""
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    profile = ["--profile", str(ROOT / "profiles/slurm"), "--configfile", str(CONFIG), *QUICK]
    with open(folder / "driver.log", "a") as log:
        return subprocess.Popen([*base, *profile, *words, "--", *targets], stdout=log, stderr=log, start_new_session=True)


def ends_well(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(LIMIT_S) == 0, (folder / "driver.log").read_text()[-5000:]


def same_as(local: Path, folder: Path, paths: list[str]) -> None:
    assert {path: digest(folder / path) for path in paths} == {path: digest(local / path) for path in paths}


def test_a_run_over_four_nodes_gives_the_files_of_a_local_run(slurm, local, tmp_path):
    ends_well(driver(tmp_path), tmp_path)
    same_as(local, tmp_path, TARGETS)
    for rule in ("train_founder", "train_child", "generate_shard", "evaluate_member"):
        jobs = slurm.of(rule)
        assert jobs and all(job["TresPerJob"] == "gres:gpu:a100:1" for job in jobs), jobs
    assert not any("gpu" in job.get("TresPerJob", "") for job in slurm.of("build_microworld") + slurm.of("pack_tokens"))


# --- accidents: one child trains, all that it needs is there ------------------------------------------------------------


@pytest.fixture
def child(slurm, local, tmp_path, monkeypatch) -> Iterator[Path]:
    """A run in which only child 0 is missing; work is saved every half second."""
    monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", "0.5")
    monkeypatch.setenv("POLLINATION_BEAT_S", "1")
    folder = Path(shutil.copytree(local, tmp_path / "run", copy_function=shutil.copy2))
    shutil.rmtree(folder / MEMBER)
    (folder / LOG).unlink()
    started.clear()
    slurm.clear()
    slurm.first = max((int(job["JobId"]) for job in slurm.jobs()), default=0)
    yield folder
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
    slurm.clear()


def start(folder: Path, *words: str) -> subprocess.Popen:
    started.append(driver(folder, *words, targets=CHILDREN[:1]))
    return started[-1]


def log(folder: Path) -> str:
    return (folder / LOG).read_text() if (folder / LOG).exists() else ""


def until_saved(slurm: Cluster, folder: Path) -> dict[str, str]:
    """Wait until the child trains and has saved; its Slurm job."""
    until(lambda: list((folder / MEMBER).glob(".train.work/*/checkpoint.safetensors")), LIMIT_S, "a first save")
    return new(slurm)[-1]


def new(slurm: Cluster) -> list[dict[str, str]]:
    """The training jobs of this test."""
    return [job for job in slurm.of("train_child") if int(job["JobId"]) > slurm.first]


def check(local: Path, folder: Path) -> None:
    """The child is as it should be, and no step was trained twice but those after the last save."""
    same_as(local, folder, CHILDREN)
    begun = [int(step) for step in re.findall(r"resumed at step (\d+)", log(folder))]
    assert begun and min(begun) > 0 and begun == sorted(begun), log(folder)
    assert log(folder).count(f"step {STEPS}/{STEPS}") == 1


def test_a_cancelled_job_saves_and_its_successor_goes_on(slurm, local, child):
    process = start(child)
    job = until_saved(slurm, child)
    call("scancel", job["JobId"])
    ends_well(process, child)
    check(local, child)
    assert [one["JobState"] for one in new(slurm)] == ["CANCELLED", "COMPLETED"]


@accident
def test_a_job_whose_node_goes_down_is_queued_again_and_goes_on(slurm, local, child):
    process = start(child)
    job = until_saved(slurm, child)
    call("scontrol", "update", f"nodename={job['NodeList']}", "state=down", "reason=test")
    hurry(slurm, job)
    ends_well(process, child)
    check(local, child)


def hurry(slurm: Cluster, job: dict[str, str]) -> None:
    """Slurm keeps a job that is queued again for two minutes; let it start now."""
    requeued = lambda: [one for one in new(slurm) if one["JobId"] == job["JobId"] and one["JobState"] == "PENDING"]  # noqa: E731
    until(requeued, 60, f"job {job['JobId']} is queued again")
    call("scontrol", "update", f"jobid={job['JobId']}", "starttime=now")


@accident
def test_a_preempted_job_is_queued_again_and_goes_on(slurm, local, child):
    process = start(child, *site("slurm_partition=scavenge"))
    job = until_saved(slurm, child)
    blocker = call("sbatch", "--parsable", "-p", "gpu", f"--nodelist={job['NodeList']}", "--gpus=a100:2", "--wrap=sleep 5", "-o/dev/null")
    hurry(slurm, job)
    ends_well(process, child)
    check(local, child)
    assert [(one["JobId"], one["Restarts"]) for one in new(slurm)] == [(job["JobId"], "1")], blocker


def site(*defaults: str) -> list[str]:
    """Other default resources; they replace the profile's."""
    return ["--default-resources", "mem_mb=4000", "runtime=60", *defaults]


@accident
def test_a_job_longer_than_its_time_limit_stops_in_time_and_goes_on(slurm, local, child):
    process = start(child, "--set-resources", "train_child:runtime=1", "train_child:gpu_model=a100", f"train_child:slurm_extra={WARNING}")
    job = until_saved(slurm, child)
    trainer = newest(child / MEMBER / ".train.work")[1]["pid"]
    os.kill(trainer, signal.SIGSTOP)  # makes a minute-long job of one that takes seconds
    left = lambda: parse_duration(call("squeue", "-h", "-j", job["JobId"], "-o", "%L"))  # noqa: E731
    until(lambda: (left() or 0) <= 4, 90, "the time is nearly up, or the job has been warned and has ended")
    with suppress(ProcessLookupError):
        os.kill(trainer, signal.SIGCONT)
    ends_well(process, child)
    check(local, child)
    assert [one["JobState"] for one in new(slurm)] == ["FAILED", "COMPLETED"]


@accident
def test_a_killed_driver_started_again_waits_for_the_running_job(slurm, local, child):
    process = start(child)
    until_saved(slurm, child)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    snakemake(child, "--unlock", configfile=CONFIG)
    ends_well(start(child), child)
    assert [one["JobState"] for one in new(slurm)] == ["COMPLETED"] * 2
    same_as(local, child, CHILDREN)
    # Snakemake begins a new log for the second copy: it waited, if it came before the first had ended, and trained nothing.
    assert "linked again" in log(child) and "steps of" not in log(child)


@accident
def test_a_job_that_fails_twice_is_submitted_a_third_time(slurm, local, child):
    work = child / MEMBER / ".train.work"
    work.parent.mkdir()
    work.write_text("in the way")
    process = start(child)
    until(lambda: len([one for one in new(slurm) if one["JobState"] == "FAILED"]) == 2, LIMIT_S, "two failures")
    work.unlink()
    ends_well(process, child)
    assert [one["JobState"] for one in new(slurm)] == ["FAILED", "FAILED", "COMPLETED"]
    same_as(local, child, CHILDREN)
    told = [path.read_text() for path in child.glob(".snakemake/slurm_logs/rule_train_child/*/*.log")]
    assert len([text for text in told if "\nerror: train_child: " in text]) == 2


@accident
def test_a_gpu_job_on_a_node_without_a_usable_gpu_fails_in_one_line(slurm, local, child, tmp_path):
    config = tmp_path / "auto.yaml"
    config.write_text(CONFIG.read_text().replace("device: cpu", "device: auto"))
    process = start(child, "--configfile", str(config), "--retries", "0", "--rerun-triggers", "mtime")
    assert process.wait(LIMIT_S) == 1
    assert log(child).splitlines()[-1].endswith("check the node's driver, or set device: cpu") and "Traceback" not in log(child)
    assert [one["JobState"] for one in new(slurm)] == ["FAILED"]
