"""Draw the final distance to the truth and the share of collapsed runs, by n and K (A, A.2)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from pollination.figures import style
from pollination.figures.theory import shared


def draw(tables: dict[str, Path], out: Path) -> None:
    rows = shared.read(tables)
    rows = rows[rows.axis == "n"].drop(columns="axis")

    def cells(column: str) -> pd.DataFrame:
        return rows.pivot(index="n", columns="k", values=column)

    distances, collapsed = cells("w2_median"), cells("collapsed")
    figure = style.Figure(
        figsize=(3.2 + 1.24 * distances.shape[1], 1.5 + 0.42 * len(distances)), layout="constrained"
    )
    left, right = figure.subplots(1, 2)
    limits = LogNorm(max(distances.to_numpy().min(), 1e-12), distances.to_numpy().max())
    heat(left, distances, "cividis_r", limits, lambda value: f"{value:.2g}")
    left.set_title("median squared W2 to the truth")
    heat(right, collapsed, "Oranges", Normalize(0, 1), lambda value: f"{value:.0%}")
    right.set_title("share of collapsed runs (sd < 0.1)")
    style.save(figure, rows, out)


def heat(axis: Axes, table: pd.DataFrame, colours: str, norm: Normalize, written) -> None:
    """Draw a heat map with every value in its cell; the first row is at the bottom."""
    image = axis.imshow(table, origin="lower", cmap=colours, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        red, green, blue, _ = image.cmap(norm(value))
        ink = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else style.BLACK
        axis.text(column, row, written(value), ha="center", va="center", fontsize=8, color=ink)
    axis.set_xticks(range(table.shape[1]), table.columns)
    axis.set_yticks(range(len(table)), table.index)
    axis.set_xlabel("number of estimators K")
    axis.set_ylabel("number of samples n")
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
