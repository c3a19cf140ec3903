"""Draw docs/pictures/campaign.png from the results of config/laptop/campaign.yaml.

python docs/pictures/campaign.py results/campaign docs/pictures/campaign.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import pollination
from pollination.figures.style import BLUE, GREEN, GREY, VERMILLION, mean_band

SELECTS = "knowledge"
ARMS = {  # name: (colour, label)
    "n9": (BLUE, "population of nine"),
    "once": (GREEN, "best founders, chosen once"),
    "random": (GREY, "random parents"),
    "lines": (VERMILLION, "single lines"),
}
TESTS = {  # of the claims page: label
    ("population_over_line", SELECTS): "population − lines",
    ("control_over_line", f"best founders once: {SELECTS}"): "best founders once − lines",
    (
        "population_over_control",
        f"{SELECTS} over best founders once",
    ): "population − best founders once",
    ("population_over_control", f"{SELECTS} over own text"): "population − own text",
    ("control_over_line", f"random parents: {SELECTS}"): "random parents − lines",
}


def pools(folder: Path) -> pd.DataFrame:
    """Return the mean held-out accuracy in points of each arm, seed (rows) and generation."""
    run = pollination.load_run(folder)
    scores = run.scores.query("name == @SELECTS and metric == 'accuracy'")
    scores = scores.merge(run.members, on=["experiment", "generation", "member"])
    return 100 * scores.groupby(["group", "seed", "generation"]).value.mean().unstack()


def main(folder: Path, out: str) -> None:
    """Draw the accuracies of the arms, and the differences as the claims page tests them."""
    table = pools(folder)
    tests = pd.read_csv(folder / "report/claims.csv").set_index(["id", "tested_on"])
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 1.1))
    for arm, (colour, label) in ARMS.items():
        mean, half = np.array([mean_band(table.loc[arm][g]) for g in table.columns]).T
        left.plot(table.columns, mean, "o-", color=colour, label=label)
        left.fill_between(table.columns, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
    left.set(xlabel="generation", ylabel="held-out questions right, %", xticks=table.columns)
    left.legend(frameon=False, fontsize=8)
    for row, test in enumerate(TESTS):
        estimate, low, high = tests.loc[test, ["estimate", "low", "high"]].astype(float)
        right.plot((low, high), (-row, -row), color="black")
        right.plot(estimate, -row, "o", color="black")
        right.text(9.5, -row, f"{estimate:+.1f} [{low:.1f}, {high:.1f}]", va="center")
    right.axvline(0, color="black", lw=0.8)
    right.set(xlabel="difference in the last generation, points", xlim=(-3, 14.5))
    right.set_xticks((0, 5))
    right.set_yticks(-np.arange(len(TESTS)), TESTS.values())
    right.set_ylim(-len(TESTS) + 0.5, 0.5)
    fig.tight_layout()
    fig.savefig(out, dpi=160)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
