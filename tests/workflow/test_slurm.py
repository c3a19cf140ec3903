"""The workflow through profiles/slurm on a real Slurm: same files, one GPU a model, and every
accident survived.

All runs go side by side, each on nodes of its own, because most of their time is Slurm's; a test
waits for the end of one.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from pollination.core.artifacts import digest
from pollination.core.driver import FOLDER
from pollination.core.lease import kept_copies, newest
from pollination.core.slurm import parse_duration
from tests.conftest import ROOT, snakemake
from tests.slurm import Cluster, call, missing, until

CONFIG = ROOT / "config/test/slurm.yaml"
CHILDREN = [f"results/slurm/lines/gen1/member{m}/model.safetensors" for m in (0, 1)]
TARGETS = [*CHILDREN, "results/slurm/founders/human/member0/scores.json"]
GPU_RULES = ("train_founder", "train_child", "generate_shard", "evaluate_member")
MEMBER, LOG = "results/slurm/lines/gen1/member0", "results/slurm/logs/lines/gen1/member0/train.log"
STEPS = 1100
LIMIT_S = 600
QUICK = ("--pollination-slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")

pytestmark = pytest.mark.slow


class Run:
    """A folder with a run, what was started in it, and the nodes (a partition) of its own."""

    def __init__(self, slurm: Cluster, folder: Path, partition: str, local: Path) -> None:
        self.slurm, self.folder, self.partition, self.local = slurm, folder, partition, local
        self.started: list[subprocess.Popen] = []
        self.saves: dict[
            int, int
        ] = {}  # the step last saved by each copy of the job, by the number of its lease
        self.ended = threading.Event()
        self.project = ROOT  # a copy, where a scenario edits the code

    def start(
        self,
        *words: str,
        targets: list[str] = CHILDREN[:1],
        defaults: tuple[str, ...] = (),
        under: tuple[str, ...] = (),
        profile: str = "slurm",
    ) -> subprocess.Popen:
        """snakemake --profile profiles/{profile}, as a user types it.

        It is in a process group of its own, and saves every half second. `under`: a command that
        starts it.
        """
        base = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(self.project / "Snakefile"),
            "--directory",
            str(self.folder),
        ]
        given = ["--profile", str(ROOT / "profiles" / profile), "--configfile", str(CONFIG), *QUICK]
        if self.partition != "gpu":  # these replace the profile's
            given += [
                "--default-resources",
                "mem_mb=4000",
                "runtime=60",
                f"slurm_partition={self.partition}",
                *defaults,
            ]
        env = os.environ | {"POLLINATION_SAVE_EVERY_S": "0.5", "POLLINATION_BEAT_S": "1"}
        if self.project != ROOT:
            env |= {"PYTHONPATH": str(self.project)}
        with open(self.folder / "driver.log", "a") as log:
            words = [*under, *base, *given, *words, "--", *targets]
            self.started.append(
                subprocess.Popen(
                    words,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=env,
                    cwd=self.folder,  # `-m` would find the package of the current folder first
                )
            )
        return self.started[-1]

    def without_child(self) -> None:
        """A copy of the finished run in which only child 0 is missing; from now on its saves are
        watched.
        """
        shutil.copytree(self.local, self.folder, copy_function=shutil.copy2, dirs_exist_ok=True)
        shutil.rmtree(self.folder / MEMBER)
        (self.folder / LOG).unlink()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        work = self.folder / MEMBER / ".train.work"
        while not self.ended.wait(0.2):
            with suppress(OSError, SafetensorError):  # at this moment replaced
                number = newest(work)[0]
                for path in work.glob("*/checkpoint.safetensors"):
                    with safe_open(str(path), "pt") as file:
                        step = json.loads(file.metadata()["state"])["step"]
                    if newest(work)[0] == number:
                        self.saves[number] = step

    def stop(self) -> None:
        self.ended.set()
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    # --- what a scenario looks at

    @property
    def said(self) -> str:
        return (self.folder / "driver.log").read_text()

    @property
    def log(self) -> str:
        return (self.folder / LOG).read_text() if (self.folder / LOG).exists() else ""

    def status(self) -> dict:
        """What `pollination status --json` says of the run."""
        words = [sys.executable, "-m", "pollination", "status", "--json", "results/slurm"]
        env = os.environ | {"PYTHONPATH": str(ROOT), "POLLINATION_BEAT_S": "1"}
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def jobs(self, *states: str) -> list[dict[str, str]]:
        """The Slurm jobs of this run, in order of submission."""
        return [
            job
            for job in self.slurm.of("train_child", *states)
            if job["Partition"] == self.partition
        ]

    def until_saved(self) -> dict[str, str]:
        """Wait until the child trains and has saved; its Slurm job."""
        until(lambda: self.saves, LIMIT_S, "a first save")
        return self.jobs()[-1]

    def ends_well(self, process: subprocess.Popen, targets: list[str] = CHILDREN) -> None:
        """The run completes and its files are those of a run without accidents."""
        assert process.wait(LIMIT_S) == 0, (self.folder / "driver.log").read_text()[-5000:]
        assert {path: digest(self.folder / path) for path in targets} == {
            path: digest(self.local / path) for path in targets
        }

    def lost_nothing(self, *states: str) -> None:
        """The last copy went on exactly where the one before it had saved; nothing else was done
        again; the jobs ended in `states`.
        """
        last = newest(self.folder / MEMBER / ".train.work")[0]
        resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", self.log)]
        assert resumed[-1:] == [
            self.saves[max(number for number in self.saves if number < last)]
        ], (self.log, self.saves)
        assert self.log.count(f"step {STEPS}/{STEPS}") == 1
        others = [
            job
            for job in self.slurm.jobs()
            if job["Partition"] == self.partition and job not in self.jobs()
        ]
        assert not [job for job in others if job["rule"]]
        assert [job["JobState"] for job in self.jobs()] == list(states)

    def hurry(self, job: dict[str, str]) -> None:
        """Slurm keeps a job that is queued again for two minutes; let it start now."""

        def again():
            return [one for one in self.jobs("PENDING") if one["JobId"] == job["JobId"]]

        until(again, 60, f"job {job['JobId']} is queued again")
        call("scontrol", "update", f"jobid={job['JobId']}", "starttime=now")


SCENARIOS: dict[str, Callable[[Run], None]] = {}


def scenario(function: Callable[[Run], None]) -> Callable[[Run], None]:
    SCENARIOS[function.__name__] = function
    return function


@scenario
def run_over_four_nodes(run: Run) -> None:
    """The profile unedited, on the default partition."""
    run.ends_well(run.start(targets=TARGETS), TARGETS)
    for rule in GPU_RULES:
        jobs = [job for job in run.slurm.of(rule) if job["Partition"] == "gpu"]
        assert jobs and all(job["TresPerJob"] == "gres:gpu:a100:1" for job in jobs), jobs
    assert not any(
        "gpu" in job.get("TresPerJob", "")
        for job in run.slurm.of("build_microworld") + run.slurm.of("pack_tokens")
    )


@scenario
def rounds(run: Run) -> None:
    """All jobs of a round share a Slurm job with one GPU; one process scores its members."""
    scores = [f"results/slurm/lines/gen1/member{m}/scores.json" for m in (0, 1)]
    run.ends_well(run.start(targets=[*CHILDREN, *scores], profile="slurm-rounds"))
    assert all((run.folder / path).exists() for path in scores)
    own = [job for job in run.slurm.jobs() if job["Partition"] == run.partition]
    rounds = [job for job in own if "round." in job["rule"]]
    assert len([job for job in rounds if "lines/gen1" in job["rule"]]) == 1
    assert all(job["TresPerJob"] == "gres:gpu:a100:1" for job in rounds), rounds
    others = [job["rule"] for job in own if job not in rounds]
    assert not [name for name in others if any(rule in name for rule in GPU_RULES)], others
    before = [digest(run.folder / path) for path in scores]
    for path in scores:
        for one in (path, *kept_copies(str(run.folder / path))):
            (run.folder / one).unlink()
    run.ends_well(run.start(targets=scores, profile="slurm-rounds"))
    assert [digest(run.folder / path) for path in scores] == before
    logs = [run.folder / f"results/slurm/logs/lines/gen1/member{m}/evaluate.log" for m in (0, 1)]
    assert sum("kept from the member before" in path.read_text() for path in logs) == 1


@scenario
def cancelled_job(run: Run) -> None:
    run.without_child()
    process = run.start()
    call("scancel", run.until_saved()["JobId"])
    run.ends_well(process)
    run.lost_nothing("CANCELLED", "COMPLETED")


@scenario
def node_down(run: Run) -> None:
    run.without_child()
    process = run.start()
    job = run.until_saved()
    call("scontrol", "update", f"nodename={job['NodeList']}", "state=down", "reason=test")
    run.hurry(job)
    run.ends_well(process)
    run.lost_nothing("COMPLETED")


@scenario
def preempted_job(run: Run) -> None:
    run.without_child()
    process = run.start()
    job = run.until_saved()
    urgent = (
        "-p",
        f"{run.partition}-urgent",
        f"--nodelist={job['NodeList']}",
        "--gpus=a100:2",
        "--wrap=sleep 5",
        "-o/dev/null",
    )
    call("sbatch", *urgent)
    run.hurry(job)
    run.ends_well(process)
    run.lost_nothing("COMPLETED")
    assert [one["Restarts"] for one in run.jobs()] == ["1"]


@scenario
def time_limit(run: Run) -> None:
    run.without_child()
    # Slurm's own look at the clock may come 60 s early; here the job's is tried
    warning = "'--signal=TERM@5'"
    sizes = (
        "train_child:runtime=attempt",
        "train_child:gpu_model=a100",
        f"train_child:slurm_extra={warning}",
    )
    process = run.start("--set-resources", *sizes)
    job = run.until_saved()
    trainer = newest(run.folder / MEMBER / ".train.work")[1]["pid"]
    os.kill(trainer, signal.SIGSTOP)  # makes a minute-long job of one that takes seconds

    def left():
        return parse_duration(call("squeue", "-h", "-j", job["JobId"], "-o", "%L"))

    until(
        lambda: (left() or 0) <= 4,
        (left() or 0) + 30,
        "the time is nearly up, or the job has been warned and has ended",
    )
    with suppress(ProcessLookupError):
        os.kill(trainer, signal.SIGCONT)
    run.ends_well(process)
    # On a slow machine a minute may be too short twice, and five seconds too short to stop.
    stopped = [job["JobState"] for job in run.jobs()][:-1]
    assert stopped and set(stopped) <= {"FAILED", "TIMEOUT"}
    run.lost_nothing(*stopped, "COMPLETED")


@scenario
def killed_driver(run: Run) -> None:
    run.without_child()
    process = run.start()
    run.until_saved()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    snakemake(run.folder, "--unlock", configfile=CONFIG)
    run.ends_well(run.start())
    states = [job["JobState"] for job in run.jobs()]
    assert states in (["COMPLETED"], ["COMPLETED"] * 2)
    # Snakemake begins a new log for the second copy: it waited, if it came before the first had
    # ended, and trained nothing. On a slow machine the first has ended before the new driver plans.
    if len(states) == 2:
        assert "files were restored" in run.log and "steps of" not in run.log


@scenario
def frozen_driver(run: Run) -> None:
    """A second driver, elsewhere, takes over the run; the first wakes up and stops."""
    run.without_child()
    first = run.start()
    run.until_saved()
    held = run.folder / "results/slurm" / FOLDER
    number = newest(held)[0]
    first.send_signal(signal.SIGSTOP)
    # On a slow machine the job would end before the second driver has planned.
    trainer = newest(run.folder / MEMBER / ".train.work")[1]["pid"]
    os.kill(trainer, signal.SIGSTOP)
    snakemake(run.folder, "--unlock", configfile=CONFIG)
    second = run.start(under=("unshare", "--pid", "--fork", "--kill-child"))
    until(lambda: newest(held)[0] > number, LIMIT_S, "the second driver holds the run")
    os.kill(trainer, signal.SIGCONT)
    locks = list((run.folder / ".snakemake/locks").iterdir())
    first.send_signal(signal.SIGCONT)
    assert first.wait(30) == 1
    log = (run.folder / "driver.log").read_text()
    assert log.count("has taken over this run while this driver was frozen") == 1
    assert locks and all(path.exists() for path in locks), "they are the second driver's"
    assert run.status()["driver"]["alive"]
    run.ends_well(second)
    assert {job["JobState"] for job in run.jobs()} == {"COMPLETED"}
    assert not run.status()["driver"]["alive"]


@scenario
def emptied_leases(run: Run) -> None:
    """The driver and the job find empty leases, as after a power loss."""
    run.without_child()
    for folder in (run.folder / "results/slurm" / FOLDER, run.folder / MEMBER / ".train.work"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lease.5").touch()
        (folder / "lease.5~").touch()
    told = run.status()["driver"]["text"]
    run.ends_well(run.start())
    assert "lease.5: the file is empty" in told
    for text in (run.log, (run.folder / "driver.log").read_text()):
        assert "taking over from an unknown process" in text and "Traceback" not in text


@scenario
def fails_twice(run: Run) -> None:
    run.without_child()
    work = run.folder / MEMBER / ".train.work"
    work.parent.mkdir()
    work.write_text("in the way")
    process = run.start()
    until(lambda: len(run.jobs("FAILED")) == 2, LIMIT_S, "two failures")
    work.unlink()
    run.ends_well(process)
    assert [job["JobState"] for job in run.jobs()] == ["FAILED", "FAILED", "COMPLETED"]
    told = [
        path.read_text()
        for path in run.folder.glob(".snakemake/slurm_logs/rule_train_child/*/*.log")
    ]
    assert len([text for text in told if "\nerror: train_child: " in text]) == 2


@scenario
def edited_config(run: Run) -> None:
    """The config changes while a job waits in the queue: the job trains as its driver planned."""
    run.without_child()
    config = run.folder / "edited while queued.yaml"
    config.write_text(CONFIG.read_text())
    call("scontrol", "update", f"partitionname={run.partition}", "state=down")
    process = run.start("--configfile", str(config))
    until(lambda: run.jobs("PENDING"), LIMIT_S, "the child is in the queue")
    config.write_text(CONFIG.read_text().replace("1.0e-3", "5.0e-3"))
    until(lambda: "edited while queued.yaml changed" in run.said, 60, "the driver says so")
    call("scontrol", "update", f"partitionname={run.partition}", "state=up")
    run.ends_well(process)
    here, there = (
        json.loads((folder / MEMBER / "run.json").read_text()) for folder in (run.folder, run.local)
    )
    assert here["params"] == there["params"]
    assert [job["JobState"] for job in run.jobs()] == ["COMPLETED"]
    planned = snakemake(run.folder, "-n", "--", CHILDREN[0], configfile=config)
    assert "changed params" in planned  # the edited config is another run's


@scenario
def edited_code(run: Run) -> None:
    """The code changes while a job waits: one line at once, and the job stops once."""
    run.without_child()
    run.project = run.folder / "project"
    for name in ("rules", "workflow", "pollination", "envs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, run.project / name, ignore=ignored)
    shutil.copy2(ROOT / "Snakefile", run.project)
    call("scontrol", "update", f"partitionname={run.partition}", "state=down")
    process = run.start()
    until(lambda: run.jobs("PENDING"), LIMIT_S, "the child is in the queue")
    loss = run.project / "pollination/models/loss.py"
    text = loss.read_text()
    loss.write_text(f"{text}\n# changed\n")
    message = "error: the code has changed since snakemake started: pollination/models/loss.py; its"
    until(lambda: message in run.said, 60, "the driver says so")
    call("scontrol", "update", f"partitionname={run.partition}", "state=up")
    assert process.wait(LIMIT_S) == 1
    lines = {line.strip() for line in run.said.splitlines() if message in line}
    assert len(lines) == 1 and run.said.count(message) == 2, run.said  # the driver and the job
    assert "failed: train_child" in run.said and "retry: " not in run.said
    assert [job["JobState"] for job in run.jobs()] == ["FAILED"]
    assert not (run.folder / MEMBER / "model.safetensors").exists()
    loss.write_text(text)
    run.ends_well(run.start())


@scenario
def no_usable_gpu(run: Run) -> None:
    run.without_child()
    config = run.folder / "auto.yaml"
    config.write_text(CONFIG.read_text().replace("device: cpu", "device: auto"))
    process = run.start("--configfile", str(config), "--retries", "0", "--rerun-triggers", "mtime")
    assert process.wait(LIMIT_S) == 1
    assert (
        run.log.splitlines()[-1].endswith("Check the node's driver, or set device: cpu")
        and "Traceback" not in run.log
    )
    assert [job["JobState"] for job in run.jobs()] == ["FAILED"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster(partitions=[name for name in SCENARIOS if name != "run_over_four_nodes"])
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a test run that is terminated stops its Slurm too
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    assert not cluster.overlaps


@pytest.fixture(scope="module")
def ends(slurm, tmp_path_factory) -> Iterator[dict[str, Future]]:
    """Every scenario, running."""
    local = tmp_path_factory.mktemp("local")
    snakemake(local, "--", *TARGETS, configfile=CONFIG)
    partitions = {name: "gpu" if name == "run_over_four_nodes" else name for name in SCENARIOS}
    runs = {
        name: Run(slurm, tmp_path_factory.mktemp(name), partition, local)
        for name, partition in partitions.items()
    }
    pool = ThreadPoolExecutor(len(runs))
    yield {name: pool.submit(SCENARIOS[name], run) for name, run in runs.items()}
    for run in runs.values():
        run.stop()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_on_a_real_slurm(ends, name):
    ends[name].result(2 * LIMIT_S)
