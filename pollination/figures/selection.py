"""Draw how much of the choice of parents is noise (core.statistics.selection_confidence)."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from scipy.special import comb

from pollination.analysis.run import Run
from pollination.figures import style
from pollination.plan import layout

COLUMNS = (
    "experiment",
    "generation",
    "member",
    "rank",
    "accuracy",
    "stderr",
    "questions",
    "in_best_k",
    "same_set",
    "same_set_by_chance",
    "expected_overlap",
    "expected_regret",
    "tied_at_the_cut",
)


def draw(run: Run, out: Path) -> None:
    names = [name for name in run.roles["population"] if layout.selects(run.plan, name)]
    if not names:
        return style.nothing("This run has no selection of parents.", out, COLUMNS)
    rows = [
        row
        for name in names
        for g in range(run.generations("population"))
        for row in generation_rows(run, name, g)
    ]
    if all(np.isnan(row["same_set"]) for row in rows):
        reason = "The selection rule does not choose by accuracy, so its certainty is unknown."
        return style.nothing(reason, out, COLUMNS)
    first = run.selection(names[0], 0)
    k, n = first["k"], len(first["ranking"])
    figure, (sure, each) = style.grid(2, columns=2, width=4.4, height=3.1)
    marks = dict(zip(names, "os^Dv<>ph*" * len(names), strict=False))
    for name in names:
        shown = [row for row in rows if row["experiment"] == name]
        leaders = [row for row in shown if row["rank"] == 0]
        place = [row["generation"] for row in leaders]
        sure.plot(
            place,
            [row["same_set"] for row in leaders],
            color=style.BLUE,
            marker=marks[name],
            ms=5,
            lw=1.4,
        )
        sure.plot(
            place,
            [row["expected_overlap"] / k for row in leaders],
            color=style.GREEN,
            marker=marks[name],
            ms=5,
            lw=1.4,
            ls="--",
            mfc="white",
        )
        offset = [
            row["generation"] + 0.5 * (row["rank"] / max(1, k - 1) - 0.5) * (k > 1) for row in shown
        ]
        each.plot(
            offset,
            [row["in_best_k"] for row in shown],
            color=style.BLUE,
            marker=marks[name],
            ms=4.5,
            ls="",
            alpha=0.85,
        )
    sure.axhline(1 / comb(n, k, exact=True), color=style.BLACK, ls=":", lw=1)
    each.axhline(k / n, color=style.BLACK, ls=":", lw=1)
    sure.set_title(f"the {k} selected of {n}, as a set")
    each.set_title("each parent, by rank from left to right")
    each.set_ylabel(f"probability that the parent\nis truly among the best {k}")
    sure.set_ylabel("probability; expected share")
    for axis in (sure, each):
        axis.set_ylim(-0.04, 1.04)
        style.generation_axis(axis, run.generations("population") - 1)
    keys = [
        Line2D(
            [],
            [],
            color=style.BLUE,
            marker="o",
            label=f"P(the set is truly the best {k})",
        ),
        Line2D(
            [],
            [],
            color=style.GREEN,
            marker="o",
            mfc="white",
            ls="--",
            label=f"expected share of the set truly among the best {k}",
        ),
        Line2D([], [], color=style.BLACK, ls=":", label="random choice"),
    ]
    style.legend(figure, keys)
    style.save(figure, rows, out)


def generation_rows(run: Run, name: str, generation: int) -> list[dict]:
    """Return a row per selected member of one generation, by rank."""
    choice = run.selection(name, generation)
    k, n = choice["k"], len(choice["ranking"])
    # Both are absent if the rule does not choose by accuracy.
    sure, ties = choice["confidence"] or {}, choice["ties"]
    shared = {
        key: sure.get(key, np.nan) for key in ("same_set", "expected_overlap", "expected_regret")
    }
    shared |= {"same_set_by_chance": 1 / comb(n, k, exact=True), "questions": choice["questions"]}
    shared |= {
        "tied_at_the_cut": len(ties["at_the_cut"]) if ties else np.nan,
        "experiment": name,
        "generation": generation,
    }
    rows = [
        {
            "member": m,
            "rank": rank,
            "accuracy": choice["accuracies"][m],
            "stderr": choice["standard_errors"][m],
            "in_best_k": sure["in_best_k"][rank] if sure else np.nan,
        }
        for rank, m in enumerate(choice["parents"])
    ]
    return [{key: (shared | row).get(key, np.nan) for key in COLUMNS} for row in rows]
