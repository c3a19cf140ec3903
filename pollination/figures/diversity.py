"""Draw the diversity that is best after T rounds and its certainty (study B, figures 3, 5a)."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pollination.analysis import trajectories
from pollination.analysis.ecosystems import Optimum
from pollination.analysis.run import Run
from pollination.figures import style

COLUMNS = (
    "label",
    "T",
    "diversity",
    "mu",
    "low",
    "high",
    "probability",
    "optimum",
    "monotone",
    "monotone_probability",
    "rises_probability",
    "optimum_low",
    "optimum_high",
    "replicates",
)


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    figure, axes = style.grid(len(roles["ecosystems"]), columns=2, width=4.6, height=3.0)
    numbers = []
    for axis, (label, entry) in zip(axes, roles["ecosystems"].items(), strict=True):
        optimum = trajectories.optimum(trajectories.read(run, entry, roles["text"]), label)
        numbers += rows(label, optimum)
        draw_panel(axis, optimum)
        said = (
            f"P(D_opt never falls) = {optimum.monotone_probability:.2f}, "
            f"P(D_opt rises) = {optimum.rises_probability:.2f}"
        )
        axis.set_title(f"{label}, {_runs(optimum.replicates)}\n{said}", fontsize=9)
    keys = [
        Line2D(
            [],
            [],
            color=style.BLACK,
            marker="o",
            ms=5,
            label="D_opt(T): D with the lowest perplexity, 95 % interval",
        ),
        Patch(facecolor=style.BLUE, alpha=0.6, label="probability that D is best (bootstrap)"),
    ]
    style.legend(figure, keys)
    style.save(figure, numbers, out)


def _runs(replicates: list[int]) -> str:
    """Return how many runs each D has, in words."""
    if set(replicates) == {1}:
        return "one run of each D (no variation between runs)"
    if len(set(replicates)) == 1:
        return f"{replicates[0]} runs of each D"
    return f"runs of each D: {', '.join(map(str, replicates))}"


def rows(label: str, optimum: Optimum) -> list[dict]:
    """Return a row for each D and T."""
    shared = {
        "label": label,
        "monotone": optimum.monotone,
        "monotone_probability": optimum.monotone_probability,
        "rises_probability": optimum.rises_probability,
    }
    every = [
        shared
        | {
            "T": t + 1,
            "diversity": optimum.diversities[d],
            "mu": mu,
            "low": optimum.low_DT[d, t],
            "high": optimum.high_DT[d, t],
            "probability": optimum.probability_DT[d, t],
            "optimum": bool(optimum.best_T[t] == d),
            "optimum_low": optimum.diversities[optimum.low_T[t]],
            "optimum_high": optimum.diversities[optimum.high_T[t]],
            "replicates": optimum.replicates[d],
        }
        for (d, t), mu in np.ndenumerate(optimum.mu_DT)
    ]
    return [{key: row[key] for key in COLUMNS} for row in every]


def draw_panel(axis: Axes, optimum: Optimum) -> None:
    count, rounds = optimum.mu_DT.shape
    blues = LinearSegmentedColormap.from_list("certainty", ["#ffffff", "#5aa5d6"])
    axis.pcolormesh(
        np.arange(rounds + 1) + 0.5,
        np.arange(count + 1) - 0.5,
        optimum.probability_DT,
        cmap=blues,
        vmin=0,
        vmax=1,
    )
    axis.vlines(
        np.arange(rounds) + 1, optimum.low_T, optimum.high_T, color=style.BLACK, lw=2.5, alpha=0.35
    )
    axis.plot(np.arange(rounds) + 1, optimum.best_T, color=style.BLACK, marker="o", ms=5, lw=1.2)
    for (d, t), share in np.ndenumerate(optimum.probability_DT) if rounds <= 12 else ():
        if share >= 0.005:
            axis.text(
                t + 1,
                d + 0.27,
                f"{share:.2f}".lstrip("0"),
                ha="center",
                va="center",
                fontsize=6.5,
                color="#333333",
            )
    axis.set_yticks(range(count), [f"{diversity:.3g}" for diversity in optimum.diversities])
    axis.xaxis.set_major_locator(style.MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(visible=False)
    axis.set_xlabel("rounds T, human round included")
    axis.set_ylabel("diversity D")
