"""Estimate the time that a run will still take, from the timings of its finished jobs."""

from statistics import fmean

from pollination.plan.jobs import Work

TIMED = 12  # finished jobs of one rule whose timings are read


def timings(work: Work, results: str) -> str:
    """Return the path of a job's timings, which Snakemake writes when the job has finished."""
    name = work.log.removeprefix(f"{results}/logs/").removesuffix(".log")
    return f"{results}/benchmarks/{name}.tsv"


def seconds(path: str) -> float | None:
    """Return the seconds in a file of timings; None if it is absent or not readable."""
    try:
        with open(path, encoding="utf-8") as file:
            header, values = file.readline().split("\t"), file.readline().split("\t")
        return float(values[header.index("s")])
    except (OSError, ValueError, IndexError):
        return None


def remaining_s(jobs: list[tuple[Work, str]], results: str) -> float | None:
    """Return the estimated seconds left, from pairs of job and state; None if nothing is known.

    A job takes as long as the finished jobs of its rule, or as the mean of those rules. A running
    job has done half. As many jobs run at a time as run now.
    """
    running = sum(state == "running" for _, state in jobs)
    left = [(work, state) for work, state in jobs if state != "done"]
    if not running:
        return None
    known: dict[str, list[float]] = {}
    read: dict[str, int] = {}
    for work, state in reversed(jobs):  # the later ones are like those that remain
        rule = work.kind.rule
        if state == "done" and read.get(rule, 0) < TIMED:
            read[rule] = read.get(rule, 0) + 1
            if took := seconds(timings(work, results)):
                known.setdefault(rule, []).append(took)
    if 2 * sum(work.kind.rule in known for work, _ in left) < len(left):
        return None
    means = {rule: fmean(values) for rule, values in known.items()}
    typical = fmean(means.values())
    work_s = sum(
        means.get(work.kind.rule, typical) * (0.5 if state == "running" else 1.0)
        for work, state in left
    )
    return work_s / running
