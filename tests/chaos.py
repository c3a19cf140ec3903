"""Chaos: a workflow runs while things break at random moments; then it is completed undisturbed,
and every artifact must be the reference's.

    python -m tests.chaos --hours 1              # the demo, on this machine
    python -m tests.chaos --kills 100 --slurm    # on a Slurm of its own, with virtual nodes (root)
    python -m tests.chaos --configfile config/test/toy.yaml --faults 10 --seed 3

What breaks is real: signals, a full tmpfs, a file-size limit, a folder in a file's place, bytes
flipped on the disk, a clock that jumps (libfaketime), Slurm's daemons. A fault that this machine
cannot have (no root, no library) is left out and named. The seed fixes which faults come in which
order, not what the workflow happens to be doing then. When a run ends before the campaign does, it
is compared and begun anew.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from pollination.core import artifacts
from tests.packages import install
from tests.slurm import Cluster, missing

ROOT = Path(__file__).parent.parent
KILLS = (
    "kill_driver",
    "kill_driver_and_jobs",
    "kill_job",
    "end_job",
    "interrupt_driver",
    "cancel_job",
    "kill_controller",
    "kill_node",
)
# Python's own is an error under libfaketime
SLEEP = (
    "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and "
    "None\n"
)
END_S = 900  # a driver that is asked to stop and does not
QUICK = ("--pollination-slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")


def digests(results: Path) -> dict[str, str]:
    """Digest of every artifact of a run by name: all but logs, timings, the figure of them, and
    records (which name the commit).
    """
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        timed = name.startswith(("logs/", "benchmarks/", "report/cost")) or name.endswith(
            "run.json"
        )
        if path.is_file() and "/." not in f"/{name}" and not timed:
            found[name] = artifacts.digest(path)
    return found


def same(found: dict[str, str], reference: dict[str, str]) -> None:
    """AssertionError names what differs, is missing, or is one too many."""
    other = sorted(
        name for name in reference.keys() | found.keys() if reference.get(name) != found.get(name)
    )
    assert not other, f"{len(other)} artifacts differ from the reference: {', '.join(other[:10])}"


def leftovers(results: Path) -> list[str]:
    """Half-written files of jobs that hold a lease: the copy that goes on has removed them.

    (Of others a hidden file may stay.)
    """
    leased = {path.parent for path in results.rglob(".*.work")}
    return sorted(
        str(path)
        for path in results.rglob("*.tmp")
        if path.parent in leased or path.parent.name.endswith(".work")
    )


def tracebacks(text: str) -> list[str]:
    """The innermost place and the exception of each traceback in a log: what ought to be one clear
    line was not.
    """
    found, lines = [], text.splitlines()
    for start in [number for number, line in enumerate(lines) if line.startswith("Traceback")]:
        end = next(
            (
                number
                for number in range(start + 1, len(lines))
                if not lines[number].startswith(" ")
            ),
            len(lines) - 1,
        )
        places = [line.strip() for line in lines[start:end] if line.strip().startswith("File ")]
        found.append(f"{places[-1] if places else ''}: {lines[end]}")
    return found


@dataclass
class Campaign:
    """A run in `folder`, and its faults. `healing`: (when, what) for faults that pass."""

    folder: Path
    configfile: Path
    chance: random.Random
    cluster: Cluster | None = None
    interval_s: tuple[float, float] = (3.0, 15.0)
    say: Callable[[str], None] = print
    driver: subprocess.Popen | None = None
    healing: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    faults: Counter = field(default_factory=Counter)
    starts: int = 0
    completed: int = 0
    tracebacks: list[str] = field(default_factory=list)
    clock: Path | None = None
    damaged: set[str] = field(default_factory=set)

    @property
    def results(self) -> Path:
        return self.folder / "results" / yaml.safe_load(self.configfile.read_text())["run"]

    # --- the workflow under test

    def command(self, *words: str) -> list[str]:
        base = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--directory",
            str(self.folder),
        ]
        profile = ["--profile", str(ROOT / "profiles" / ("slurm" if self.cluster else "local"))]
        profile += QUICK if self.cluster else ("--cores", "2")
        return [*base, *profile, *words, "--configfile", str(self.configfile)]

    def environment(self) -> dict[str, str]:
        quick = {"POLLINATION_SAVE_EVERY_S": "0.5", "POLLINATION_BEAT_S": "1"}
        if self.clock is None:
            return os.environ | quick
        # files have the times that the file system gives them (FAKE_UTIME undoes what the library
        # else does to "now"), what waits waits
        switches = dict.fromkeys(
            ("NO_FAKE_STAT", "FAKE_UTIME", "DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"),
            "1",
        )
        faked = {
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
        }
        return os.environ | quick | faked | switches | {"PYTHONPATH": str(self.clock.parent)}

    def start(self, *targets: str) -> None:
        subprocess.run(
            self.command("--unlock"), capture_output=True, timeout=END_S, env=self.environment()
        )
        self.starts += 1
        with open(self.folder / "driver.log", "a") as log:
            words = [*self.command(), *(("--", *targets) if targets else ())]
            self.driver = subprocess.Popen(
                words, stdout=log, stderr=log, start_new_session=True, env=self.environment()
            )

    def jobs(self) -> list[psutil.Process]:
        """The processes of this run's jobs, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if (
                    ".snakemake/scripts" in " ".join(process.cmdline())
                    and Path(process.cwd()) == self.folder
                ):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def job(self) -> psutil.Process | None:
        found = self.jobs()
        return self.chance.choice(found) if found else None

    def stop(self) -> None:
        """End the driver and all jobs at once."""
        if self.driver and self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()
        for process in self.jobs():
            with suppress(psutil.Error):
                process.kill()

    def later(self, low_s: float, high_s: float, heal: Callable[[], None]) -> None:
        self.healing.append((time.monotonic() + self.chance.uniform(low_s, high_s), heal))

    def heal(self, everything: bool = False) -> None:
        due = [entry for entry in self.healing if everything or entry[0] <= time.monotonic()]
        self.healing = [entry for entry in self.healing if entry not in due]
        for _, heal in due:
            heal()

    def repair(self) -> None:
        """What `python -m pollination verify` says must be made again is deleted, as it says."""
        words = [
            sys.executable,
            "-m",
            "pollination",
            "verify",
            "--configfile",
            str(self.configfile),
            "--names",
        ]
        found = subprocess.run(
            words,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert found.returncode in (0, 1) or "no such folder" in found.stderr, found.stderr
        for name in found.stdout.split():
            (self.folder / name).unlink(missing_ok=True)
            self.damaged.add(name)

    def complete(self) -> None:
        """Heal all, run to the end undisturbed."""
        self.heal(everything=True)
        for _ in range(
            3
        ):  # jobs that were hurt before the healing may still fail the driver that waits for them
            if self.driver is None or self.driver.poll() not in (None, 0):
                self.repair()
                self.start()
            if self.driver.wait(4 * END_S) == 0 and self.make_again():
                return
        raise AssertionError(f"the undisturbed run does not end well:\n{self.last_words()}")

    def last_words(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")[-6000:]

    def compare(self, reference: dict[str, str]) -> None:
        """AssertionError names what is not as in the reference."""
        self.repair()
        assert self.make_again(), self.last_words()
        same(digests(self.results), reference)
        assert not leftovers(self.results), leftovers(self.results)
        self.completed += 1

    def make_again(self) -> bool:
        """What was deleted as damaged is asked for by name, as verify says: some of it nothing else
        may need; then what depends on it.
        """
        if self.damaged:
            for targets in (sorted(self.damaged), ()):
                self.start(*targets)
                if self.driver.wait(4 * END_S):
                    return False
            self.damaged.clear()
        return True

    # --- the campaign

    def run(
        self, reference: dict[str, str], kinds: list[str], enough: Callable[[Counter], bool]
    ) -> None:
        """Break things until `enough(faults)`, then complete and compare."""
        begun_s = time.monotonic()
        waiting: list[str] = []
        while not enough(self.faults):
            if self.driver is None or self.driver.poll() is not None:
                if self.driver and self.driver.returncode == 0:
                    self.complete()
                    self.compare(reference)
                    self.say(
                        f"{time.monotonic() - begun_s:7.0f} s  a run is complete and equals the "
                        "reference; begun anew"
                    )
                    self.begin_anew()
                self.heal(everything=True)
                self.repair()
                self.start()
            time.sleep(self.chance.uniform(*self.interval_s))
            self.heal()
            if not waiting:  # all kinds come equally often
                waiting = self.chance.sample(kinds, len(kinds))
            kind = waiting.pop()
            if self.driver.poll() is not None:
                continue
            told = FAULTS[kind](self)
            if told:
                self.faults[kind] += 1
                self.say(f"{time.monotonic() - begun_s:7.0f} s  {kind}: {told}")
        self.complete()
        self.compare(reference)
        self.say(
            f"{time.monotonic() - begun_s:7.0f} s  completed undisturbed: equal to the reference"
        )

    def begin_anew(self) -> None:
        for path in (*self.results.parent.iterdir(), self.folder / ".snakemake"):
            shutil.rmtree(path, ignore_errors=True)
        self.driver = None
        self.damaged.clear()


# --- faults: each says what it did, or None where there was nothing to break at this moment

FAULTS: dict[str, Callable[[Campaign], str | None]] = {}


def fault(function: Callable[[Campaign], str | None]) -> Callable[[Campaign], str | None]:
    FAULTS[function.__name__] = function
    return function


@fault
def kill_driver(campaign: Campaign) -> str:
    """Its jobs go on without it."""
    campaign.driver.kill()
    campaign.driver.wait()
    return f"SIGKILL to the driver; {len(campaign.jobs())} jobs go on"


@fault
def kill_driver_and_jobs(campaign: Campaign) -> str:
    count = len(campaign.jobs())
    os.killpg(campaign.driver.pid, signal.SIGKILL)
    campaign.driver.wait()
    return f"SIGKILL to the driver's process group, {count} jobs"


@fault
def interrupt_driver(campaign: Campaign) -> str:
    campaign.driver.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        campaign.driver.wait(60)
        return "SIGINT to the driver, which ended"
    os.killpg(campaign.driver.pid, signal.SIGKILL)
    campaign.driver.wait()
    return "SIGINT to the driver, SIGKILL 60 s later"


def signal_job(campaign: Campaign, number: int) -> str | None:
    job = campaign.job()
    if job is None:
        return None
    with suppress(psutil.Error):
        job.send_signal(number)
    return f"{signal.Signals(number).name} to job {job.pid}"


@fault
def kill_job(campaign: Campaign) -> str | None:
    return signal_job(campaign, signal.SIGKILL)


@fault
def end_job(campaign: Campaign) -> str | None:
    return signal_job(campaign, signal.SIGTERM)


@fault
def freeze_job(campaign: Campaign) -> str | None:
    job = campaign.job()
    if job is None:
        return None
    with suppress(psutil.Error):
        job.suspend()

    def thaw() -> None:
        with suppress(psutil.Error):
            job.resume()

    campaign.later(2, 25, thaw)  # a lease is taken over after 9 s of silence
    return f"job {job.pid} stands still"


@fault
def fail_writes(campaign: Campaign) -> str | None:
    """No file of the job may grow beyond a limit: the kernel refuses the write (EFBIG)."""
    job = campaign.job()
    if job is None:
        return None
    limit = campaign.chance.choice((0, 512, 4096, 30_000))
    with suppress(psutil.Error):
        job.rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
    return f"writes of job {job.pid} fail beyond {limit} bytes"


@fault
def fail_rename(campaign: Campaign) -> str | None:
    """A folder with something in it lies where a file is to be renamed to."""
    absent = [path for path in sorted(campaign.results.rglob(".*.work")) if path.is_dir()]
    names = {".train.work": "model.safetensors", ".evaluate.work": "scores.json"}
    targets = [path.parent / names[path.name] for path in absent if path.name in names]
    targets = [path for path in targets if not path.exists()]
    if not targets:
        return None
    target = campaign.chance.choice(targets)
    with suppress(OSError):
        (target / "in the way").mkdir(parents=True)
    campaign.later(
        1, 10, lambda: shutil.rmtree(target, ignore_errors=True) if target.is_dir() else None
    )
    return f"{target.relative_to(campaign.results)} is a folder"


@fault
def flip_byte(campaign: Campaign) -> str | None:
    """In a finished artifact, and its time stamp stays: whoever reads it must notice, and verify
    must name it.
    """
    files = []
    for record in campaign.results.rglob("*run.json"):
        with suppress(OSError, ValueError):
            files += [
                record,
                *(record.parent / name for name in artifacts.read_record(record)["outputs"]),
            ]
    files = sorted(path for path in files if path.is_file() and path.stat().st_size)
    if not files:
        return None
    path = campaign.chance.choice(files)
    place = campaign.chance.randrange(path.stat().st_size)
    with suppress(OSError):
        times = path.stat()
        with open(path, "r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 0x40]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"byte {place:,} of {path.relative_to(campaign.results)}"


@fault
def fill_disk(campaign: Campaign) -> str | None:
    filler = campaign.results.parent / "filler"
    with suppress(OSError), open(filler, "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    campaign.later(1, 10, lambda: filler.unlink(missing_ok=True))
    return f"{filler.stat().st_size / 2**20:,.0f} MiB written: the disk is full"


@fault
def change_clock(campaign: Campaign) -> str:
    days = campaign.chance.choice((-4000, -30, -0.5, 0.5, 30, 4000))
    campaign.clock.write_text(f"{days:+}d\n")
    campaign.later(1, 20, lambda: campaign.clock.write_text("+0\n"))
    return f"the clock of driver and jobs jumps by {days:+} days"


@fault
def cancel_job(campaign: Campaign) -> str | None:
    running = [job["JobId"] for job in campaign.cluster.jobs() if job["JobState"] == "RUNNING"]
    if not running:
        return None
    job = campaign.chance.choice(running)
    subprocess.run(("scancel", job), capture_output=True)
    return f"scancel {job}"


@fault
def kill_controller(campaign: Campaign) -> str:
    campaign.cluster.kill("slurmctld")
    campaign.later(1, 10, lambda: campaign.cluster.restart("slurmctld"))
    return "SIGKILL to slurmctld"


@fault
def kill_node(campaign: Campaign) -> str:
    """With its slurmd dead the node is lost after SlurmdTimeout, though the job's processes live
    on.
    """
    node = campaign.chance.choice(campaign.cluster.names)
    campaign.cluster.kill(f"slurmd-{node}")
    campaign.later(5, 25, lambda: campaign.cluster.restart(f"slurmd-{node}"))
    return f"SIGKILL to slurmd of {node}"


@fault
def lose_node(campaign: Campaign) -> str:
    node = campaign.chance.choice(campaign.cluster.names)
    words = ("scontrol", "update", f"nodename={node}")
    subprocess.run((*words, "state=down", "reason=chaos"), capture_output=True)
    campaign.later(2, 15, lambda: subprocess.run((*words, "state=resume"), capture_output=True))
    return f"node {node} is down"


# --- what a machine can have


def faketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def small_disk(folder: Path, size_bytes: int) -> str | None:
    """Put the results of `folder` on a file system of `size_bytes`; why not, where it cannot be
    done.
    """
    (folder / "results").mkdir()
    if os.geteuid() or not sys.platform.startswith("linux"):
        return "a disk that can be filled needs a tmpfs, and that needs root"
    words = ("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder / "results"))
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stderr.strip() or "mount failed" if done.returncode else None


SLURM_ONLY = ("cancel_job", "kill_controller", "kill_node", "lose_node")
ON_A_DISK_THAT_FILLS = 3  # times the size of a finished run


def prepare(campaign: Campaign, reference_bytes: int) -> tuple[list[str], dict[str, str]]:
    """The faults that can be had here, and why others cannot."""
    absent = {name: "--slurm was not given" for name in SLURM_ONLY if campaign.cluster is None}
    if reason := small_disk(campaign.folder, ON_A_DISK_THAT_FILLS * reference_bytes):
        absent["fill_disk"] = reason
    if faketime() is None and (reason := install("faketime")):
        absent["change_clock"] = reason
    elif campaign.cluster:
        absent["change_clock"] = "jobs of Slurm take no library from the driver's environment"
    else:
        campaign.clock = campaign.folder / "clock/offset"
        campaign.clock.parent.mkdir()
        campaign.clock.write_text("+0\n")
        (campaign.clock.parent / "sitecustomize.py").write_text(SLEEP)
    if not hasattr(psutil.Process, "rlimit"):
        absent["fail_writes"] = "this system has no file-size limit for running processes"
    return [name for name in FAULTS if name not in absent], absent


def clean(folder: Path) -> None:
    subprocess.run(("umount", "-l", str(folder / "results")), capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def reference(configfile: Path, say: Callable[[str], None] = print) -> tuple[dict[str, str], int]:
    """Digests and bytes of an undisturbed run."""
    folder = Path(tempfile.mkdtemp(prefix="reference."))
    try:
        campaign, begun_s = Campaign(folder, configfile, random.Random(0)), time.monotonic()
        campaign.start()
        assert campaign.driver.wait(8 * END_S) == 0, campaign.last_words()
        size = sum(
            path.stat().st_blocks * 512
            for path in folder.joinpath("results").rglob("*")
            if path.is_file()
        )
        say(f"the reference took {time.monotonic() - begun_s:.0f} s, {size / 2**20:.0f} MiB")
        return digests(campaign.results), size
    finally:
        clean(folder)


def campaign(
    configfile: Path,
    seed: int,
    enough: Callable[[Counter], bool],
    undisturbed: tuple[dict[str, str], int],
    slurm: bool = False,
    interval_s: tuple[float, float] = (3.0, 15.0),
    kinds: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
) -> Campaign:
    """Run a campaign to its end. AssertionError: something was lost, differs, or does not end."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and so would the driver
    folder, cluster = Path(tempfile.mkdtemp(prefix="chaos.")).resolve(), None
    if slurm:
        if reason := missing():
            raise ValueError(f"--slurm: {reason}")
        cluster = Cluster()
        cluster.start()
    run = Campaign(folder, configfile, random.Random(seed), cluster, interval_s, say)
    try:
        possible, absent = prepare(run, undisturbed[1])
        for name, reason in absent.items():
            say(f"left out: {name}: {reason}")
        run.run(undisturbed[0], [name for name in possible if not kinds or name in kinds], enough)
        logs = [folder / "driver.log", *(run.results / "logs").rglob("*.log")]
        run.tracebacks = tracebacks("\n".join(path.read_text(errors="replace") for path in logs))
    except BaseException:
        say(f"{configfile.name}, seed {seed}: {dict(run.faults)}")
        raise
    finally:
        run.heal(everything=True)
        run.stop()
        if cluster:
            cluster.stop()
        clean(folder)
    return run


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--configfile",
        type=lambda name: Path(name).resolve(),
        default=ROOT / "config/config.yaml",
        help="the workflow (default: the demo)",
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--hours", type=float, help="break things for so long")
    length.add_argument("--kills", type=int, help=f"until so many kills: {', '.join(KILLS)}")
    length.add_argument("--faults", type=int, help="until so many faults of any kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--slurm",
        action="store_true",
        help="on a real Slurm with virtual nodes, started for it (root, Debian's packages)",
    )
    parser.add_argument(
        "--every",
        type=float,
        nargs=2,
        default=(3.0, 15.0),
        metavar=("LOW", "HIGH"),
        help="seconds between faults",
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=(),
        choices=list(FAULTS),
        metavar="FAULT",
        help=f"of {', '.join(FAULTS)}",
    )
    given = parser.parse_args(words)
    say, end_s = lambda line: print(line, flush=True), None
    undisturbed = reference(given.configfile, say)
    end_s = time.monotonic() + 3600 * (given.hours or 0)

    def enough(faults: Counter) -> bool:
        if given.hours:
            return time.monotonic() >= end_s
        return (
            faults.total() >= given.faults
            if given.faults
            else sum(faults[name] for name in KILLS) >= given.kills
        )

    begun_s = time.monotonic()
    run = campaign(
        given.configfile,
        given.seed,
        enough,
        undisturbed,
        given.slurm,
        tuple(given.every),
        tuple(given.only),
        say,
    )
    found = {
        "faults": dict(sorted(run.faults.items())),
        "kills": sum(run.faults[name] for name in KILLS),
        "drivers": run.starts,
    }
    found |= {
        "completed": run.completed,
        "tracebacks": Counter(run.tracebacks),
        "minutes": round((time.monotonic() - begun_s) / 60, 1),
    }
    found |= {
        "seed": given.seed,
        "config": given.configfile.name,
        "slurm": given.slurm,
        "artifacts": len(undisturbed[0]),
    }
    say(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
