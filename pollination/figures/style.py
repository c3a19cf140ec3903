"""The look of all figures.

The colours are Okabe-Ito's, which colour-blind readers can distinguish; marker and line style
repeat them. Equal results give equal files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.special import stdtrit

from pollination.core.artifacts import atomic
from pollination.core.statistics import kernels

BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#F0E442",
    "#000000",
    "#8a8a8a",
)
COLOUR = {"population": BLUE, "line": VERMILLION, "champion": GREEN}
MARKER = {"population": "o", "line": "s", "champion": "D"}
DASH = {"population": "-", "line": "--", "champion": "-."}
FEWEST = 8  # members of a violin: a density of fewer shows the kernel, not the members
NAME = {"population": "population", "line": "single line", "champion": "champion"}

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "pollination",  # element ids in SVG files do not change between runs
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.dpi": 100,
    }
)


# Columns with names and titles of a config
NAMES = [
    "comparison",
    "corpus",
    "experiment",
    "family",
    "label",
    "measure",
    "other",
    "part",
    "role",
    "setting",
    "split",
    "survey",
    "task",
    "title",
    "variant",
]


def save(
    figure: Figure, rows: pd.DataFrame | list[dict], out: Path, nothing: str | None = None
) -> None:
    """Write `out`.svg, .png and .csv without dates, so that equal figures are equal files.

    `nothing`: why the figure has nothing to show, for the metadata of the SVG file.
    """
    figure.draw_without_rendering()  # one layout for both files
    figure.set_layout_engine("none")
    described = {"Date": None, "Creator": None} | ({"Description": nothing} if nothing else {})
    for end, metadata in (("svg", described), ("png", {"Software": None})):
        with atomic(f"{out}.{end}") as temporary:
            figure.savefig(temporary, format=end, metadata=metadata, dpi=150, facecolor="white")
    write_csv(rows, out)


def write_csv(rows: pd.DataFrame | list[dict], out: Path) -> None:
    with atomic(f"{out}.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def read_csv(path: str) -> pd.DataFrame:
    """Return the rows of `write_csv`. Names stay text, also NA and 01. Empty cells are NaN."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(NAMES, str))


def nothing(
    reason: str, out: Path, columns: Sequence[str], rows: pd.DataFrame | None = None
) -> None:
    """Write a figure that states why there is nothing to draw, and a CSV with headings.

    `rows`: the values, if there are some, for example zeros.
    """
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, reason, ha="center", va="center", color="#444444", wrap=True)
    save(figure, pd.DataFrame(columns=list(columns)) if rows is None else rows, out, reason)


def reference(axis: Axes, level: float, name: str) -> None:
    """Draw a reference level; one outside of the data is named at the edge of the axis.

    The axis fits the data: draw them first.
    """
    low, high = axis.get_ylim()
    margin = 0.1 * (high - low)
    if low - margin <= level <= high + margin:
        axis.axhline(level, color=BLACK, ls=":", lw=1)
        return
    edge, arrow, place = (1, "\u2191", "top") if level > high else (0, "\u2193", "bottom")
    axis.text(
        0.99,
        edge,
        f"{arrow} {name} {level:.2g}",
        ha="right",
        va=place,
        fontsize=7.5,
        color="#555555",
        transform=axis.transAxes,
    )


