"""Draw the distribution of block perplexity over all members of an ecosystem (B, figure 13).

The panels are the first and the last measured round.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pollination.analysis import trajectories
from pollination.analysis.run import Run
from pollination.core.statistics import kernels
from pollination.figures import curves, style

POINTS = 200
COLUMNS = (
    "label",
    "experiment",
    "diversity",
    "t",
    "perplexity",
    "density",
    "mean_log10",
    "sd_log10",
)


def draw(run: Run, out: Path) -> None:
    roles, text = run.plan.config["figures"], run.plan.config["figures"]["distribution_text"]
    measured = {
        label: trajectories.rounds_measured(run, entry, text)
        for label, entry in roles["ecosystems"].items()
    }
    shown = {label: (rounds[0], rounds[-1]) for label, rounds in measured.items() if rounds}
    if not shown:
        return style.nothing(f"This run measures no ecosystem on {text}.", out, COLUMNS)
    figure, axes = style.grid(2 * len(shown), columns=2, width=4.6, height=2.9)
    rows = []
    for index, (label, ends) in enumerate(shown.items()):
        ecosystems = sorted(
            trajectories.read(run, roles["ecosystems"][label], text, ends),
            key=lambda ecosystem: ecosystem.diversity,
        )
        for number, (axis, t) in enumerate(zip(axes[2 * index : 2 * index + 2], ends, strict=True)):
            rows += [{"label": label} | row for row in draw_panel(axis, ecosystems, number, t)]
            axis.set_title(f"{label}, {text}: round t = {t}")
        axes[2 * index].legend(
            handles=curves.keys([f"D = {ecosystem.diversity:.3g}" for ecosystem in ecosystems]),
            loc="upper right",
        )
    style.save(figure, rows, out)


def draw_panel(
    axis: Axes, ecosystems: list[trajectories.Ecosystem], number: int, t: int
) -> list[dict]:
    """Draw densities of round t, the `number`-th that was read; return rows without `label`."""
    rows = []
    for place, ecosystem in enumerate(ecosystems):
        mixed = np.log10(
            np.concatenate(
                [member[number] for replicate in ecosystem.perplexity for member in replicate]
            )
        )
        x, y = density(mixed)
        axis.plot(10**x, y, lw=1.5, **(curves.look(place) | {"marker": None}))
        axis.plot(10 ** mixed.mean(), np.interp(mixed.mean(), x, y), ms=6, **curves.look(place))
        about = (ecosystem.label, ecosystem.diversity, t)
        moments = (mixed.mean(), mixed.std())
        rows += [
            dict(zip(COLUMNS[1:], (*about, 10**a, b, *moments), strict=True))
            for a, b in zip(x, y, strict=True)
        ]
    axis.set_xscale("log")
    axis.set_xlabel("perplexity of a block (log scale)")
    axis.set_ylabel("density of log10 perplexity")
    return rows


def density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (places, heights of area 1) of a Gaussian kernel density (Scott's rule).

    `values` are log10 perplexities, so the density is reflected at 0.
    """
    width = max(values.std() * len(values) ** -0.2, 1e-3)
    ends = max(values.min() - 3 * width, 0.0), values.max() + 3 * width
    edges = np.linspace(*ends, POINTS + 1)
    counts, step = np.histogram(values, edges)[0], edges[1] - edges[0]
    places = (edges[:-1] + edges[1:]) / 2
    heights = counts @ kernels(places, places, max(width, step), (0.0, np.inf))
    return places, heights / (heights.sum() * step)
