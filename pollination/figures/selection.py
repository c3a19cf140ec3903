"""Draw how much of the choice of parents is noise, and by how much it flatters the parents.

The first is core.statistics.selection_confidence, the second evolution.selection.winners_curse.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
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
    "reported_accuracy",
    "reported_questions",
    "all_accuracy",
    "gap",
    "gap_stderr",
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
    is_sure, is_split = (not all(np.isnan(row[key]) for row in rows) for key in ("same_set", "gap"))
    if not is_sure and not is_split:
        reason = "The selection rule does not choose by accuracy, so its certainty is unknown."
        return style.nothing(reason, out, COLUMNS)
    count = 2 * is_sure + is_split
    figure, axes = style.grid(count, columns=3, width=4.4, height=3.1)
    marks = dict(zip(names, "os^Dv<>ph*" * len(names), strict=False))
    shown = {name: [row for row in rows if row["experiment"] == name] for name in names}
    keys = []
    if is_sure:
        first = run.selection(names[0], 0)
        keys += draw_confidence(axes[0], axes[1], shown, marks, first["k"], len(first["ranking"]))
    if is_split:
        keys.append(draw_gap(axes[-1], shown, marks))
    for axis in axes:
        style.generation_axis(axis, run.generations("population") - 1)
    style.legend(figure, keys)
    style.save(figure, rows, out)


def draw_confidence(
    sure: Axes, each: Axes, rows: dict[str, list[dict]], marks: dict[str, str], k: int, n: int
) -> list[Line2D]:
    """Draw the confidence in the set of parents, and in each parent; return the legend's keys."""
    look: dict[str, Any] = {"color": style.BLUE, "lw": 1.4, "ms": 5}
    share: dict[str, Any] = {"color": style.BLUE, "ls": "--", "mfc": "white"}
    for name, shown in rows.items():
        leaders = [row for row in shown if row["rank"] == 0]
        place = [row["generation"] for row in leaders]
        sure.plot(place, [row["same_set"] for row in leaders], marker=marks[name], **look)
        overlap = [row["expected_overlap"] / k for row in leaders]
        sure.plot(place, overlap, marker=marks[name], **look | share)
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
    said = f"expected share of the set truly among the best {k}"
    return [
        Line2D([], [], marker="o", label=f"P(the set is truly the best {k})", **look),
        Line2D([], [], marker="o", label=said, **look | share),
        Line2D([], [], color=style.BLACK, ls=":", label="random choice"),
    ]


def draw_gap(axis: Axes, rows: dict[str, list[dict]], marks: dict[str, str]) -> Line2D:
    """Draw the winner's curse over generations with 95 % intervals; return the legend's key."""
    look: dict[str, Any] = {"color": style.BLUE, "lw": 1.4, "ms": 5}
    for name, shown in rows.items():
        leaders = [row for row in shown if row["rank"] == 0]
        axis.errorbar(
            [row["generation"] for row in leaders],
            [100 * row["gap"] for row in leaders],
            yerr=[196 * row["gap_stderr"] for row in leaders],
            marker=marks[name],
            capsize=2,
            **look,
        )
    axis.axhline(0, color=style.BLACK, lw=1)
    axis.set_title("winner's curse of the parents")
    axis.set_ylabel("selecting minus reporting half,\npercentage points")
    return Line2D([], [], marker="o", label="parents minus all members (bars: 95 %)", **look)


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
    shared |= {"reported_questions": choice["questions"]}
    shared |= {
        "tied_at_the_cut": len(ties["at_the_cut"]) if ties else np.nan,
        "experiment": name,
        "generation": generation,
    }
    if "split" in choice:
        curse = choice["winners_curse"]
        shared |= {"gap": curse["gap"], "reported_questions": choice["reported"]["questions"]}
        shared |= {"gap_stderr": np.nan if curse["stderr"] is None else curse["stderr"]}
    # Without a split, all questions select and are reported.
    reported, every = (choice.get(part, choice)["accuracies"] for part in ("reported", "all"))
    rows = [
        {
            "member": m,
            "rank": rank,
            "accuracy": choice["accuracies"][m],
            "stderr": choice["standard_errors"][m],
            "reported_accuracy": reported[m],
            "all_accuracy": every[m],
            "in_best_k": sure["in_best_k"][rank] if sure else np.nan,
        }
        for rank, m in enumerate(choice["parents"])
    ]
    return [{key: (shared | row).get(key, np.nan) for key in COLUMNS} for row in rows]
