"""Draw the distance to the truth under selection with noise, and in more dimensions."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Patch

from pollination.figures import style
from pollination.figures.theory import shared


def draw(tables: dict[str, Path], out: Path) -> None:
    rows = shared.read(tables)
    rows = rows[rows.axis != "n"]
    figure = style.Figure(figsize=(9.5, 3.7), layout="constrained")
    counts = sorted(rows.k.unique())
    shades = dict(
        zip(counts, colormaps["viridis"](np.linspace(0.05, 0.85, len(counts))), strict=True)
    )
    panels = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
    titles = {"noise": "selection with noise", "dimensions": "more dimensions"}
    for panel, (axis, title) in zip(panels, titles.items(), strict=True):
        shown = rows[rows.axis == axis]
        values = sorted(shown[axis].unique())
        for k, line in shown.sort_values(axis).groupby("k"):
            place = [values.index(value) for value in line[axis]]
            panel.plot(
                place, line.w2_median, color=shades[k], marker="o", ms=3.5, lw=1.5, label=f"K = {k}"
            )
            panel.fill_between(place, line.w2_q25, line.w2_q75, color=shades[k], alpha=0.15, lw=0)
        panel.set_yscale("log")
        panel.set_xticks(range(len(values)), [written(axis, value) for value in values])
        panel.set_title(title)
    panels[0].set_xlabel("standard deviation of the noise on W2 (in units of the truth's variance)")
    panels[0].set_ylabel(f"{shared.LABEL['w2']}, last generation")
    panels[1].set_xlabel("dimensions")
    band = Patch(facecolor=style.GREY, alpha=0.3, label="band: quartiles of the runs")
    style.legend(figure, [*panels[0].get_legend_handles_labels()[0], band])
    style.save(figure, rows, out)


def written(axis: str, value: float) -> str:
    return "0\n(oracle)" if axis == "noise" and value == 0 else f"{value:g}"
