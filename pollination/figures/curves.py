"""Helpers for figures of ecosystems: looks, perplexity over rounds, the axis of diversity."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pollination.analysis import trajectories
from pollination.figures import style

LOOKS = list(
    zip(
        (
            style.GREEN,
            style.ORANGE,
            style.BLUE,
            style.VERMILLION,
            style.PURPLE,
            style.SKY,
            style.BLACK,
        ),
        "os^Dv<>",
        strict=True,
    )
)
SPREAD = 8.0  # an axis is logarithmic if its largest value exceeds the smallest by this factor


def look(place: int) -> dict:
    colour, marker = LOOKS[place % len(LOOKS)]
    return {"color": colour, "marker": marker, "ls": ("-", "--", ":")[place // len(LOOKS) % 3]}


def draw_trajectories(axis: Axes, ecosystems: list[trajectories.Ecosystem]) -> None:
    """Draw mu_t of each ecosystem with its combined standard deviation."""
    tables = [ecosystem.rows() for ecosystem in ecosystems]
    values = np.array([[row["mu"] for row in rows] for rows in tables])
    log = values.max() > SPREAD * values.min()
    if log:
        axis.set_yscale("log")
    margin = 3.0 if log else 1.35
    top = values.max() * margin
    axis.set_ylim(max(1.0, values.min() / margin), top)
    for place, rows in enumerate(tables):
        t, mu, sd = (np.array([row[key] for row in rows]) for key in ("t", "mu", "sd"))
        axis.plot(t, mu, ms=4, lw=1.5, zorder=3, **look(place))
        if (mu + sd <= top).any():
            axis.fill_between(
                t, np.maximum(mu - sd, 1.0), mu + sd, color=look(place)["color"], alpha=0.12, lw=0
            )
        else:  # a band that fills the panel carries no information
            axis.text(
                0.99,
                0.02,
                "bands exceed the axis: see CSV",
                transform=axis.transAxes,
                ha="right",
                fontsize=6,
                color=style.GREY,
            )
    style.generation_axis(axis, values.shape[1] - 1)
    axis.set_xlabel("round t")
    axis.set_ylabel("perplexity (log scale)" if log else "perplexity")


def log_if_wide(axis: Axes, low, high) -> None:
    if np.max(high) > SPREAD * np.min(low):
        axis.set_yscale("log")


def diversity_axis(axis: XAxis | YAxis, scale: Callable, levels: list[float]) -> None:
    """Show D on a log2 scale with a tick at each of its levels.

    `scale`: set_xscale or set_yscale of the axis.
    """
    scale("log", base=2)
    axis.set_ticks(levels, [f"{level:.3g}" for level in levels])
    axis.set_ticks([], minor=True)


def keys(labels: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], ms=4.5, label=label, **look(place)) for place, label in enumerate(labels)
    ]


def band_key() -> Patch:
    """Return the legend of the bands of `draw_trajectories`."""
    return Patch(facecolor=style.GREY, alpha=0.3, label="band: 1 sd of blocks")
