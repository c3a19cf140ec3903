"""Draw docs/pictures/campaign_ecosystem.png from config/laptop/campaign_ecosystem.yaml's report.

python docs/pictures/campaign_ecosystem.py results/campaign_ecosystem/report \
    docs/pictures/campaign_ecosystem.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from pollination.figures.style import BLUE, GREEN, VERMILLION

ARMS = {  # label: (colour, legend, shift on the axis)
    "shared budget": (BLUE, "models share the steps", -0.04),
    "equal steps": (VERMILLION, "each as many steps as one model", 0.04),
}
SLOW = "one model with few steps", "few steps"  # title and label in comparisons.csv


def main(report: Path, out: str) -> None:
    """Draw the best diversity after T rounds, and the mean perplexity of all rounds."""
    best = pd.read_csv(report / "diversity.csv")
    best = best[best.optimum]
    means = pd.read_csv(report / "aggregates.csv")
    slow = pd.read_csv(report / "comparisons.csv").set_index(["title", "experiment"]).loc[SLOW]
    levels = sorted(means.diversity.unique())
    place = {level: number for number, level in enumerate(levels)}
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
    for label, (colour, legend, shift) in ARMS.items():
        rows = best[best.label == label].sort_values("T")
        ends = rows.optimum_low.map(place), rows.optimum_high.map(place)
        left.vlines(rows["T"] + 2 * shift, *ends, color=colour, lw=3, alpha=0.4)
        left.plot(rows["T"] + 2 * shift, rows.diversity.map(place), "o-", color=colour)
        rows = means[means.label == label].sort_values("diversity")
        x = rows.diversity.map(place) + shift
        right.vlines(x, rows.low, rows.high, color=colour)
        right.plot(x, rows.mu, "o-", color=colour, label=legend)
    one = slow.iloc[0]
    right.vlines(0.12, one.low, one.high, color=GREEN)
    right.plot(0.12, one["aggregate"], "s", color=GREEN, label="one model, an eighth of the steps")
    left.set(xlabel="rounds T", ylabel="best number of models D", xticks=range(1, 11))
    left.set_yticks(range(len(levels)), [f"{level:g}" for level in levels])
    right.set(xlabel="number of models D", ylabel="perplexity, mean of ten rounds", yscale="log")
    right.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    right.legend(frameon=False, fontsize=8)
    fig.tight_layout()
    fig.savefig(out, dpi=160)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
