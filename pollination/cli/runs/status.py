"""Read the state of a run from its files alone, on any node and at any time.

A job is done if its output exists. It is running if its lease is alive or, if its rule takes no
lease, if its log is young. It failed or stopped if its last log message says so, and also stopped
if it is no longer running. It waits if it has no log.
"""

import re
import time
from collections import Counter
from functools import cache
from pathlib import Path

from pollination.core import sanitize
from pollination.core.lease import MISSED, describe, newest
from pollination.plan import pruning
from pollination.plan.jobs import Work, jobs
from pollination.plan.plan import Plan

YOUNG_S = 600.0  # a job without a lease has ended if its log is older than this
SHOWN = 12  # jobs of one state that are listed one by one
TAIL_BYTES = 4096
STATES = ("done", "running", "failed", "stopped", "waiting")


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


def state(work: Work, now_s: float, pruned: set[str]) -> tuple[str, str]:
    """Return a job's state (one of STATES) and its details."""
    folder, name = work.output.rsplit("/", 1)
    names = _names(folder)
    if name in names or work.output in pruned:
        return "done", ""
    log_folder, log_name = work.log.rsplit("/", 1)
    if log_name not in _names(log_folder):
        return "waiting", ""
    told = last_line(work.log)
    level, _, text = told.partition(" ")
    if work.lease in names:
        number, holder = newest(Path(folder) / work.lease)
        if holder and not holder["released"]:
            try:
                silent_s = now_s - (Path(folder) / work.lease / f"lease.{number}").stat().st_mtime
            except OSError:  # another copy takes the lease at this moment
                silent_s = 0.0
            if silent_s < 2 * MISSED * holder["beat_s"]:
                return "running", f"{text if level == 'INFO' else 'starting'} ({describe(holder)})"
            died = f"{describe(holder)} died without releasing its lease"
            return "stopped", f"{died}; last message: {text or 'none'}"
    elif was_interrupted(work.log):
        return "stopped", "interrupted while it was starting"
    elif level != "ERROR" and now_s - Path(work.log).stat().st_mtime < YOUNG_S:
        return "running", text or "starting"
    if level == "ERROR":
        return "stopped" if ": stopped by " in text else "failed", text.removeprefix("error: ")
    return "stopped", text or "no log message"


def _spans(rows: dict[int | None, Counter]) -> list[tuple[str, Counter]]:
    """Merge adjacent generations whose jobs are all done, or all waiting, into one row."""
    spans: list[tuple[list, Counter]] = []
    for generation, counts in sorted(
        rows.items(), key=lambda item: -1 if item[0] is None else item[0]
    ):
        if (
            spans
            and len(counts) == 1
            and spans[-1][1].keys() == counts.keys()
            and next(iter(counts))[1] in ("done", "waiting")
        ):
            spans[-1] = (spans[-1][0] + [generation], spans[-1][1] + counts)
        else:
            spans.append(([generation], counts))
    return [
        ("" if g[0] is None else f"gen {g[0]}" + (f"-{g[-1]}" if len(g) > 1 else ""), counts)
        for g, counts in spans
    ]


def report(plan: Plan) -> str:
    """Return one screen of text: counts by generation, then running, failed and stopped jobs."""
    _names.cache_clear()
    now_s = time.time()
    rows: dict[str, dict] = {}
    stages: dict[tuple, Counter] = {}
    total: Counter[str] = Counter()
    listed: dict[str, list] = {name: [] for name in ("running", "failed", "stopped")}
    pruned = pruning.pruned(plan)
    for work in jobs(plan):
        job_state, text = state(work, now_s, pruned)
        total[job_state] += 1
        by_generation = rows.setdefault(work.group, {})
        by_generation.setdefault(work.generation, Counter())[None, job_state] += 1
        by_stage = stages.setdefault((work.group, work.generation), Counter())
        by_stage[work.stage, job_state == "done"] += 1
        if job_state == "running":
            folder = work.output.removeprefix(f"{plan.results}/").rsplit("/", 1)[0]
            listed[job_state].append(f"{folder}: {work.stage}: {text}")
        elif job_state in listed:
            listed[job_state].append(f"{work.log}: {text}")
    lines = [
        f"{plan.results}: {sum(total.values())} jobs, "
        + ", ".join(f"{total[name]} {name}" for name in STATES),
        "",
    ]
    lines.append(f"{'':<34}" + "".join(f"{name:>9}" for name in STATES) + "   jobs done, by stage")
    for group, generations in rows.items():
        for span, counts in _spans(generations):
            line = f"{group:<25} {span:<8}" + "".join(
                f"{counts[(None, name)] or '.':>9}" for name in STATES
            )
            if len(counts) > 1 or ((None, "running") in counts and "-" not in span):
                generation = int(span.split()[1]) if span else None
                by_stage = stages[(group, generation)]
                names = dict.fromkeys(stage for stage, _ in by_stage)
                line += "   " + ", ".join(
                    f"{s} {by_stage[(s, True)]}/{by_stage[(s, True)] + by_stage[(s, False)]}"
                    for s in names
                )
            lines.append(line.rstrip())
    titles = {
        "running": "running:",
        "failed": "failed (log file: last error):",
        "stopped": "stopped; run snakemake again to resume them (log file: last message):",
    }
    for name, entries in listed.items():
        if entries:
            more = [f"  ... and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
            lines += ["", titles[name], *(f"  {entry}" for entry in entries[:SHOWN]), *more]
    return "\n".join(lines)
