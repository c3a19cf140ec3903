"""Find what Snakemake would do with a run's folder under a config, and why.

Snakemake itself decides which jobs would run (planned.py). The records of the finished jobs give
the reasons, key by key.
"""

import csv
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pollination.analysis.cost import known, seconds
from pollination.analysis.cost.rates import Rates
from pollination.analysis.cost.work import Loads
from pollination.cli.runs.planned import (
    Params,
    as_recorded,
    build_dag,
    config_key,
    loaded,
    other_settings,
    phrases,
    short,
)
from pollination.cli.runs.records import read_records
from pollination.core.artifacts import read_json
from pollination.core.settings import differing
from pollination.plan.job_kinds import ORDER
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run

COPIES = ("write_config",)  # rules that only copy the config


@dataclass
class Again:
    """A finished job that would run again. `causes`: none if only its input files are rewritten."""

    rule: str
    record: str
    causes: list[str]


@dataclass
class Replan:
    """What `snakemake` would do now.

    `jobs`: rule -> jobs, as `snakemake -n` counts them; `again`: finished jobs that would run
    again; `new`: rule -> jobs not done yet; `finished`: all finished jobs that the config asks
    for; `unnoticed`: record -> why it has other settings, of finished jobs that would not run
    again; `unasked`: records of jobs that the config does not ask for; `harmless`: config key ->
    [before, now] of changed settings that are no reason; `gpu_hours`: rule -> [again, new];
    `unknown`: amounts that the hours leave out. `reused`: rule -> jobs of `new` that the runs of
    the config key `reuse` have done; the hours leave them out.
    """

    jobs: dict[str, int]
    again: list[Again] = field(default_factory=list)
    new: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    finished: int = 0
    unnoticed: dict[str, list[str]] = field(default_factory=dict)
    unasked: list[str] = field(default_factory=list)
    unasked_bytes: int = 0
    harmless: dict[str, list] = field(default_factory=dict)
    gpu_hours: dict[str, list[float]] = field(default_factory=dict)
    measured: int = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def causes(self) -> dict[str, Counter]:
        """Return cause -> rule -> number of jobs that have it, most frequent first."""
        found: dict[str, Counter] = defaultdict(Counter)
        for job in self.again:
            for cause in job.causes:
                found[cause][job.rule] += 1
        return dict(sorted(found.items(), key=lambda item: -item[1].total()))


def replan(
    plan: Plan,
    rates: Rates,
    show: Callable[[str], None] = lambda _: None,
    parameters: dict[str, int] | None = None,
) -> Replan:
    """Compare a plan with the run's folder. It reads only.

    `parameters`: counts for models of unknown size.

    ValueError: Snakemake cannot list the jobs.
    """
    from snakemake.exceptions import WorkflowError

    folder = Path(plan.results)
    records, _, _ = read_records(folder) if folder.is_dir() else ({}, [], [])
    show("loading the rules")
    with loaded(plan, deep=True) as workflow:
        try:
            show("listing the jobs")
            dag = build_dag(workflow)
            found, outputs = _compare(plan, records, dag, show)
        except WorkflowError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"snakemake cannot list the jobs: {reason}") from None
    show("estimating the hours")
    _add_hours(found, plan, outputs, rates, parameters)
    return found


def _compare(
    plan: Plan, records: dict[str, dict], dag: Any, show: Callable[[str], None]
) -> tuple[Replan, dict[str, list[list[str]]]]:
    """Return what would run and why, without hours; and the output files of those jobs."""
    needed = list(dag.needrun_jobs())
    found = Replan(dict(sorted(Counter(job.rule.name for job in needed).items())))
    runs, planned, settings = set(needed), set(), set()
    new: Counter[str] = Counter()
    reused: Counter[str] = Counter()
    others = _Others(plan, dag, runs)
    outputs: dict[str, list[list[str]]] = {"again": [], "new": []}
    for number, job in enumerate(dag.jobs):
        show(f"{number:,} jobs compared")
        path = job.output.get("run") if job.output else None
        written = list(map(str, job.output))
        planned |= set(written)
        if job.rule.norun or path is None or job.rule.name in COPIES:
            continue
        record = records.get(os.path.normpath(path))
        # A record that is damaged or of an earlier version lets the job count as finished too.
        is_finished = record is not None or os.path.lexists(path)
        found.finished += is_finished
        if not is_finished:
            if job in runs:
                new[job.rule.name] += 1
                if others.did(job):
                    reused[job.rule.name] += 1
                else:
                    outputs["new"].append(written)
            continue
        now = _params(job)
        differ = other_settings(record, now) if record else {}
        causes = phrases(plan, now, differ, "{}: {} -> {}")
        settings |= {config_key(plan, now, key) for key in differ} - {""}
        if job in runs:
            causes = causes or _other_causes(job, dag.reason(job), record)
            found.again.append(Again(job.rule.name, str(path), causes))
            outputs["again"].append(written)
        elif causes:
            found.unnoticed[str(path)] = causes
    found.new, found.reused = dict(sorted(new.items())), dict(sorted(reused.items()))
    found.unasked = sorted(set(records) - {os.path.normpath(path) for path in planned})
    for path in found.unasked:
        for name in records[path]["outputs"]:
            with suppress(OSError):
                found.unasked_bytes += os.path.getsize(Path(path).parent / name)
    with suppress(ValueError):  # no config is there yet, or one that cannot be read
        changed = differing(read_run(plan.results).config, plan.config)
        found.harmless = {
            key: values
            for key, values in changed.items()
            if not any(_same_key(key, other) for other in settings)
        }
    return found, outputs


