"""Draw influence between models of two families against release lag (study A, figure 5).

The dashed line is the influence expected from sizes and popularity alone.
"""

from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from pollination.figures import style
from pollination.figures.fingerprint.shared import number, read

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
        axis.plot(half.lag, half.expected, color=style.VERMILLION, ls="--", lw=1.4)
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
    side.set_axis_off()
    side.set_title("asymmetry: influence on newer\nminus on older models")
    side.text(
        0, 0.97, said(asymmetry), transform=side.transAxes, va="top", fontsize=8.5, linespacing=1.55
    )
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
            color=style.VERMILLION,
            ls="--",
            label="expected from sizes and popularity alone",
        ),
    ]
    style.legend(figure, keys)
    rows = pd.concat(
        [bins.assign(what="bin", kind="all"), asymmetry.assign(what="asymmetry")], ignore_index=True
    )
    first = ["what", "kind"]
    style.save(figure, rows[[*first, *(name for name in rows if name not in first)]], out)


def said(asymmetry: pd.DataFrame) -> str:
    """Return the asymmetry by kind: raw, expected, excess, and for equal text if known."""
    lines = []
    for row in asymmetry.iloc[::-1].itertuples():
        lines.append(f"{row.kind}")
        lines.append(f"   raw {number(row.raw)} (p {number(row.p_raw)})")
        lines.append(f"   expected {number(row.expected)}")
        lines.append(f"   excess {number(row.excess)} (p {number(row.p_excess)})")
        if pd.notna(row.adjusted):
            lines.append(f"   for equal text {number(row.adjusted)} (p {number(row.p_adjusted)})")
    return "\n".join(lines)
