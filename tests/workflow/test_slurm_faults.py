"""The executor on a real Slurm that misbehaves: no job is forgotten, each run ends by itself, and
its output says why a job died.

Tiny jobs stand for the workflow's. The scenarios run side by side, each on nodes of its own, with
wrappers around Slurm's commands where these must fail.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm import ETC, Cluster, call, missing, until

SNAKEFILE = """\
class plan:
    results = "run"

rule all:
    input: expand("out/{n}", n=range(JOBS))

rule work:
    output: "out/{n}"
    log: "logs/{n}.log"
    resources: mem_mb=lambda wildcards, attempt: MEM_MB * attempt ** 2,
        runtime=lambda wildcards, attempt: RUNTIME * attempt,
        attempt=lambda wildcards, attempt: attempt,
    shell: "COMMAND; echo {wildcards.n} {resources.attempt} > {output}"
"""
LIMIT_S = 400
ACCOUNTING = (
    "JobAcctGatherType=jobacct_gather/linux\nJobAcctGatherFrequency=2\n"
    "JobAcctGatherParams=OverMemoryKill\n"
)

pytestmark = pytest.mark.slow


class Run:
    """A folder with a run of tiny jobs on a partition of its own, and wrappers of commands."""

    def __init__(self, slurm: Cluster, folder: Path, partition: str) -> None:
        self.slurm, self.folder, self.partition = slurm, folder, partition
        self.process: subprocess.Popen | None = None
        (folder / "run/.driver").mkdir(parents=True)
        (folder / "bin").mkdir()

    def wrap(self, command: str, lines: str) -> None:
        """Let `lines` of a shell script run before a command of Slurm, for this run alone."""
        path = self.folder / "bin" / command
        path.write_text(f'#!/bin/bash\n{lines}\nexec {shutil.which(command)} "$@"\n')
        path.chmod(0o755)

    def start(
        self,
        *words: str,
        command: str = "true",
        jobs: int = 1,
        mem_mb: int = 1000,
        runtime: int = 10,
        check_s: int = 1,
        beat_s: float = 10,
    ) -> None:
        values = {"JOBS": jobs, "COMMAND": command, "MEM_MB": mem_mb, "RUNTIME": runtime}
        text = SNAKEFILE
        for name, value in values.items():
            text = text.replace(name, str(value))
        (self.folder / "Snakefile").write_text(text)
        base = [sys.executable, "-m", "snakemake", "--directory", str(self.folder)]
        base += ["--snakefile", str(self.folder / "Snakefile")]
        quick = ["--pollination-slurm-init-seconds-before-status-checks", str(check_s)]
        profile = ["--profile", str(ROOT / "profiles/slurm"), *quick, "--latency-wait", "5"]
        default = ["--default-resources", f"slurm_partition={self.partition}"]
        env = os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "POLLINATION_BEAT_S": str(beat_s),
        }
        with open(self.folder / "driver.log", "w") as log:
            self.process = subprocess.Popen(
                [*base, *profile, *default, *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=env,
            )

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    @property
    def said(self) -> str:
        return (self.folder / "driver.log").read_text()

    def line(self, pattern: str) -> str:
        """The one line of the driver's output that a pattern matches."""
        found = [line for line in self.said.splitlines() if re.search(pattern, line)]
        assert len(found) == 1, (pattern, self.said)
        return found[0]

    def ends(self, status: int = 0, *attempts: int) -> None:
        """The run ends by itself; job n succeeded at attempt `attempts[n]`."""
        assert self.process.wait(LIMIT_S) == status, self.said
        assert "Traceback" not in self.said, self.said
        outputs = sorted((self.folder / "out").glob("[0-9]*"))
        assert [path.read_text() for path in outputs] == [
            f"{n} {attempt}\n" for n, attempt in enumerate(attempts)
        ], self.said

    def jobs(self, *states: str) -> list[dict[str, str]]:
        """The Slurm jobs of this run, in order of submission."""
        return [job for job in self.slurm.of("work", *states) if job["Partition"] == self.partition]

    def until_jobs(self, count: int, *states: str) -> list[dict[str, str]]:
        """Wait until so many jobs of this run are in a state; the jobs."""
        return until(
            lambda: (found := self.jobs(*states)) and len(found) == count and found,
            LIMIT_S,
            f"{count} jobs {states}: {self.said}",
            1,
        )

    def listed(self) -> list[dict]:
        path = self.folder / "run/.driver/jobs.json"
        return json.loads(path.read_text())["jobs"] if path.exists() else []

    def log(self, n: int = 0) -> str:
        return (self.folder / f"logs/{n}.log").read_text()


