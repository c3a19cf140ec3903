"""Faults of drivers and jobs: signals, limits, a clock that jumps, a driver that stands still."""

import json
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from pollination.core.worker import TITLE as WORKER
from tests.chaos.campaign import Campaign
from tests.chaos.registry import fault
from tests.chaos.tally import Hang

STOP_S = 120  # a driver that has lost its run ends within this time


@fault
def kill_driver(campaign: Campaign) -> str:
    """Its jobs go on without it."""
    campaign.kill_driver()
    return f"SIGKILL to the driver; {len(campaign.jobs())} jobs go on"


@fault
def kill_driver_and_jobs(campaign: Campaign) -> str:
    count = len(campaign.jobs())
    campaign.kill_driver(jobs=True)
    return f"SIGKILL to the driver's process group, {count} jobs"


@fault
def interrupt_driver(campaign: Campaign) -> str:
    campaign.driver.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        campaign.driver.wait(60)
        return "SIGINT to the driver, which ended"
    campaign.tally.interrupted_in_vain += 1
    campaign.kill_driver(jobs=True)
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
def kill_worker(campaign: Campaign) -> str | None:
    """The process that forks the jobs takes them along; new interpreters run them again."""
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cmdline()[:1] == [WORKER] and Path(process.cwd()) == campaign.folder:
                process.kill()
                count += 1
    return f"SIGKILL to {count} workers" if count else None


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


def lease_holders(folder: Path) -> set[int]:
    """Process ids in the leases of a folder, as far as they can be read."""
    found = set()
    for path in folder.glob("lease.*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.add(json.loads(path.read_text())["pid"])
    return found


@fault
def freeze_driver(campaign: Campaign) -> str | None:
    """A second driver starts meanwhile, on this machine or as if on another one. It may be refused.
    If it takes over, the first must stop as soon as it wakes up.
    """
    first, place = campaign.driver, campaign.results / ".driver"
    if first.pid not in lease_holders(place):
        return None
    other = bool(campaign.able.boot) and campaign.chance.random() < 0.7
    first.send_signal(signal.SIGSTOP)
    campaign.start(elsewhere=other)
    second, end = campaign.driver, time.monotonic() + STOP_S
    while second.poll() is None and second.pid not in lease_holders(place):
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    taken = second.poll() is None and second.pid in lease_holders(place)
    time.sleep(campaign.chance.uniform(0, 5))
    first.send_signal(signal.SIGCONT)
    campaign.driver = first if second.poll() is not None else second
    where = "on another machine" if other else "on this machine"
    end = time.monotonic() + STOP_S
    while first.poll() is None and second.poll() is None:
        if time.monotonic() > end:
            first.kill()
            raise Hang(
                f"two drivers work on one run: the first stood still, the second {where} "
                f"{'took over' if taken else 'waits'}, and the first has gone on for {STOP_S} s; "
                f"last words:\n{campaign.last_words()}"
            )
        time.sleep(0.2)
    campaign.driver = first if second.poll() is not None else second
    if taken:
        return f"the driver stood still; a second one {where} took over"
    return f"the driver stood still; a second one {where} ended with {second.poll()}"


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
def exhaust_memory(campaign: Campaign) -> str | None:
    """The kernel kills the job at its next allocation, as a cluster's memory limit does."""
    job, group = campaign.job(), campaign.able.memory
    if job is None:
        return None
    before, end = group.killed(), time.monotonic() + 10
    with suppress(OSError):  # it has ended
        group.take(job.pid)
    while job.is_running() and group.killed() == before and time.monotonic() < end:
        time.sleep(0.1)
    killed = "the kernel killed it" if group.killed() > before else "not killed within 10 s"
    return f"job {job.pid} gets no more memory; {killed}"


@fault
def change_clock(campaign: Campaign) -> str:
    days = campaign.chance.choice((-4000, -30, -0.5, 0.5, 30, 4000))
    clock = campaign.able.clock
    clock.move(f"{days:+}d")
    campaign.later(1, 20, lambda: clock.move("+0"))
    return f"the clock of driver and jobs jumps by {days:+} days"
