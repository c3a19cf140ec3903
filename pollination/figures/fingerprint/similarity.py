"""Draw the density of Jaccard similarity within and between families (study A, figure 3).

The figure also states overlap and effect size.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from pollination.analysis.fingerprint.features import JACCARD
from pollination.core.statistics import kernels
from pollination.figures import style
from pollination.figures.fingerprint.shared import CROSS, WITHIN, interval, number, read

NAMES = {
    "overlap_kde": "OVL (density)",
    "overlap_histogram": "OVL (histogram)",
    "cliffs_delta": "Cliff's δ",
}


def draw(tables: dict[str, Path], out: Path) -> None:
    pairs, statistics = read(tables)
    once = pairs[pairs.source < pairs.target]
    rows = pd.DataFrame(statistics["overlap"])
    figure = style.Figure(figsize=(10.5, 5.6), layout="constrained")
    panels = figure.subplot_mosaic(
        [["all", "all", "all"], ["words", "bigrams", "trigrams"]], height_ratios=[1.5, 1]
    )
    for kind, axis in panels.items():
        density(axis, once, kind, rows[rows.kind == kind].bandwidth.iloc[0])
        axis.set_title({"all": "words, bigrams and trigrams"}.get(kind, kind))
    panels["all"].text(
        0.99,
        0.97,
        said(rows[rows.kind == "all"]),
        transform=panels["all"].transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        linespacing=1.5,
    )
    first = rows.iloc[0]
    labels = {
        WITHIN: f"within a family ({first.within_pairs} pairs)",
        CROSS: f"between families ({first.cross_pairs} pairs)",
    }
    style.legend(
        figure,
        [
            Patch(facecolor=colour, alpha=0.35, edgecolor=colour, label=label)
            for colour, label in labels.items()
        ],
    )
    tests = pd.DataFrame(statistics["families_dealt_anew"])[
        ["kind", "p_cliffs_delta", "p_mean_difference"]
    ]
    style.save(figure, rows.merge(tests, on="kind"), out)


def density(axis: Axes, pairs: pd.DataFrame, kind: str, width: float) -> None:
    """Draw both densities on a common bandwidth and grid, and a tick per pair."""
    values = pairs[f"jaccard_{kind}"].to_numpy()
    low, high = np.clip([values.min() - 3 * width, values.max() + 3 * width], *JACCARD)
    places = np.linspace(float(low), float(high), 400)
    same = (pairs.source_family == pairs.target_family).to_numpy()
    groups = {WITHIN: values[same], CROSS: values[~same]}
    heights = {
        colour: kernels(group, places, width, JACCARD).mean(axis=0)
        for colour, group in groups.items()
    }
    top = max(height.max() for height in heights.values())
    for index, (colour, height) in enumerate(heights.items()):
        axis.fill_between(places, height, color=colour, alpha=0.3, lw=0)
        axis.plot(places, height, color=colour, lw=1.6)
        axis.plot(
            groups[colour],
            np.full(len(groups[colour]), -top * (0.05 + 0.07 * index)),
            ls="",
            marker="|",
            ms=5,
            mew=0.7,
            color=colour,
        )
    axis.set_ylim(-0.17 * top, 1.08 * top)
    axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= 1.08 * top])
    axis.set_xlabel("Jaccard similarity")
    axis.set_ylabel("density")


def said(rows: pd.DataFrame) -> str:
    """Return values and 95 % percentile intervals, with pairs and with models resampled."""
    lines = []
    for name, label in NAMES.items():
        statistic = rows[rows.statistic == name].set_index("resampled")
        pairs, models = (
            interval(statistic.low[unit], statistic.high[unit]) for unit in ("pairs", "models")
        )
        lines.append(f"{label} {number(statistic.value.iloc[0])}   pairs {pairs}   models {models}")
    return "\n".join(lines)
