"""Draw accuracy over generations: members, their mean, and the single line (study A, figure 6)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pollination.analysis.run import Run
from pollination.core.statistics import wilson_interval
from pollination.figures import style
from pollination.plan import layout

COLUMNS = (
    "task",
    "role",
    "experiment",
    "generation",
    "member",
    "selected",
    "accuracy",
    "stderr",
    "questions",
    "selecting_accuracy",
    "selecting_questions",
    "chance",
    "selects",
)
BOUNDS = {"accuracy": (0.0, 1.0), "perplexity": (1.0, np.inf)}  # of the violins' densities

# the second series: the questions that select, as in study A
SELECTING: dict[str, Any] = {"ls": ":", "lw": 1.4, "marker": "x", "ms": 4.5, "zorder": 5}


def draw(run: Run, out: Path) -> None:
    rows = pd.concat([run.accuracies(), run.statistics()], ignore_index=True)
    if rows.empty:
        return style.nothing("This run evaluates no tasks.", out, COLUMNS)
    chance, task = run.chance(), run.task()
    # metrics of any size, without a value per question
    statistics = set(rows.task[rows.unfit.notna()]) if "unfit" in rows else set()
    rows["chance"], rows["selects"] = rows.task.map(chance), rows.task == task
    tasks = list(dict.fromkeys(rows.task))
    figure, axes = style.grid(
        len(tasks), columns=2 if len(tasks) in (2, 4) else 3, width=4.1, height=3.0
    )
    for axis, name in zip(axes, tasks, strict=True):
        shown = rows[rows.task == name]
        kind = "statistic" if name in statistics else "accuracy"
        members = shown[shown.role == "population"].rename(columns={"accuracy": kind})
        draw_population(axis, members, kind)
        draw_line(axis, shown[shown.role == "line"], bounded=kind == "accuracy")
        if name in run.splits and kind == "accuracy":
            draw_selecting(axis, shown)
        if name in chance:
            style.reference(axis, chance[name], "chance")
        axis.set_title(
            f"{name}  (★ selects parents)" if name == task else name,
            fontweight="bold" if name == task else "normal",
        )
        axis.set_ylabel(metric(shown))
        style.generation_axis(axis, int(rows.generation.max()))
    style.legend(figure, keys(run, bool(chance), "accuracy"))
    others = any(metric(rows[rows.task == name]) != "accuracy" for name in tasks)
    columns = [*COLUMNS, *(["metric"] if others else [])]
    style.save(figure, rows[columns].sort_values(list(COLUMNS[:5]), kind="stable"), out)


def metric(rows: pd.DataFrame) -> str:
    """Return the name of the metric of one task's rows."""
    name = rows.metric.iloc[0] if "metric" in rows else "acc"
    return "accuracy" if name == "acc" else str(name)


def draw_population(axis: Axes, rows: pd.DataFrame, value: str, log: bool = False) -> None:
    groups = {int(g): part[value].to_numpy() for g, part in rows.groupby("generation")}
    marked = {int(g): part.selected.to_numpy() for g, part in rows.groupby("generation")}
    style.violins(axis, groups, marked, log, BOUNDS.get(value, (-np.inf, np.inf)))


def draw_line(axis: Axes, rows: pd.DataFrame, bounded: bool = True) -> None:
    """Draw replicates thin, and their mean thick with a 95 % band.

    The band is a t-interval over replicates, or for a single model the interval over questions. It
    ends at 0 and 1 if the values are `bounded`.
    """
    draw_replicates(axis, rows, "accuracy")
    points = []
    for generation, part in rows.groupby("generation"):
        mean, half = style.mean_band(part.accuracy)
        low, high = mean - half, mean + half
        if np.isnan(half):
            low, high = _interval(mean, part.stderr.iloc[0], int(part.questions.iloc[0]), bounded)
        points.append((generation, mean, *(np.clip((low, high), 0, 1) if bounded else (low, high))))
    if points:
        style.band(axis, "line", *zip(*points, strict=True), cut=True)
    if bounded:
        bottom, top = axis.get_ylim()
        axis.set_ylim(max(bottom, -0.04), min(top, 1.04))


def _interval(mean: float, stderr: float, n: int, bounded: bool) -> tuple[float, float]:
    """Return the 95 % interval over questions: Wilson's for right and wrong answers, else normal.

    It is NaN if the standard error is unknown.
    """
    spread = math.nan if stderr is None else float(stderr)
    only_ends = n == 1 or math.isclose(spread**2 * (n - 1), mean * (1 - mean), abs_tol=1e-9)
    if bounded and only_ends:
        return wilson_interval(round(mean * n), n)
    return mean - 1.96 * spread, mean + 1.96 * spread


def draw_selecting(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw each role's mean on the selecting half, which study A reports."""
    for role, part in rows.groupby("role"):
        means = part.groupby("generation").selecting_accuracy.mean()
        axis.plot(means.index, means, color=style.COLOUR[role], **SELECTING)


def draw_replicates(axis: Axes, rows: pd.DataFrame, value: str) -> None:
    """Draw each replicate as a thin line that starts at its founder, shared or its own."""
    founders = rows[rows.generation == 0]
    faint = min(0.6, 8 / max(1, rows.groupby(["experiment", "member"]).ngroups))
    for (name, member), part in rows.groupby(["experiment", "member"]):
        if name not in set(founders.experiment):
            part = pd.concat([founders[founders.member == member][:1], part])
        axis.plot(part.generation, part[value], color=style.VERMILLION, lw=0.6, alpha=faint)


def selecting_key() -> Line2D:
    label = "means on the questions that select (study A's way)"
    return Line2D([], [], color=style.BLACK, label=label, **SELECTING)


def keys(run: Run, chance: bool, what: str) -> list:
    handles: list[Any] = []
    if run.roles["population"]:
        population = run.members("population", 0)
        handles = [
            Line2D([], [], color=style.BLUE, lw=1.3, label=f"population, mean {what}"),
            Line2D([], [], ls="", marker="o", color=style.BLUE, mfc="white", ms=4, label="member"),
        ]
        if len(population) >= style.FEWEST:
            handles.append(style.violin_key())
        if any(layout.selects(run.plan, name) for name in run.roles["population"]):
            look: dict[str, Any] = {
                "ls": "",
                "marker": "^",
                "color": style.BLUE,
                "mec": "black",
                "ms": 5.5,
            }
            handles.append(Line2D([], [], label="selected as parent", **look))
    if run.roles["line"]:
        many = len(run.members("line", run.generations("line") - 1))
        label = f"single line, mean of {many}" if many > 1 else "single line"
        # perplexity of one replicate has no interval
        band = " (thin: each; band: 95 %)" if many > 1 else " (band: 95 %)"
        band = band if many > 1 or what == "accuracy" else ""
        handles.append(style.key("line", label + band))
    if run.splits and what == "accuracy":
        handles.append(selecting_key())
    return handles + ([Line2D([], [], color=style.BLACK, ls=":", label="chance")] if chance else [])