SCENARIOS: dict[str, Callable[[Run], None]] = {}


def scenario(function: Callable[[Run], None]) -> Callable[[Run], None]:
    SCENARIOS[function.__name__] = function
    return function


@scenario
def squeue_fails_for_a_minute(run: Run) -> None:
    run.wrap("squeue", f'[ -e {run.folder}/down ] && {{ echo "squeue: error: gone" >&2; exit 1; }}')
    run.start(jobs=2, command="sleep 5")
    run.until_jobs(2)
    (run.folder / "down").touch()
    time.sleep(60)
    (run.folder / "down").unlink()
    run.ends(0, 1, 1)
    assert "the state of 2 jobs is unknown: Slurm does not answer: gone. The jobs are" in run.said
    run.line("Slurm answers again")
    assert len(run.jobs()) == 2


@scenario
def scontrol_is_slow(run: Run) -> None:
    run.wrap("scontrol", "sleep 35")
    run.start(command="sleep 5")
    run.ends(0, 1)


@scenario
def commands_are_slow_and_every_second_fails(run: Run) -> None:
    for command in ("squeue", "scontrol", "sbatch"):
        count = run.folder / f"{command}.count"
        lines = f"sleep 5\necho >> {count}\n[ $(($(wc -l < {count}) % 2)) = 1 ] && exit 1"
        run.wrap(command, lines)
    run.start(jobs=2)
    run.ends(0, 1, 1)
    assert len(run.jobs()) == 2


