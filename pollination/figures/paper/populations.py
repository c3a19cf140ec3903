"""Draw study A's figures of accuracy: by benchmark (6), by size (9), by inheritance (12)."""

from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pollination.analysis.run import Run
from pollination.figures import accuracy, style
from pollination.plan.paper import role_of
from pollination.plan.plan import Plan

COLUMNS = ("label", *accuracy.COLUMNS)
# Full inheritance: pink; data only: blue; single line: grey.
INHERITANCE = ((style.PURPLE, "o", "-"), (style.BLUE, "D", "-."), (style.GREEN, "v", ":"))


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    tables = {label: table(run, names) for label, names in role_of(run.plan, target).items()}
    rows = pd.concat([rows.assign(label=label) for label, rows in tables.items()])
    if target == "figure_a12":
        draw_inheritance(tables, out, rows)
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
        axis.set_title(f"{label} ({shown.task.iloc[0]})")
        axis.set_ylabel("accuracy")
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
    task = mine.task() or rows.task.iloc[0]
    rows = rows[rows.task == task]
    return rows.assign(chance=mine.chance().get(task, np.nan), selects=mine.task() == task)


def draw_chance(axis: Axes, rows: pd.DataFrame) -> None:
    if rows.chance.notna().any():
        axis.axhline(rows.chance.iloc[0], color=style.BLACK, ls=":", lw=1)


def draw_inheritance(tables: dict[str, pd.DataFrame], out: Path, rows: pd.DataFrame) -> None:
    """Draw means with 95 % t-intervals over members (for the single line, over replicates)."""
    figure, (axis,) = style.grid(1, columns=1, width=5.4, height=3.6)
    line = next(iter(tables.values()))
    curves = {label: shown[shown.role == "population"] for label, shown in tables.items()} | {
        "single line": line[line.role == "line"]
    }
    handles = []
    looks = [*islice(cycle(INHERITANCE), len(tables)), (style.GREY, "s", "--")]
    for (label, shown), (colour, marker, dash) in zip(curves.items(), looks, strict=True):
        by_generation = shown.groupby("generation").accuracy
        groups = [(g, *style.mean_band(accuracies)) for g, accuracies in by_generation]
        if not groups:
            continue
        g, mean, half = (np.array(values, dtype=float) for values in zip(*groups, strict=True))
        axis.fill_between(g, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
        axis.plot(g, mean, color=colour, marker=marker, ls=dash, ms=4.5)
        handles.append(Line2D([], [], color=colour, marker=marker, ls=dash, ms=4.5, label=label))
    draw_chance(axis, rows)
    style.generation_axis(axis, int(rows.generation.max()))
    axis.set_ylabel(f"accuracy on {rows.task.iloc[0]}")
    axis.set_title("mean (band: 95 % interval)")
    style.legend(figure, handles)
    save(figure, rows, out)


def save(figure, rows: pd.DataFrame, out: Path) -> None:
    rows = rows[list(COLUMNS)].drop_duplicates()
    style.save(figure, rows.sort_values(list(COLUMNS[:6]), kind="stable"), out)
