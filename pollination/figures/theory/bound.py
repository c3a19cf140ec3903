"""Draw the printed tail bound (study A, appendix A.1) beside exact and simulated probability.

The figure also shows the bounds that follow from the steps of the proof.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D

from pollination.figures import style
from pollination.figures.theory import shared

BOUNDS = {  # column -> colour, line, name
    "printed": (style.VERMILLION, "-", "printed bound"),
    "at_t": (style.ORANGE, "--", "its own steps, constant √(8/3)"),
    "chernoff": (style.PURPLE, "-.", "same approximation, best t"),
}
FLOOR = 1e-9  # smaller probabilities are in the CSV only


def draw(tables: dict[str, Path], out: Path) -> None:
    rows = shared.read(tables)
    panels = sorted(rows.k.unique())
    figure, axes = style.grid(len(panels), columns=3, width=3.9, height=3.6, sharey=True)
    samples = sorted(rows.n.unique())
    shades = dict(zip(samples, colormaps["winter"](np.linspace(0, 0.9, len(samples))), strict=True))
    for axis, k in zip(axes, panels, strict=True):
        shown = rows[rows.k == k]
        bounds = shown[shown.n == samples[0]]
        for column, (colour, line, _) in BOUNDS.items():
            axis.plot(bounds.x, bounds[column], color=colour, ls=line, lw=1.8)
        for n, part in shown.groupby("n"):
            axis.plot(part.x, part.exact, color=shades[n], lw=1.1)
            seen = part[part.simulated_low > part.simulated / 2]  # fewer hits are too noisy
            axis.plot(seen.x, seen.simulated, ls="", marker="o", ms=2.4, color=shades[n])
        axis.set_yscale("log")
        axis.set_xlim(0, bounds.x[bounds.printed >= FLOOR].max())
        axis.set_ylim(FLOOR, 30)
        empty = bounds[bounds.printed >= 1].x.max()
        axis.axvspan(0, empty, color=style.GREY, alpha=0.15, lw=0)
        axis.axhline(1, color=style.BLACK, ls=":", lw=1)
        axis.set_title(f"best of K = {k}" if k > 1 else "one estimator")
        axis.set_xlabel(r"$n\,\delta\,/\,\sigma^2$")
    axes[0].set_ylabel("P(W ≥ δ), or its bound")
    axes[0].text(
        0.01,
        0.03,
        "grey: the printed\nbound is 1 or more",
        transform=axes[0].transAxes,
        fontsize=8,
        color="#555555",
    )
    handles = [
        Line2D([], [], color=colour, ls=line, lw=1.8, label=name)
        for colour, line, name in BOUNDS.values()
    ]
    handles += [
        Line2D(
            [],
            [],
            color=shades[n],
            marker="o",
            ms=2.4,
            lw=1.1,
            label=f"exact, {n}" if n > samples[0] else f"exact, n = {n}",
        )
        for n in samples
    ]
    style.legend(figure, handles)
    style.save(figure, rows, out)
