"""Draw influence between models of two families against release lag (study A, figure 5).

The dashed line is the influence expected from sizes and popularity alone.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from pollination.figures import style
from pollination.figures.fingerprint.shared import read

HIDDEN = 1e-3  # smaller influences are not drawn on the log axis; the means include them


def draw(tables: dict[str, Path], out: Path) -> None:
    pairs, statistics = read(tables)
    bins = pd.DataFrame(statistics["influence_by_lag"])
    asymmetry = pd.DataFrame(statistics["asymmetry"])
    if bins.empty:
        return style.nothing(
            "No two models of different families have different release times.",
            out,
            ("what", "kind", "lag"),
        )
    shown = pairs[(pairs.source_family != pairs.target_family) & (pairs.lag != 0)]
    dots = shown[shown.influence > HIDDEN]
    figure = style.Figure(figsize=(9.5, 4.6), layout="constrained")
    axis, side = figure.subplots(1, 2, width_ratios=[2.6, 1])
    axis.set_yscale("log")
    axis.plot(
        dots.lag, dots.influence, ls="", marker="o", ms=2.6, color=style.GREY, alpha=0.5, mew=0
    )
    for half in (bins[bins.lag < 0], bins[bins.lag > 0]):
        axis.fill_between(half.lag, half.low, half.high, color=style.BLUE, alpha=0.18, lw=0)
        axis.plot(half.lag, half["mean"], color=style.BLUE, marker="o", ms=4.5, lw=1.6)
        axis.plot(half.lag, half.expected, color=style.BLACK, ls="--", lw=1.2)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(style.MaxNLocator(integer=True))
    axis.axvline(0, color=style.BLACK, lw=1)
    axis.set_xlabel(f"release of B after A, {statistics['lag']}")
    axis.set_ylabel("influence I(A → B) (log scale)")
    hidden = (
        f" ({len(shown) - len(dots)} at or below {HIDDEN:g} not drawn)"
        if len(dots) < len(shown)
        else ""
    )
    axis.set_title(f"{len(shown)} ordered pairs of different families{hidden}")
    draw_asymmetry(side, asymmetry)
    keys = [
        Line2D([], [], ls="", marker="o", ms=3, color=style.GREY, label="pair"),
        Line2D(
            [],
            [],
            color=style.BLUE,
            marker="o",
            ms=4.5,
            label="mean of a bin (band: 95 %, models resampled)",
        ),
        Line2D(
            [],
            [],
            color=style.BLACK,
            ls="--",
            marker="o",
            mfc="white",
            ms=4.5,
            label="expected from sizes and popularity alone",
        ),
    ]
    if asymmetry.adjusted.notna().any():
        look: dict[str, Any] = {"ls": "", "marker": "x", "color": style.BLUE}
        keys.append(Line2D([], [], label="excess over it for equal text", **look))
    style.legend(figure, keys)
    rows = pd.concat(
        [bins.assign(what="bin", kind="all"), asymmetry.assign(what="asymmetry")], ignore_index=True
    )
    first = ["what", "kind"]
    style.save(figure, rows[[*first, *(name for name in rows if name not in first)]], out)


def draw_asymmetry(axis: Axes, asymmetry: pd.DataFrame) -> None:
    """Draw the asymmetry by kind of feature: raw, expected, and for equal text if known."""
    rows = asymmetry.iloc[::-1].reset_index(drop=True)
    axis.axvline(0, color=style.BLACK, lw=1)
    axis.hlines(rows.index, rows.expected, rows.raw, color=style.GREY, lw=1)
    axis.plot(rows.expected, rows.index, ls="", marker="o", mfc="white", color=style.BLACK, ms=5)
    axis.plot(rows.raw, rows.index, ls="", marker="o", color=style.BLUE, ms=5)
    axis.plot(rows.adjusted, rows.index, ls="", marker="x", color=style.BLUE, ms=5)
    axis.set_yticks(rows.index, rows.kind)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_title("asymmetry: influence on newer\nminus on older models")
    axis.set_xlabel("difference of I(A → B)")
