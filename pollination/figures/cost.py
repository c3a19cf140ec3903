"""Draw the cost of a run beside its forecast (pollination/analysis/cost/).

Snakemake's benchmark files give time and memory by kind of job. The run's folder gives disk by kind
of artifact. They are not inputs of the rule: the figure reads them as they are when it is drawn.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd

from pollination.analysis.cost import estimate
from pollination.analysis.cost.disk import on_disk
from pollination.analysis.cost.rates import rates_of_run
from pollination.analysis.run import Run
from pollination.figures import style
from pollination.plan.job_kinds import KINDS, activity_of

INK, PALE = "#5b6770", "#b9c2c9"  # no role's colour
COLUMNS = (
    "job",
    "jobs",
    "wall_s",
    "cpu_s",
    "predicted_jobs",
    "predicted_s",
    "longest_s",
    "peak_memory_mib",
    "bytes",
    "predicted_bytes",
)


def draw(run: Run, out: Path) -> None:
    parts = list(timings(Path(run.plan.results, "benchmarks")))
    if not parts:
        return style.nothing("This run has no benchmark files.", out, COLUMNS)
    jobs = pd.concat(parts, ignore_index=True)
    for column in ("s", "cpu_time", "max_rss"):
        jobs[column] = pd.to_numeric(jobs[column], errors="coerce")
    grouped = jobs.groupby("job")
    rows = pd.DataFrame(
        {
            "jobs": grouped.size(),
            "wall_s": grouped.s.sum(),
            "cpu_s": grouped.cpu_time.sum(),
            "longest_s": grouped.s.max(),
            "peak_memory_mib": grouped.max_rss.max(),
        }
    )
    preview = estimate(run.plan, rates_of_run(run.plan.results, run.plan.config["device"]))
    predicted = pd.DataFrame(
        [
            (KINDS[name].activity, rule.jobs, 3600 * rule.hours)
            for name, rule in preview.rules.items()
        ]
    )
    predicted = predicted.groupby(0).sum().rename(columns={1: "predicted_jobs", 2: "predicted_s"})
    rows = rows.join(predicted).sort_values("wall_s").reset_index()
    figure, (time, memory, disk) = style.grid(
        3, columns=3, width=4.4, height=max(1.8, 0.8 + 0.34 * len(rows))
    )
    places = range(len(rows))
    time.barh(
        [p + 0.2 for p in places],
        rows.wall_s,
        height=0.38,
        color=INK,
        label="wall-clock time, summed over jobs",
    )
    time.barh(
        [p - 0.2 for p in places],
        rows.cpu_s,
        height=0.38,
        color=PALE,
        hatch="///",
        edgecolor="white",
        label="processor time",
    )
    time.scatter(
        rows.predicted_s,
        places,
        marker="D",
        s=26,
        color="black",
        zorder=3,
        label=f"forecast for {preview.rates.name}",
    )
    memory.barh(places, rows.peak_memory_mib, height=0.5, color=INK)
    for place, row in zip(places, rows.itertuples(), strict=True):
        time.annotate(
            duration(row.wall_s),
            (max(row.wall_s, row.cpu_s), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
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
    time.set_xlabel("time, s")
    memory.set_xlabel("peak memory of one job, MiB")
    sizes = pd.DataFrame({"bytes": on_disk(run.plan.results), "predicted_bytes": preview.disk})
    sizes = sizes.fillna(0.0)
    sizes = sizes[sizes.max(axis=1) > 0].sort_values("bytes")
    disk.barh(range(len(sizes)), sizes["bytes"] / 2**20, height=0.5, color=INK, label="on disk")
    disk.scatter(
        sizes.predicted_bytes / 2**20,
        range(len(sizes)),
        marker="D",
        s=26,
        color="black",
        zorder=3,
        label="forecast",
    )
    disk.set_yticks(range(len(sizes)), sizes.index)
    disk.set_xscale("log")
    disk.set_xlabel("disk, MiB")
    disk.legend(loc="lower right")
    for axis in (time, memory, disk):
        axis.grid(axis="y", visible=False)
        axis.margins(x=0.16)
    time.set_title(
        f"{rows.jobs.sum():,} jobs: {duration(rows.wall_s.sum())} wall-clock, "
        f"{duration(rows.cpu_s.sum())} processor time",
        fontsize=9,
    )
    time.legend(loc="lower right")
    sizes = sizes[::-1].rename_axis("job").reset_index()
    rows = pd.concat([rows[::-1], sizes.assign(job="disk: " + sizes.job)])
    style.save(figure, rows.reindex(columns=list(COLUMNS)), out)


def timings(folder: Path) -> Iterator[pd.DataFrame]:
    """Yield the time and memory of each job.

    Snakemake may still write these files, so unfinished files are skipped.
    """
    for path in sorted(folder.rglob("*.tsv")):
        with suppress(FileNotFoundError, pd.errors.EmptyDataError):
            yield pd.read_csv(path, sep="\t", na_values="-").assign(
                job=activity_of(path.relative_to(folder).as_posix())
            )


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