def say(axis: Axes, reason: str) -> list[dict]:
    """State in a panel why there is nothing to draw; it has no rows."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, reason, ha="center", va="center", color="#444444", transform=axis.transAxes)
    return []


def grid(
    count: int, columns: int, width: float = 3.3, height: float = 2.6, **options
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels in rows of at most `columns`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, list(axes[:count])


def generation_axis(axis: Axes, last: int) -> None:
    axis.set_xlim(-0.6, last + 0.6)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel("generation")


def legend(figure: Figure, handles: list) -> None:
    """Draw the legend above all panels, in as many columns as fit."""
    lengths = [len(handle.get_label()) for handle in handles]
    for columns in range(len(handles), 0, -1):  # matplotlib fills column by column
        inches = sum(0.64 + 0.06 * max(column) for column in np.array_split(lengths, columns))
        if inches < figure.get_figwidth():
            break
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=2.6)


def key(role: str, label: str, line: bool = True) -> Line2D:
    return Line2D(
        [],
        [],
        color=COLOUR[role],
        marker=MARKER[role],
        ls=DASH[role] if line else "",
        label=label,
        ms=4.5,
    )


def violin_key() -> Patch:
    return Patch(facecolor=BLUE, alpha=0.25, edgecolor=BLUE, label="density of the members")


def density(
    values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf), points: int = 80
) -> tuple[np.ndarray, np.ndarray]:
    """Return (places, heights up to 1) of a Gaussian kernel density (Scott's rule)."""
    places = np.linspace(values.min(), values.max(), points)
    width = values.std(ddof=1) * len(values) ** -0.2
    heights = kernels(values, places, width, bounds).sum(axis=0)
    return places, heights / heights.max()


def violins(
    axis: Axes,
    groups: dict[int, np.ndarray],
    marked: dict[int, np.ndarray],
    log: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Draw members and their mean per generation, and a violin of at least FEWEST members.

    `marked`: booleans per group; marked members (parents) are drawn as triangles. `bounds`: the
    least and the largest possible value, where densities are reflected.
    """
    many = len(groups) > 25
    for place, values in groups.items():
        values, chosen = np.asarray(values, dtype=float), np.asarray(marked[place], dtype=bool)
        scale = np.log10(values) if log else values
        if len(values) >= FEWEST and len(np.unique(scale)) > 1:
            low, high = np.log10(bounds) if log else bounds
            y, half = density(scale, (float(low), float(high)))
            axis.fill_betweenx(
                10**y if log else y,
                place - 0.36 * half,
                place + 0.36 * half,
                color=BLUE,
                alpha=0.22,
                lw=0,
            )
        shift = np.zeros(len(values)) if many else 0.16 * spread_ties(scale)
        dot: dict[str, Any] = {"ls": "", "color": BLUE, "zorder": 3}
        axis.plot(
            place + shift[~chosen],
            values[~chosen],
            marker="o",
            ms=2 if many else 3.4,
            mfc="white",
            mew=0.8,
            **dot,
        )
        axis.plot(
            place + shift[chosen],
            values[chosen],
            marker="^",
            ms=3 if many else 5.2,
            mew=0.6,
            mec="black",
            **dot,
        )
    means = {
        place: 10 ** np.log10(values).mean() if log else np.mean(values)
        for place, values in groups.items()
    }
    axis.plot(list(means), list(means.values()), color=BLUE, lw=1.3, zorder=2)


def spread_ties(values: np.ndarray) -> np.ndarray:
    """Return horizontal offsets in [-1, 1] that separate neighbours by value."""
    place = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.where(place % 2 == 0, 1, -1) * ((place + 1) // 2 % 3) / 2.0


def mean_band(values: np.ndarray) -> tuple[float, float]:
    """Return mean and half-width of a 95 % t-interval over replicates; NaN for one replicate."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def band(
    axis: Axes,
    role: str,
    places: Sequence,
    means: Sequence,
    low: Sequence,
    high: Sequence,
    *,
    cut: bool = False,
) -> None:
    """Draw means over generations and their interval, in the role's colour, marker and line style.

    `cut`: a wide interval, for example of two replicates, does not stretch the axis. Draw all else
    first.
    """
    axis.plot(
        places,
        means,
        color=COLOUR[role],
        ls=DASH[role],
        marker=MARKER[role],
        ms=4,
        lw=1.5,
        zorder=4,
    )
    bottom, top = axis.get_ylim()
    axis.fill_between(places, low, high, color=COLOUR[role], alpha=0.16, lw=0)
    if cut and axis.get_yscale() == "log":
        axis.set_ylim(bottom * (bottom / top) ** 0.1, top * (top / bottom) ** 0.1)
    elif cut:
        axis.set_ylim(bottom - 0.1 * (top - bottom), top + 0.1 * (top - bottom))