@scenario
def slurm_accepts_no_job_for_a_while(run: Run) -> None:
    error = (
        "sbatch: error: AssocMaxSubmitJobLimit\\nsbatch: error: Batch job submission failed: Job "
        "violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    )
    run.wrap("sbatch", f'[ -e {run.folder}/down ] && {{ echo -e "{error}" >&2; exit 1; }}')
    (run.folder / "down").touch()
    run.start(jobs=2)
    until(lambda: run.said.count("Slurm did not accept work n") >= 3, LIMIT_S, "three tries")
    (run.folder / "down").unlink()
    run.ends(0, 1, 1)
    run.line("Slurm did not accept work n.*AssocMaxSubmitJobLimit.*The next try is in 20 s")


@scenario
def sbatch_fails_after_slurm_took_the_job(run: Run) -> None:
    """As when the controller answers too late: the job must not run twice."""
    first = f"{shutil.which('sbatch')} \"$@\"; echo 'sbatch: error: Socket timed out' >&2; exit 1"
    run.wrap("sbatch", f"[ -e {run.folder}/first ] || {{ touch {run.folder}/first; {first}; }}")
    run.start()
    run.ends(0, 1)
    assert len(run.jobs()) == 1


@scenario
def wrong_gpu(run: Run) -> None:
    run.start("--set-resources", "work:gpu=1", "work:gpu_model=v100", jobs=2)
    run.ends(1)
    run.line("Requested node configuration is not available; change gpu_model")
    run.line("Not submitted, for the same reason as work n")
    assert "retry:" not in run.said


@scenario
def wrong_partition(run: Run) -> None:
    run.start("--set-resources", "work:slurm_partition=nowhere")
    run.ends(1)
    run.line("invalid partition specified: nowhere.*change slurm_partition")
    assert "retry:" not in run.said and "account" not in run.said


@scenario
def requeue_loop(run: Run) -> None:
    """The job requeues itself, as a node would whose slurmd kills every job."""
    words = ("--pollination-slurm-max-requeues", "1")
    run.start(*words, command="scontrol requeue $SLURM_JOB_ID; sleep 600")
    end_s = time.monotonic() + LIMIT_S
    while run.process.poll() is None and time.monotonic() < end_s:
        for job in run.jobs("PENDING"):  # Slurm may keep a requeued job for two minutes
            with suppress(AssertionError):
                call("scontrol", "update", f"jobid={job['JobId']}", "starttime=now")
        time.sleep(1)
    run.ends(1)
    run.line("error: Slurm requeued job .* times, so Snakemake cancelled it")
    assert "retry:" not in run.said
    assert len(run.jobs()) == 1 and "ERROR error: work: Slurm requeued" in run.log()


@scenario
def held_by_an_administrator(run: Run) -> None:
    begin = "'--begin=now+600'"
    run.start("--set-resources", f"work:slurm_extra={begin}")
    job = run.until_jobs(1)[0]["JobId"]
    call("scontrol", "hold", job)
    until(lambda: [one["reason"] for one in run.listed()] == ["JobHeldAdmin"], LIMIT_S, "noticed")
    call("scontrol", "release", job)
    call("scontrol", "update", f"jobid={job}", "starttime=now")
    run.ends(0, 1)
    run.line(f"Slurm job {job} .* waits: JobHeldAdmin: .*scontrol release {job}")
    assert run.listed() == []


@scenario
def too_much_memory(run: Run) -> None:
    python = f"{sys.executable} -c 'import time; x = b\"a\" * (500 << 20); time.sleep(15)'"
    run.start(command=python.replace('"', '\\"'), mem_mb=400)
    run.ends(0, 2)
    run.line("used more memory than it requested; .* with 1600 MB instead of 400")


@scenario
def time_limit(run: Run) -> None:
    run.start(command="if [ {resources.attempt} = 1 ]; then sleep 600; fi", runtime=1)
    run.ends(0, 2)
    run.line("was ended at its time limit; .*attempt 2 of 4. with 2 minutes instead of 1")


@scenario
def silent_job(run: Run) -> None:
    """Slurm lists a job as running that has ended, or stands still: its lease grows old."""
    lease = "mkdir -p out/.n.work; touch out/.n.work/lease.0"
    wait = "if [ {resources.attempt} = 1 ]; then sleep 600; fi"
    run.start(command=f"{lease}; {wait}", beat_s=0.05)
    until(lambda: "has shown no sign of life since" in run.said, LIMIT_S, "it is noticed")
    job = run.jobs("RUNNING")[0]["JobId"]
    until(lambda: [one["reason"][:20] for one in run.listed()] == ["no sign of life sinc"], 60, "")
    call("scancel", job)
    run.ends(0, 2)
    run.line(rf"Slurm job {job} \(work n0\) has shown no sign of life.* type: scancel {job}\.")


@scenario
def node_fails(run: Run) -> None:
    extra = "'--no-requeue'"
    words = ("--set-resources", f"work:slurm_extra={extra}")
    run.start(*words, command="if [ {resources.attempt} = 1 ]; then sleep 600; fi")
    job = run.until_jobs(1, "RUNNING")[0]
    call("scontrol", "update", f"nodename={job['NodeList']}", "state=down", "reason=test")
    run.ends(0, 2)
    run.line("was lost because its node failed; Snakemake submits it again")


PARTITIONS = {name: f"own{number}" for number, name in enumerate(SCENARIOS)}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    # Short names: slurmd puts a node's name twice into the path of a socket.
    cluster = Cluster([*PARTITIONS.values(), "forgetful"], ACCOUNTING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def ends(slurm, tmp_path_factory) -> Iterator[dict[str, Future]]:
    """Every scenario, running."""
    runs = {
        name: Run(slurm, tmp_path_factory.mktemp(name), partition)
        for name, partition in PARTITIONS.items()
    }
    pool = ThreadPoolExecutor(len(runs))
    yield {name: pool.submit(SCENARIOS[name], run) for name, run in runs.items()}
    for run in runs.values():
        run.stop()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_survives(ends, name):
    ends[name].result(2 * LIMIT_S)


def test_a_killed_controller_that_forgets_ended_jobs_at_once(slurm, ends, tmp_path):
    """No accounting, MinJobAge of 5 s, status checks that come later, and a dead controller.

    Slurm counts some jobs as failed that end meanwhile, so more than job 1 may need a second
    attempt.
    """
    for future in ends.values():
        future.exception(2 * LIMIT_S)
    conf = ETC / "slurm.conf"
    conf.write_text(conf.read_text().replace("MinJobAge=300", "MinJobAge=5"))
    call("scontrol", "reconfigure")
    run = Run(slurm, tmp_path, "forgetful")
    run.start(
        jobs=3,
        check_s=15,
        command="sleep 20; if [ {wildcards.n} = 1 ]; then [ {resources.attempt} -ge 2 ]; fi",
    )
    try:
        run.until_jobs(3, "RUNNING")
        slurm.until_saved()
        slurm.kill("slurmctld")
        time.sleep(150)
        slurm.restart("slurmctld")
        assert run.process.wait(LIMIT_S) == 0, run.said
        done = [tuple(map(int, (tmp_path / f"out/{n}").read_text().split())) for n in range(3)]
        assert [n for n, _ in done] == [0, 1, 2] and done[1][1] >= 2, run.said
    finally:
        run.stop()
