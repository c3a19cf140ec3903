"""What a run cost, from Snakemake's benchmark files and its folder, beside what the preview says (pollination/cost/): time and memory by
kind of job, disk by kind of artifact. They are read as they lie, and are no inputs."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd

from pollination.cost import estimate
from pollination.cost.disk import on_disk
from pollination.cost.rates import rates_of_run
from pollination.figures import style
from pollination.figures.data import Run

COLUMNS = ("job", "jobs", "wall_s", "cpu_s", "predicted_jobs", "predicted_s", "longest_s", "peak_memory_mib", "bytes", "predicted_bytes")
RULES = {  # what a rule's jobs are called here; all others prepare text and tokens
    "train_founder": "train a model", "train_child": "train a model", "evaluate_member": "evaluate a model",
    "measure_quality": "measure data quality", "measure_disagreement": "compare members", "generate_shard": "write synthetic text",
    "deal_pool": "deal the pool", "select_parents": "select parents", "mutate_parent": "mutate a parent", "stage_task": "stage benchmarks",
    "draw": "draw the report", "simulate": "other", "collect_outputs": "other", "count_fingerprints": "other", "compare_fingerprints": "other",
    "trace_inheritance": "other", "build_requests": "stage benchmarks", "embed_samples": "other", "compare_samples": "other",
}  # fmt: skip
KINDS = (  # where a job's benchmark lies says which rule it was
    (r"/train\.tsv$", "train a model"),
    (r"/evaluate\.tsv$", "evaluate a model"),
    (r"/quality\.tsv$", "measure data quality"),
    (r"/disagreement\.tsv$", "compare members"),
    (r"/synthetic\d+/", "write synthetic text"),
    (r"/deal\.tsv$", "deal the pool"),
    (r"/select\.tsv$", "select parents"),
    (r"/mutate\.tsv$", "mutate a parent"),
    (r"^(corpora|staged|models|tokens)/", "prepare text and tokens"),
    (r"^(tasks|requests)/", "stage benchmarks"),
    (r"^(report/|paper/|config)", "draw the report"),
)


def draw(run: Run, out: Path) -> None:
    parts = list(timings(Path(run.plan.results, "benchmarks")))
    if not parts:
        return style.nothing("No benchmark files of this run's jobs are here.", out, COLUMNS)
    jobs = pd.concat(parts, ignore_index=True)
    for column in ("s", "cpu_time", "max_rss"):
        jobs[column] = pd.to_numeric(jobs[column], errors="coerce")
    grouped = jobs.groupby("job")
    rows = pd.DataFrame(
        {"jobs": grouped.size(), "wall_s": grouped.s.sum(), "cpu_s": grouped.cpu_time.sum(), "longest_s": grouped.s.max()}
        | {"peak_memory_mib": grouped.max_rss.max()}
    )
    preview = estimate(run.plan, rates_of_run(run.plan.results))
    predicted = pd.DataFrame(
        [(RULES.get(name, "prepare text and tokens"), rule.jobs, 3600 * rule.hours) for name, rule in preview.rules.items()]
    )
    predicted = predicted.groupby(0).sum().rename(columns={1: "predicted_jobs", 2: "predicted_s"})
    rows = rows.join(predicted).sort_values("wall_s").reset_index()
    figure, (time, memory, disk) = style.grid(3, columns=3, width=4.4, height=max(1.8, 0.8 + 0.34 * len(rows)))
    places = range(len(rows))
    time.barh([p + 0.2 for p in places], rows.wall_s, height=0.38, color=style.BLUE, label="wall-clock, summed over jobs")
    time.barh([p - 0.2 for p in places], rows.cpu_s, height=0.38, color=style.ORANGE, hatch="///", edgecolor="white", label="processor")
    time.scatter(rows.predicted_s, places, marker="D", s=26, color="black", zorder=3, label=f"predicted for {preview.rates.name}")
    memory.barh(places, rows.peak_memory_mib, height=0.5, color=style.GREEN)
    for place, row in zip(places, rows.itertuples(), strict=True):
        time.annotate(
            duration(row.wall_s), (max(row.wall_s, row.cpu_s), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
        if row.peak_memory_mib > 0:
            memory.annotate(
                f"{row.peak_memory_mib:,.0f}",
                (row.peak_memory_mib, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    time.set_yticks(places, [f"{row.job}  \u00d7 {row.jobs:,}" for row in rows.itertuples()])
    memory.set_yticks(places, [""] * len(rows))
    time.set_xlabel("seconds")
    memory.set_xlabel("peak memory of a job, MiB")
    sizes = pd.DataFrame({"bytes": on_disk(run.plan.results), "predicted_bytes": preview.disk}).fillna(0.0)
    sizes = sizes[sizes.max(axis=1) > 0].sort_values("bytes")
    disk.barh(range(len(sizes)), sizes["bytes"] / 2**20, height=0.5, color=style.BLUE, label="on disk")
    disk.scatter(sizes.predicted_bytes / 2**20, range(len(sizes)), marker="D", s=26, color="black", zorder=3, label="predicted")
    disk.set_yticks(range(len(sizes)), sizes.index)
    disk.set_xscale("log")
    disk.set_xlabel("disk, MiB")
    disk.legend(loc="lower right")
    for axis in (time, memory, disk):
        axis.grid(axis="y", visible=False)
        axis.margins(x=0.16)
    time.set_title(
        f"{rows.jobs.sum():,} jobs: {duration(rows.wall_s.sum())} in all, {duration(rows.cpu_s.sum())} of processor time", fontsize=9
    )
    time.legend(loc="lower right")
    sizes = sizes[::-1].rename_axis("job").reset_index()
    style.save(figure, pd.concat([rows[::-1], sizes.assign(job="disk: " + sizes.job)]).reindex(columns=list(COLUMNS)), out)


def timings(folder: Path) -> Iterator[pd.DataFrame]:
    """What each job took. Snakemake writes these files in place, also while this figure is drawn: one that is not whole yet is left out."""
    for path in sorted(folder.rglob("*.tsv")):
        with suppress(FileNotFoundError, pd.errors.EmptyDataError):
            yield pd.read_csv(path, sep="\t", na_values="-").assign(job=kind(path.relative_to(folder).as_posix()))


def kind(name: str) -> str:
    """The kind of job behind a benchmark file, from its path below benchmarks/."""
    return next((label for pattern, label in KINDS if re.search(pattern, name)), "other")


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
