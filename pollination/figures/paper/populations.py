"""Draw study A's figures of accuracy: by benchmark (6), by size (9), by inheritance (12)."""

from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pollination.analysis.claims.populations import Accuracies
from pollination.analysis.run import Run
from pollination.figures import accuracy, style
from pollination.plan.paper import role_of
from pollination.plan.plan import Plan

COLUMNS = ("label", *accuracy.COLUMNS)
BAND = ("mean", "low", "high", "variance")  # figure 12: of the curve, not of the member
# Full inheritance: pink; data only: blue; single line: grey.
INHERITANCE = ((style.PURPLE, "o", "-"), (style.BLUE, "D", "-."), (style.GREEN, "v", ":"))


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    tables = {label: table(run, names) for label, names in role_of(run.plan, target).items()}
    rows = pd.concat([rows.assign(label=label) for label, rows in tables.items()])
    if target == "figure_a12":
        draw_inheritance(run, role_of(run.plan, target), tables, out)
        return
    figure, axes = style.grid(
        len(tables),
        columns=2 if len(tables) in (2, 4) else 3,
        width=4.1,
        height=3.0,
        sharey=target == "figure_a9",
    )
    for axis, (label, shown) in zip(axes, tables.items(), strict=True):
        accuracy.draw_population(axis, shown[shown.role == "population"], "accuracy")
        draw_chance(axis, shown)
        accuracy.draw_line(axis, shown[shown.role == "line"])
        if shown.task.iloc[0] in run.splits:
            accuracy.draw_selecting(axis, shown)
        axis.set_title(f"{label} ({shown.task.iloc[0]})")
        axis.set_ylabel(accuracy.metric(shown))
        style.generation_axis(axis, int(shown.generation.max()))
    first = part(run, next(iter(role_of(run.plan, target).values())))
    style.legend(figure, accuracy.keys(first, bool(rows.chance.notna().any()), "accuracy"))
    save(figure, rows, out)


def part(run: Run, names: list[str]) -> Run:
    """Return the run with these replicates as its population."""
    roles = run.roles | {"population": names}
    return Run(Plan(run.plan.config | {"figures": roles}, run.plan.results))


def table(run: Run, names: list[str]) -> pd.DataFrame:
    """Return accuracies of a population and of the line.

    The benchmark is the one that selects; without selection, the first.
    """
    mine = part(run, names)
    rows = mine.accuracies()
    if rows.empty:
        raise ValueError(
            f"the benchmarks of {', '.join(names)} have no metric with a value from 0 to 1 for "
            "each question, which this figure shows; set tasks.*.metric to such a metric"
        )
    task = mine.task() or rows.task.iloc[0]
    rows = rows[rows.task == task]
    return rows.assign(chance=mine.chance().get(task, np.nan), selects=mine.task() == task)


def draw_chance(axis: Axes, rows: pd.DataFrame) -> None:
    if rows.chance.notna().any():
        axis.axhline(rows.chance.iloc[0], color=style.BLACK, ls=":", lw=1)


def draw_inheritance(
    run: Run, role: dict[str, list[str]], tables: dict[str, pd.DataFrame], out: Path
) -> None:
    """Draw means with 95 % intervals of which the run is the unit (docs/claims.md)."""
    figure, (axis,) = style.grid(1, columns=1, width=5.4, height=3.6)
    accuracies, first = Accuracies(run), next(iter(tables.values()))
    line = {"single line": run.roles["line"]} if run.roles["line"] else {}
    curves = [
        (label, names, tables[label][tables[label].role == "population"])
        for label, names in role.items()
    ] + [(label, names, first[first.role == "line"]) for label, names in line.items()]
    looks = [*islice(cycle(INHERITANCE), len(tables)), (style.GREY, "s", "--")]
    handles, parts, bands = [], [], []
    for (label, names, shown), (colour, marker, dash) in zip(curves, looks, strict=False):
        task = shown.task.iloc[0]
        band = accuracies.band(label, names, task, line)
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": dash, "ms": 4.5}
        axis.plot(band.generation, band["mean"], **look)
        if task in run.splits:
            selecting = shown.groupby("generation").selecting_accuracy.mean()
            axis.plot(selecting.index, selecting, color=colour, **accuracy.SELECTING)
        handles.append(Line2D([], [], label=label, **look))
        bands.append((colour, band))
        parts.append(shown.assign(label=label).merge(band, on="generation"))
    bottom, top = axis.get_ylim()
    for colour, band in bands:
        axis.fill_between(band.generation, band.low, band.high, color=colour, alpha=0.18, lw=0)
    low, high = axis.get_ylim()  # a wide interval, for example of two runs, is cut
    axis.set_ylim(max(low, 1.5 * bottom - 0.5 * top), min(high, 1.5 * top - 0.5 * bottom))
    rows = pd.concat(parts)
    if set(rows.task) & set(run.splits):
        handles.append(accuracy.selecting_key())
    draw_chance(axis, rows)
    style.generation_axis(axis, int(rows.generation.max()))
    axis.set_ylabel(f"{accuracy.metric(rows)} on {rows.task.iloc[0]}")
    axis.set_title("mean (band: 95 % interval)")
    style.legend(figure, handles)
    save(figure, rows, out, (*COLUMNS, *BAND))


def save(figure, rows: pd.DataFrame, out: Path, columns: tuple[str, ...] = COLUMNS) -> None:
    rows = rows[list(columns)].drop_duplicates()
    style.save(figure, rows.sort_values(list(COLUMNS[:6]), kind="stable"), out)
