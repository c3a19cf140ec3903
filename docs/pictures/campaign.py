"""Draw docs/pictures/campaign.png from the results of config/laptop/campaign.yaml.

python docs/pictures/campaign.py results/campaign docs/pictures/campaign.png
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t

import pollination
from pollination.figures.style import BLUE, GREEN, GREY, VERMILLION

SELECTS = "knowledge"
ARMS = {  # name: (colour, label)
    "n9": (BLUE, "population of nine"),
    "once": (GREEN, "best founders, chosen once"),
    "random": (GREY, "random parents"),
    "lines": (VERMILLION, "single lines"),
}
DIFFERENCES = {  # first, second: label
    ("n9", "lines"): "population − lines",
    ("once", "lines"): "best founders once − lines",
    ("n9", "once"): "population − best founders once",
    ("n9", "own_text"): "population − own text",
    ("random", "lines"): "random parents − lines",
}


def pools(folder: str) -> pd.DataFrame:
    """Return the mean held-out accuracy in points of each arm, seed and generation."""
    run = pollination.load_run(folder)
    scores = run.scores.query("name == @SELECTS and metric == 'accuracy'")
    scores = scores.merge(run.members, on=["experiment", "generation", "member"])
    return 100 * scores.groupby(["group", "seed", "generation"]).value.mean().unstack()


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return a mean and the half of its 95 % interval; one value is one pool."""
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


def main(folder: str, out: str) -> None:
    """Draw the picture."""
    table = pools(folder)
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 1.1))
    for arm, (colour, label) in ARMS.items():
        found = [interval(table.loc[arm][g].to_numpy()) for g in table.columns]
        mean, half = np.array(found).T
        left.plot(table.columns, mean, "o-", color=colour, label=label)
        left.fill_between(table.columns, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
    left.set(xlabel="generation", ylabel="held-out questions right, %", xticks=table.columns)
    left.legend(frameon=False, fontsize=8)
    last = table.columns[-1]
    for row, ((first, second), label) in enumerate(DIFFERENCES.items()):
        mean, half = interval((table.loc[first][last] - table.loc[second][last]).to_numpy())
        right.errorbar(mean, -row, xerr=half, fmt="o", color="black")
        right.text(10, -row, f"{mean:+.1f} [{mean - half:.1f}, {mean + half:.1f}]", va="center")
    right.axvline(0, color="black", lw=0.8)
    right.set(xlabel="difference in the last generation, points", xlim=(-3, 14.5))
    right.set_yticks(-np.arange(len(DIFFERENCES)), DIFFERENCES.values())
    right.set_ylim(-len(DIFFERENCES) + 0.5, 0.5)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(out, dpi=160)


if __name__ == "__main__":
    main(*sys.argv[1:])
