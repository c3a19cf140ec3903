"""Read the state of a run from its files alone, on any node and at any time.

A job is done if its output exists. It is running if its lease is alive or, if it holds no lease, if
its log is young and a driver is alive. It failed or stopped if its last log message says so, and
also stopped if it is no longer running. It waits if it has no log, or if it had finished and its
output was deleted. A finished job is outdated if its record has other settings than the plan.
"""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from pollination.cli.common import span
from pollination.cli.runs.differences import Difference, differences, outdated
from pollination.cli.runs.drivers import Driver, Queued, find_driver
from pollination.cli.runs.remaining import remaining_s, timings
from pollination.core import pin, sanitize
from pollination.core.holder import describe, look
from pollination.plan import pruning
from pollination.plan.jobs import Work, jobs
from pollination.plan.plan import Plan
from pollination.plan.saved import saved_config

YOUNG_S = 600.0  # a job without a lease has ended if its log is older than this
SKEW_S = 60.0  # by which the clocks of a file system and of a driver may differ
TAIL_BYTES = 4096
STATES = ("done", "running", "failed", "stopped", "waiting")
OUTDATED = "outdated"


@dataclass(frozen=True)
class JobState:
    """A job, its state (one of STATES, or OUTDATED), details, and its Slurm job if it has one."""

    work: Work
    state: str
    text: str
    queued: Queued | None


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment. `config`: the path of the config that the run has saved."""

    plan: Plan
    jobs: list[JobState]
    driver: Driver
    config: str
    differences: list[Difference]
    notes: list[str]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        found = Counter(job.state for job in self.jobs)
        return {name: found[name] for name in (*STATES, OUTDATED)}

    @property
    def complete(self) -> bool:
        return self.counts["done"] == len(self.jobs)

    @cached_property
    def left_s(self) -> float | None:
        """Return the estimated seconds left; None if nothing is known."""
        return remaining_s([(job.work, job.state) for job in self.jobs], self.plan.results)


@cache
def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(path.name for path in Path(folder).iterdir())
    except OSError:
        return frozenset()


def last_line(log: str) -> str:
    """Return the job's last log message without its time; "" if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # The job's own messages begin with a time; a traceback may follow them.
    told = [line for line in lines if re.match(r"\d{4}-\d\d-\d\d ", line)]
    return sanitize.line(told[-1].split(" ", 2)[-1]) if told else ""


def was_interrupted(log: str) -> bool:
    """Return whether a job ended by Ctrl-C before it could say so in its log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            return file.read().rstrip().endswith(b"KeyboardInterrupt")
    except OSError:
        return False


def _is_there(path: str) -> bool:
    folder, name = path.rsplit("/", 1)
    return name in _names(folder)


def _had_finished(work: Work, results: str) -> bool:
    """Return whether a job's last start finished: Snakemake wrote its timings after its log."""
    try:
        return os.stat(timings(work, results)).st_mtime >= os.stat(work.log).st_mtime
    except OSError:
        return False


def _state(
    work: Work, now_s: float, driver: Driver, queued: Queued | None, results: str
) -> tuple[str, str]:
    """Return the state of a job that has not finished, and its details."""
    folder = work.output.rsplit("/", 1)[0]
    log_folder, log_name = work.log.rsplit("/", 1)
    has_log = log_name in _names(log_folder)
    told = last_line(work.log) if has_log else ""
    level, _, text = told.partition(" ")
    said = text if level == "INFO" else "starting"
    if work.lease in _names(folder):
        seen = look(Path(folder, work.lease), now_s)
        if seen and seen.alive:
            return "running", f"{said} ({describe(seen.holder)})"
        if seen and not seen.holder["released"]:
            died = f"{describe(seen.holder)} died without releasing its lease"
            if seen.holder.get("unreadable"):
                died = f"its lease cannot be read: {seen.holder['unreadable']}"
            return "stopped", f"{died}; last beat {span(seen.silent_s)} ago; last message: " + (
                text or "none"
            )
    if queued and queued.state == "PENDING":
        return "waiting", queued.text
    if queued and queued.state in ("RUNNING", "COMPLETING", "CONFIGURING"):
        return "running", f"{said} (Slurm job {queued.slurm})"
    if not has_log:
        return "waiting", ""
    if _had_finished(work, results):
        return "waiting", "it had finished; its output was deleted"
    if was_interrupted(work.log):
        return "stopped", "interrupted while it was starting"
    if level == "ERROR":
        return "stopped" if ": stopped by " in text else "failed", text.removeprefix("error: ")
    if driver.alive and _is_young(work.log, now_s, driver.since_s):
        return "running", text or "starting"
    return "stopped", text or "no log message"


def _is_young(log: str, now_s: float, since_s: float | None) -> bool:
    """Return whether a job of the driver that lives since `since_s` may still write to its log."""
    try:
        written_s = Path(log).stat().st_mtime
    except OSError:
        return False
    return now_s - written_s < YOUNG_S and written_s > (since_s or 0.0) - SKEW_S


def take(plan: Plan, works: list[Work] | None = None) -> Snapshot:
    """Return the state of a run now. `works` are the jobs of the plan, if they are known."""
    _names.cache_clear()
    now_s = time.time()
    driver = find_driver(plan.results, now_s)
    saved = saved_config(plan.results)
    config, content = (str(saved[0]), saved[1]) if saved else ("", None)
    found = [] if content is None else differences(plan, content)
    pruned = pruning.pruned(plan)
    works = list(jobs(plan)) if works is None else works
    finished = [work for work in works if work.output in pruned or _is_there(work.output)]
    ended = dict.fromkeys((work.output for work in finished), "done")
    ended |= dict.fromkeys(outdated(plan, found, finished), OUTDATED)
    states = []
    for work in works:
        queued = driver.queue.get(work.output.removeprefix(f"{plan.results}/"))
        if work.output in ended:
            state, text = ended[work.output], ""
        else:
            state, text = _state(work, now_s, driver, queued, plan.results)
        states.append(JobState(work, state, text, queued))
    return Snapshot(plan, states, driver, config, found, pin.notes(Path(plan.results)))
