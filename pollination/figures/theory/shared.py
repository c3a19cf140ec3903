"""Colours and panels of the figures of the theory."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pollination.core import artifacts
from pollination.figures import style

COLOUR = {"evolution": style.COLOUR["population"], "baseline": style.COLOUR["line"]}
NAME = {"evolution": "population (best of K)", "baseline": "single line"}
TRUTH = {"mean": 0.0, "sd": 1.0}
LABEL = {"mean": "mean", "sd": "standard deviation", "w2": "squared W2 to the truth"}


def read(tables: dict[str, Path], name: str = "table") -> pd.DataFrame:
    return artifacts.read_table(tables[name]).to_pandas()


def keys(colours: dict[str, str], **options) -> list[Line2D]:
    return [Line2D([], [], color=colours[role], label=NAME[role], **options) for role in colours]


def over_generations(axis: Axes, quantity: str, last: int) -> None:
    """Set limits and labels of a panel over generations; draw the truth as a dotted line."""
    if quantity in TRUTH:
        axis.axhline(TRUTH[quantity], color=style.BLACK, ls=":", lw=1, zorder=1)
    axis.set_xlim(0, last)
    axis.set_xlabel("generation")
