"""The workflow under test: its drivers, its jobs, and its repair with `pollination verify`."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from tests.chaos.comparison import Reference, digests, leftovers, same, tracebacks
from tests.chaos.machine import Abilities
from tests.chaos.tally import Hang, Tally
from tests.slurm import Cluster

ROOT = Path(__file__).parent.parent.parent
FULL_DISK = re.compile(r"^OSError: \[Errno (?:28|122)\]", re.M)  # ENOSPC, EDQUOT
GONE_S = 60.0  # Slurm may list a job for so long after its processes
END_S = 900.0  # a driver without faults ends within this time


def quick_options(profile: Path) -> list[str]:
    """Options that make a driver look often at its jobs, under the names that the profile has."""
    text = (profile / "config.yaml").read_text()
    names = re.findall(r"(?m)^(\S*init-seconds-before-status-checks|latency-wait):", text)
    return [
        word for name in names for word in (f"--{name}", "10" if name == "latency-wait" else "1")
    ]


@dataclass
class Workflow:
    """A run in `folder` with a copy of a config. `end_s` bounds every wait."""

    folder: Path
    original: Path
    chance: random.Random
    cluster: Cluster | None = None
    end_s: float = END_S
    tally: Tally = field(default_factory=Tally)
    able: Abilities = field(default_factory=Abilities)
    driver: subprocess.Popen | None = None
    drivers: list[subprocess.Popen] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.configfile = self.folder / "config" / self.original.name
        self.configfile.parent.mkdir()
        self.restore_config()

    def restore_config(self) -> None:
        self.configfile.write_bytes(self.original.read_bytes())

    @property
    def results(self) -> Path:
        return self.folder / "results" / yaml.safe_load(self.original.read_text())["run"]

    # --- drivers and jobs

    def command(self, *words: str) -> list[str]:
        profile = ROOT / "profiles" / ("slurm" if self.cluster else "local")
        return [
            sys.executable,
            "-m",
            "snakemake",
            *("--snakefile", str(ROOT / "Snakefile")),
            *("--directory", str(self.folder)),
            *("--profile", str(profile)),
            *(quick_options(profile) if self.cluster else ("--cores", "2")),
            *words,
            *("--configfile", str(self.configfile)),
        ]

    def environment(self) -> dict[str, str]:
        here = os.environ | {"POLLINATION_SAVE_EVERY_S": "0.5", "POLLINATION_BEAT_S": "1"}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        if self.able.commands:
            here["PATH"] = f"{self.able.commands}:{here['PATH']}"
        if self.able.clock:
            here |= self.able.clock.environment()
            paths.insert(0, str(self.able.clock.folder))
        return here | {"PYTHONPATH": ":".join(paths)}

    def run(self, words: list[str], what: str, **process) -> subprocess.CompletedProcess:
        """Hang: the command does not end."""
        try:
            return subprocess.run(
                words,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.end_s,
                env=self.environment(),
                **process,
            )
        except subprocess.TimeoutExpired:
            raise Hang(f"{what} does not end within {self.end_s:.0f} s") from None

    def start(self, *targets: str, elsewhere: bool = False) -> None:
        """Start a driver; `elsewhere`, one that takes this machine for another one."""
        self.restore_config()
        self.collect()
        # Only a killed driver leaves a lock.
        if any(self.folder.glob(".snakemake/locks/*")):
            self.run(self.command("--unlock"), "snakemake --unlock")
        self.tally.drivers += 1
        words = [*self.command(), *(("--", *targets) if targets else ())]
        with open(self.folder / "driver.log", "a") as log:
            self.driver = subprocess.Popen(
                self.able.elsewhere(words) if elsewhere else words,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.environment(),
            )
        self.drivers.append(self.driver)

    def jobs(self) -> list[psutil.Process]:
        """The processes of this run's jobs, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if (
                    ".snakemake/scripts" in " ".join(process.cmdline())
                    and Path(process.cwd()) == self.folder
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def job(self) -> psutil.Process | None:
        found = self.jobs()
        return self.chance.choice(found) if found else None

    def kill_driver(self, jobs: bool = False) -> None:
        """SIGKILL to the driver, or to its process group."""
        (os.killpg if jobs else os.kill)(self.driver.pid, signal.SIGKILL)
        self.driver.wait(60)

    def stop(self) -> None:
        """End all drivers and jobs at once."""
        for driver in self.drivers:
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait(60)
        for process in self.jobs():
            with suppress(psutil.Error):
                process.kill()

    def until_ended(self) -> int:
        """The driver's exit status. Hang: it does not end."""
        try:
            return self.driver.wait(self.end_s)
        except subprocess.TimeoutExpired:
            raise Hang(
                f"a driver does not end within {self.end_s:.0f} s, without any fault, while "
                f"{len(self.jobs())} jobs run; its last words:\n{self.last_words()}"
            ) from None

    def until_quiet(self) -> None:
        """Wait for jobs that killed drivers left, and cancel those that have not begun, or whose
        processes are gone: a killed controller may go on listing them. Hang: they do not end.
        """
        end, seen = time.monotonic() + self.end_s, time.monotonic()
        while left := self.jobs() or self.queued():
            if self.jobs():
                seen = time.monotonic()
            elif self.cluster and time.monotonic() - seen > GONE_S:
                with suppress(AssertionError, subprocess.TimeoutExpired):
                    self.cluster.clear()
            if time.monotonic() > end:
                raise Hang(f"jobs do not end within {self.end_s:.0f} s: {left}")
            time.sleep(1)

    def queued(self) -> list[str]:
        """Jobs in Slurm's queue, whose pending ones are cancelled; [] without Slurm."""
        if self.cluster is None:
            return []
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ("scancel", "--state=PENDING", "--user=root"), capture_output=True, timeout=30
            )
            found = subprocess.run(
                ("squeue", "-h", "-o", "%i"), capture_output=True, text=True, timeout=30
            )
            return found.stdout.split() if found.returncode == 0 else ["(squeue fails)"]
        return ["(squeue does not end)"]

    def last_words(self) -> str:
        log = self.folder / "driver.log"
        return log.read_text(errors="replace")[-6000:] if log.exists() else "(none)"

    def collect(self) -> None:
        """Note the tracebacks of all logs: the next attempt of a job overwrites its log."""
        logs = [self.folder / "driver.log", *(self.results / "logs").rglob("*.log")]
        logs += self.folder.glob(".snakemake/slurm_logs/**/*.log")
        for path in logs:
            with suppress(OSError):
                text = path.read_text(errors="replace")
                # Snakemake itself cannot start a job on a full disk; the driver's line explains it.
                if "slurm_logs" in path.parts and FULL_DISK.search(text):
                    continue
                if found := tracebacks(text):
                    name = path.relative_to(self.folder).as_posix()
                    self.tally.seen.setdefault(name, set()).update(found)

    # --- repair, completion, comparison

    def repair(self) -> None:
        """Delete what `python -m pollination verify` says must be recomputed."""
        self.restore_config()
        words = [sys.executable, "-m", "pollination", "verify", "--names"]
        words += ["--configfile", str(self.configfile)]
        found = self.run(words, "pollination verify", cwd=self.folder)
        assert found.returncode in (0, 1) or "no such folder" in found.stderr, found.stderr
        if told := tracebacks(found.stderr):
            self.tally.seen.setdefault("verify", set()).update(told)
        for name in found.stdout.split():
            (self.folder / name).unlink(missing_ok=True)
            self.damaged.add(name)

    def make_again(self) -> bool:
        """Ask for the deleted files by name, as verify says, because nothing else may need some of
        them; then for all that depends on them.
        """
        if self.damaged:
            for targets in (sorted(self.damaged), ()):
                self.start(*targets)
                if self.until_ended():
                    return False
            self.damaged.clear()
        return True

    def complete(self) -> None:
        """Run to the end without faults."""
        # Jobs that a fault hit before may still fail the driver that waits for them.
        for _ in range(3):
            if self.driver is None or self.driver.poll() not in (None, 0):
                self.repair()
                self.start()
            if self.until_ended() == 0 and self.make_again():
                return
        raise AssertionError(f"the undisturbed run does not end well:\n{self.last_words()}")

    def compare(self, reference: Reference) -> None:
        """AssertionError names what is not as in the reference."""
        self.until_quiet()
        self.repair()
        assert self.make_again(), self.last_words()
        same(digests(self.results), reference.digests)
        assert not leftovers(self.results), leftovers(self.results)
        self.tally.completed += 1

    def begin_anew(self) -> None:
        self.collect()
        for path in (*self.results.parent.iterdir(), self.folder / ".snakemake"):
            shutil.rmtree(path, ignore_errors=True)
        self.driver = None
        self.damaged.clear()
