"""Show the state of a run (states.py) as a screen of text, or as a document for scripts."""

from collections import Counter
from shlex import quote

from pollination.cli.common import span
from pollination.cli.runs.states import OUTDATED, STATES, JobState, Snapshot, take
from pollination.plan.plan import Plan

SHOWN = 12  # jobs of one state that are listed one by one
KEYS = 6  # differing keys of the config that are listed
BAR = 30  # characters of a progress bar
TITLES = {
    "running": "running:",
    "failed": "failed (log file: last error):",
    "stopped": "stopped; run snakemake again to resume them (log file: last message):",
}


def report(plan: Plan, configfile: str | None = None) -> str:
    """Return one screen of text about a run now."""
    return text(take(plan), configfile)


def text(seen: Snapshot, configfile: str | None = None, bars: bool = False) -> str:
    """Return one screen of text: the driver, counts by generation, and jobs of interest.

    With `bars`, a progress bar per generation replaces the columns of counts.
    """
    counts = seen.counts
    states = [*STATES, *([OUTDATED] if counts[OUTDATED] else [])]
    lines = [
        f"{seen.plan.results}: {len(seen.jobs)} jobs, "
        + ", ".join(f"{counts[name]} {name}" for name in states),
        *_about_driver(seen, configfile),
        *_about_config(seen, configfile),
        *(f"note: {note}" for note in seen.notes),
        "",
    ]
    lines += _bars(seen) if bars else _table(seen, states)
    entries: dict[str, list[str]] = {}
    for job in seen.jobs:
        if job.state == "running":
            folder = job.work.output.removeprefix(f"{seen.plan.results}/").rsplit("/", 1)[0]
            entries.setdefault(TITLES["running"], []).append(
                f"{folder}: {job.work.stage}: {job.text}"
            )
        elif job.state in TITLES:
            entries.setdefault(TITLES[job.state], []).append(f"{job.work.log}: {job.text}")
        elif job.state == "waiting" and job.queued:
            name = job.work.output.removeprefix(f"{seen.plan.results}/")
            entries.setdefault("in the queue of Slurm:", []).append(f"{name}: {job.text}")
    for title in (*TITLES.values(), "in the queue of Slurm:"):
        if found := entries.get(title):
            more = [f"  ... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            lines += ["", title, *(f"  {entry}" for entry in found[:SHOWN]), *more]
    return "\n".join(lines)


def _about_driver(seen: Snapshot, configfile: str | None) -> list[str]:
    driver, lines = seen.driver, [seen.driver.text]
    if driver.alive:
        if seen.config:
            lines.append(f"config of the driver: {seen.config}")
        if driver.problem:
            lines.append(f"problem: {driver.problem}")
        restarts = sum(job.restarts for job in driver.queue.values())
        if restarts:
            lines.append(f"Slurm restarted jobs of this driver {restarts} times")
        if seen.left_s is not None:
            lines[0] += f"; about {span(seen.left_s)} left"
    elif seen.complete:
        lines[0] = f"the run is complete; {lines[0]}"
    else:
        running = seen.counts["running"]
        if running:
            lines[0] += f"; {running} running jobs go on without it"
        command = driver.command or (
            f"snakemake --profile profiles/local --configfile {quote(configfile or 'CONFIG')}"
        )
        once = " --unlock once, then without --unlock" if driver.killed else ""
        lines.append(f"to {'resume' if driver.holder else 'start'} the run, type: {command}{once}")
    return lines


def _about_config(seen: Snapshot, configfile: str | None) -> list[str]:
    found, lines = seen.differences, []
    if found:
        name = configfile or "the config file"
        lines = [f"{name} differs from {seen.config}:"]
        lines += [f"  {one}" for one in found[:KEYS]]
        lines += [f"  ... and {len(found) - KEYS} more keys"] if len(found) > KEYS else []
    if count := seen.counts[OUTDATED]:
        lines.append(
            f"{count} finished jobs have other settings than the config file, so snakemake will "
            "recompute them and what follows from them; pollination plan lists the reasons"
        )
    return lines


def _rows(seen: Snapshot) -> dict[str, dict[int | None, list[JobState]]]:
    """Return the jobs by group and generation."""
    rows: dict[str, dict[int | None, list[JobState]]] = {}
    for job in seen.jobs:
        rows.setdefault(job.work.group, {}).setdefault(job.work.generation, []).append(job)
    return {
        group: dict(sorted(by.items(), key=lambda item: -1 if item[0] is None else item[0]))
        for group, by in rows.items()
    }


def _table(seen: Snapshot, states: list[str]) -> list[str]:
    lines = [f"{'':<34}" + "".join(f"{name:>9}" for name in states) + "   jobs done, by stage"]
    for group, generations in _rows(seen).items():
        for span_, found in _spans(generations):
            counts = Counter(job.state for job in found)
            line = f"{group:<25} {span_:<8}" + "".join(f"{counts[s] or '.':>9}" for s in states)
            if len(counts) > 1 or ("running" in counts and "-" not in span_):
                stages: dict[str, list[bool]] = {}
                for job in found:
                    stages.setdefault(job.work.stage, []).append(job.state == "done")
                line += "   " + ", ".join(f"{s} {sum(d)}/{len(d)}" for s, d in stages.items())
            lines.append(line.rstrip())
    return lines


def _bars(seen: Snapshot) -> list[str]:
    lines = []
    for group, generations in _rows(seen).items():
        for span_, found in _spans(generations):
            counts = Counter(job.state for job in found)
            full = BAR * counts["done"] // len(found)
            others = ", ".join(
                f"{counts[name]} {name}"
                for name in ("running", "failed", "stopped", OUTDATED)
                if counts[name]
            )
            line = (
                f"{group:<25} {span_:<8} [{'#' * full}{'.' * (BAR - full)}] "
                f"{counts['done']:>4}/{len(found):<4} {others}"
            )
            lines.append(line.rstrip())
    return lines


def _spans(rows: dict[int | None, list[JobState]]) -> list[tuple[str, list[JobState]]]:
    """Merge adjacent generations whose jobs are all done, or all waiting, into one row."""
    spans: list[tuple[list, list[JobState], set[str]]] = []
    for generation, found in rows.items():
        states = {job.state for job in found}
        if spans and spans[-1][2] == states and states in ({"done"}, {"waiting"}):
            spans[-1] = ([*spans[-1][0], generation], spans[-1][1] + found, states)
        else:
            spans.append(([generation], found, states))
    return [
        ("" if g[0] is None else f"gen {g[0]}" + (f"-{g[-1]}" if len(g) > 1 else ""), found)
        for g, found, _ in spans
    ]


def document(seen: Snapshot) -> dict:
    """Return the state of a run for `--json`; docs/reference/status.md describes the keys."""
    driver = seen.driver
    return {
        "run": seen.plan.results,
        "complete": seen.complete,
        "counts": seen.counts,
        "groups": [
            {
                "group": group,
                "generation": generation,
                "counts": {
                    name: sum(job.state == name for job in found) for name in (*STATES, OUTDATED)
                },
            }
            for group, generations in _rows(seen).items()
            for generation, found in generations.items()
        ],
        "jobs": [
            {
                "output": job.work.output,
                "rule": job.work.kind.rule,
                "group": job.work.group,
                "generation": job.work.generation,
                "state": job.state,
                "log": job.work.log,
                "text": job.text,
                "slurm": None if job.queued is None else vars(job.queued) | {},
            }
            for job in seen.jobs
        ],
        "driver": {
            "alive": driver.alive,
            "holder": driver.holder,
            "since": driver.since_s,
            "silent_s": driver.silent_s,
            "command": driver.command,
            "text": driver.text,
            "config": seen.config or None,
        },
        "problem": driver.problem,
        "config": [vars(one) | {} for one in seen.differences],
        "notes": seen.notes,
        "left_s": seen.left_s,
    }
