"""Tell whether a run's driver (the snakemake process) lives, and how its jobs stand in Slurm."""

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pollination.cli.common import span
from pollination.core import sanitize
from pollination.core.driver import FOLDER
from pollination.core.holder import describe, look, suspended

QUEUE = "jobs.json"  # the executor writes it after each status check
STALE_S = 900.0  # the executor asks Slurm every three minutes or more often
LARGEST = 1 << 24  # bytes of jobs.json that are read
ASK_SITE = "the site refuses it; correct slurm_account, slurm_partition and runtime in the profile"
TYPE = {  # Slurm's reason -> what to do about it
    "JobHeldAdmin": "an administrator holds it; ask for: scontrol release {id}",
    "JobHeldUser": "its user holds it; type: scontrol release {id}",
    "launch failed requeued held": "Slurm could not start it; type: scontrol release {id}",
    "JobHoldMaxRequeue": "it was requeued too often; type: scontrol release {id}",
    "BadConstraints": "no node fits; correct gpu_model, mem_mb and threads in the profile",
    "PartitionTimeLimit": "it asks for more time than the partition allows; lower its runtime",
    "PartitionNodeLimit": "it asks for more nodes than the partition has",
    "PartitionDown": "the partition is down; ask the site, or choose another slurm_partition",
    "PartitionInactive": "the partition is down; ask the site, or choose another slurm_partition",
    "InvalidAccount": ASK_SITE,
    "InvalidQOS": ASK_SITE,
    "AccountNotAllowed": ASK_SITE,
    "ReqNodeNotAvail": "the nodes that it needs are down or reserved; it starts by itself later",
}


@dataclass(frozen=True)
class Queued:
    """A job in Slurm: its number, state, reason, and how often Slurm restarted it."""

    slurm: str
    state: str
    reason: str
    restarts: int

    @property
    def text(self) -> str:
        """Return its state, reason and restarts, and what to do."""
        reason = self.reason.split(",")[0].strip("() ")
        known = TYPE.get(reason) or TYPE.get(reason.split("_")[0])
        advice = known.format(id=self.slurm) if known else ""
        parts = [self.state.lower(), self.reason if reason not in ("", "None") else "", advice]
        if self.restarts:
            parts.append(f"restarted {self.restarts} times")
        return f"Slurm job {self.slurm}: {'; '.join(filter(None, parts))}"


@dataclass(frozen=True)
class Driver:
    """The driver of a run. `text` is one line; `command` resumes the run, if it is known."""

    alive: bool = False
    text: str = "no driver is alive"
    holder: str | None = None
    since_s: float | None = None
    silent_s: float | None = None
    command: str | None = None
    killed: bool = False
    problem: str = ""
    queue: dict[str, Queued] = field(default_factory=dict)
    """First output below the run's folder -> its job in Slurm."""

    @property
    def profile(self) -> str:
        """Return the profile in the driver's command, for another command on the same run."""
        found = re.search(r"(?<!\S)--profile[ =](\S+)", self.command or "")
        return found[1] if found else "profiles/local"


def find_driver(results: str, now_s: float) -> Driver:
    """Return the state of a run's driver, from its lease and its list of Slurm jobs."""
    seen = look(Path(results, FOLDER), now_s)
    if seen is None:
        return Driver(text="no driver has worked on this run yet")
    who, holder = describe(seen.holder), seen.holder
    since_s = _number(holder.get("since"))
    command = sanitize.line(holder["command"]) if isinstance(holder.get("command"), str) else None
    ago = f"{span(seen.silent_s)} ago"
    if seen.alive:
        began = f" since {_time(since_s)}" if since_s else ""
        text = f"driver: {who} works on this run{began}; last beat {ago}"
        if suspended(holder):
            text += f"; it is suspended: to resume it, type kill -CONT {holder['pid']} there"
        queue, problem = _queue(Path(results, FOLDER, QUEUE), now_s, since_s or 0.0)
        return Driver(True, text, who, since_s, seen.silent_s, command, False, problem, queue)
    if holder["released"]:
        text = f"no driver is alive: {who} ended {ago}"
    elif holder.get("unreadable"):
        text = f"no driver is alive, as far as can be seen: {holder['unreadable']}"
    else:
        text = f"no driver is alive: {who} died without releasing its lease; last beat {ago}"
    killed = not holder["released"]
    return Driver(False, text, who, since_s, seen.silent_s, command, killed)


def _queue(path: Path, now_s: float, since_s: float) -> tuple[dict[str, Queued], str]:
    """Return the Slurm jobs of the driver that lives since `since_s`, and the driver's problem."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}, ""
    checked_s = _number(content.get("checked")) if isinstance(content, dict) else None
    if checked_s is None or checked_s < since_s - 1:  # an earlier driver's
        return {}, ""
    problem = content.get("problem")
    problem = sanitize.line(problem) if isinstance(problem, str) else ""
    if now_s - checked_s > STALE_S:
        return {}, problem or f"the driver last asked Slurm {span(now_s - checked_s)} ago"
    entries = content.get("jobs")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(output := entry.get("output"), str):
            restarts = entry.get("restarts")
            slurm, state, reason = (
                sanitize.line(entry.get(key) or "", 200) for key in ("slurm", "state", "reason")
            )
            found["/".join(output.split("/")[2:])] = Queued(
                slurm, state, reason, restarts if type(restarts) is int else 0
            )
    return found, problem


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 2**40 else None


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