def _params(job: Any) -> Params:
    return Params(job.rule.name, dict(job.wildcards.items()), as_recorded(dict(job.params.items())))


class _Others:
    """The runs of the config key `reuse` (core/reuse.py), and which jobs they have done."""

    def __init__(self, plan: Plan, dag: Any, runs: set) -> None:
        self.folders, self.results = plan.config["reuse"], plan.results
        self.dag, self.runs = dag, runs
        self.known: dict[Any, bool] = {}

    def did(self, job: Any) -> bool:
        """Return whether one has done a job, if the inputs that are here already are equal."""
        if job not in self.known:
            before = [one for one in self.dag.dependencies[job] if one in self.runs]
            before = [one for one in before if one.output and one.output.get("run")]
            self.known[job] = self._has(job) and all(map(self.did, before))
        return self.known[job]

    def _has(self, job: Any) -> bool:
        now, path = _params(job), os.path.relpath(job.output.get("run"), self.results)
        for folder in self.folders:
            with suppress(OSError, ValueError, KeyError):
                record = read_json(Path(folder, path))
                if now == Params(record["rule"], record["wildcards"], record["params"]):
                    return True
        return False


def _same_key(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _other_causes(job: Any, reason: Any, record: dict | None) -> list[str]:
    """Return why a job of equal settings would run; none if it only reads rewritten files."""
    if reason.forced:
        return ["Snakemake did not see the end of its last run"]
    missing = sorted(map(str, reason.missing_output))
    if missing:
        return [f"deleted: {_kind(missing[0])}"]
    if record is None:
        return ["its record cannot be read; pollination verify says why"]
    there, here = set(record["inputs"]), set(map(str, job.input))
    more = sorted(path for path in here - there if not _is_no_input(path))
    if more:
        return [f"reads more files: {_kind(more[0])}"]
    if fewer := sorted(there - here):
        return [f"reads fewer files: {_kind(fewer[0])}"]
    if changed := sorted(map(str, reason.updated_input)):
        return [f"changed: {_kind(changed[0])}"]
    if reason.params_changed:
        before, now = (
            ", ".join(sorted(values)) or "nothing"
            for values in (reason.params_changed.only_old, reason.params_changed.only_new)
        )
        return [f"Snakemake's notes on its params: {short(before)} -> {short(now)}"]
    if reason.software_stack_changed:
        return ["Snakemake's notes name another software environment"]
    if reason.input_changed:
        return ["Snakemake's notes name other input files"]
    return []


def _is_no_input(path: str) -> bool:
    """Return whether records leave out this input: it sets an order, or is a folder."""
    return path.endswith(f"/{ORDER}") or os.path.isdir(path)


def _kind(path: str) -> str:
    """Return a path with * for the numbers of generations, members, ranks and shards."""
    return re.sub(r"(gen|member|parent|synthetic|shard|deal|mix|soup)\d+", r"\1*", path)


def _add_hours(
    found: Replan,
    plan: Plan,
    outputs: dict[str, list[list[str]]],
    rates: Rates,
    parameters: dict[str, int] | None,
) -> None:
    """Add the GPU-hours: measured times of this run where it has them, else the estimate.

    A measured time is scaled by the estimated change of its work. A job without one gets the
    estimate, scaled by measured / estimated of the rule's finished jobs.
    """
    loads = Loads(plan, parameters, rates.processor)
    estimates = {load.work.output: (load, seconds(load, rates)) for load in loads}
    before = _estimates_before(plan, rates, parameters) or {
        path: estimate for path, (_, estimate) in estimates.items()
    }
    measured = {path: _measured(load.work.log) for path, (load, _) in estimates.items()}
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for path, (load, _) in estimates.items():
        if not math.isnan(measured[path]) and path in before:
            sums[load.work.kind.rule][0] += measured[path]
            sums[load.work.kind.rule][1] += before[path]
    hours: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for column, kind in enumerate(("again", "new")):
        for files in outputs[kind]:
            path = next((path for path in files if path in estimates), "")
            if not path or not estimates[path][0].gpu:
                continue
            load, estimate = estimates[path]
            spent, guessed = sums[load.work.kind.rule]
            if not math.isnan(measured[path]):
                scale = estimate / before[path] if before.get(path) else 1.0
                estimate = measured[path] * scale
                found.measured += 1
            elif spent and guessed:
                estimate *= spent / guessed
            hours[load.work.kind.rule][column] += known(estimate) / 3600
    found.gpu_hours = dict(hours)
    found.unknown = list(loads.unknown.values()) if hours else []


def _estimates_before(
    plan: Plan, rates: Rates, parameters: dict[str, int] | None
) -> dict[str, float]:
    """Return output -> estimated seconds under the config that the run's folder holds."""
    try:
        config = read_run(plan.results).config
        return {
            load.work.output: seconds(load, rates)
            for load in Loads(Plan(config, plan.results), parameters, rates.processor)
        }
    except (ValueError, KeyError, OSError):  # none, or of an earlier version
        return {}


def _measured(log: str) -> float:
    """Return the seconds that Snakemake measured for a job; NaN without a file of timings."""
    parts = Path(log).with_suffix(".tsv").parts
    file = Path(*parts[:2], "benchmarks", *parts[3:])
    with suppress(OSError, ValueError, KeyError):
        with file.open(encoding="utf-8", newline="") as text:
            rows = [float(row["s"]) for row in csv.DictReader(text, delimiter="\t")]
        return sum(rows) / len(rows) if rows else math.nan
    return math.nan
