"""The main result: last generation minus generation 0, and population minus line at the end."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from pollination.analysis.claims.populations import LAST, Accuracies, lead, rise
from pollination.analysis.claims.verdicts import ends
from pollination.analysis.claims.verdicts import measure as tested
from pollination.analysis.run import Run
from pollination.analysis.saturation import Limit, limit
from pollination.figures import style

COLUMNS = (
    "measure",
    "unit",
    "better",
    "comparison",
    "mean",
    "low",
    "high",
    "replicates",
    "variance_between_runs",
    "models",
    "questions",
    "limit",
    "verdict",
    "sentence",
)
POINTS, NATS = "percentage points", "nats per token"
INTERVAL = "95 % confidence interval"
# the measures of answers and of facts that `Run.measures` names
ANSWERS, FACTS = ", accuracy", ", facts known"
SIGNIFICANT = ("rises", "falls", "population higher", "champion higher", "line higher")
CHANGES = {
    "change of population": "population",
    "change of champion": "champion",
    "change of line": "line",
}
ENDS = {"population minus line": "population", "champion minus line": "champion"}
OF_CHANGES = "change of population minus change of line"
UNKNOWN, UNDECIDED = "unknown", "undecided"  # the variance between runs, and the verdict then


def draw(run: Run, out: Path) -> None:
    rows = pd.DataFrame(comparisons(run), columns=list(COLUMNS))
    if rows.empty:
        return style.nothing("This run has no measures to compare.", out, COLUMNS)
    units = [unit for unit in (POINTS, NATS) if unit in set(rows.unit)]
    counts = [rows[rows.unit == unit].measure.nunique() for unit in units]
    columns = [kinds for kinds in (CHANGES, ENDS) if rows.comparison.isin(kinds).any()]
    figure = style.Figure(
        figsize=(4.1 * len(columns) + 2.9, 0.5 + 0.9 * len(units) + 0.62 * sum(counts)),
        layout="constrained",
    )
    ratios = {
        "height_ratios": [count + 0.8 for count in counts],
        "width_ratios": [1.0] * len(columns) + [0.55],
    }
    axes = figure.subplots(len(units), len(columns) + 1, squeeze=False, gridspec_kw=ratios)
    for unit, row in zip(units, axes, strict=True):
        shown = rows[rows.unit == unit]
        measures = list(dict.fromkeys(shown.measure))
        for axis, kinds in zip(row, columns, strict=False):
            forest(axis, shown, measures, kinds)
            axis.set_xlabel(f"{unit} ({shown.better.iloc[0]} is better)")
        row[0].set_yticks(range(len(measures)), measures)
        write_verdicts(row[-1], shown, measures)
    for axis, kinds in zip(axes[0], columns, strict=False):
        axis.set_title(
            f"change, generation {run.last} minus generation 0"
            if kinds is CHANGES
            else f"population minus {run.line_name}, generation {run.last}"
        )
    present = {
        role for kinds in columns for name, role in kinds.items() if (rows.comparison == name).any()
    }
    labels = {
        "population": "population, all members",
        "champion": f"champion ({run.champion_rule()})",
        "line": run.line_name,
    }
    handles = [style.key(role, labels[role], line=False) for role in labels if role in present]
    if (rows.variance_between_runs == UNKNOWN).any():
        label = "other questions only: the variance between runs is unknown"
        handles.append(Line2D([], [], color=style.BLACK, ls=":", lw=2, label=label))
    style.legend(figure, handles)
    style.save(figure, rows, out)


def forest(axis, rows: pd.DataFrame, measures: list[str], kinds: dict[str, str]) -> None:
    """Draw estimates with 95 % intervals: a row per measure, its comparisons below each other."""
    axis.axvline(0, color=style.BLACK, lw=1)
    for index, (name, role) in enumerate(kinds.items()):
        shown = rows[rows.comparison == name]
        offset = 0.22 * (index - (len(kinds) - 1) / 2)
        place = np.array([measures.index(measure) for measure in shown.measure]) + offset
        for unknown, dash in ((False, "-"), (True, ":")):
            mine = (shown.variance_between_runs == UNKNOWN).to_numpy() == unknown
            bars = shown[mine]
            look = {"color": style.COLOUR[role], "lw": 2, "ls": dash}
            axis.hlines(place[mine], bars.low, bars.high, **look)
        axis.plot(
            shown["mean"],
            place,
            ls="",
            marker=style.MARKER[role],
            color=style.COLOUR[role],
            ms=5.5,
            mec="white",
            mew=0.6,
        )
    axis.set_ylim(len(measures) - 0.4, -0.6)
    axis.set_yticks(range(len(measures)), [""] * len(measures))
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_locator(style.MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.margins(x=0.08)


def write_verdicts(axis, rows: pd.DataFrame, measures: list[str]) -> None:
    axis.set_axis_off()
    axis.set_ylim(len(measures) - 0.4, -0.6)
    for measure in measures:
        shown = rows[rows.measure == measure].set_index("comparison")
        name = next(
            name
            for name in ("population minus line", "change of population", "change of line")
            if name in shown.index
        )
        row = shown.loc[name]
        significant = row.verdict in SIGNIFICANT
        quality = (
            {"higher": " (better)", "lower": " (worse)"}[row.better]
            if "higher" in row.verdict
            else ""
        )
        axis.text(
            0,
            measures.index(measure) - 0.14,
            row.verdict + quality,
            va="center",
            fontweight="bold" if significant else "normal",
        )
        below = measures.index(measure) + 0.16
        said = numbers(row) + (", at chance" if row.limit == "at chance" else "")
        said = "saturated" if " at " in row.verdict else said
        axis.text(0, below, said, va="center", fontsize=8, color="#444444")


def numbers(row) -> str:
    digits = 1 if row["unit"] == POINTS else 3
    said = f"{row['mean']:+.{digits}f} [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
    return said.replace("-", "\u2212")


class Measured(Accuracies):
    """Values of one measure of `Run.measures`, for members and for champions."""

    def __init__(self, run: Run, key: tuple[str, bool], folders: list[str], read: Callable) -> None:
        super().__init__(run)
        self.key, self.read = key, read
        sizes = {len(read(folder)[key]) for folder in folders}
        self.asked = min(sizes)
        # another tokenizer gives other sequences, so only means are comparable
        self.comparable = len(sizes) == 1

    def member(self, folder: str, task: str) -> np.ndarray:
        """Return (Q,) values, or (1,) their mean if models answered other questions."""
        values = self.read(folder)[self.key]
        return values if self.comparable else values.mean(keepdims=True)

    def floor(self, task: str, questions: int) -> float:
        """Return the least standard deviation between runs: one answer; nats have none."""
        return 0.0 if self.key[1] else 100.0 / self.asked

    def slots(self, label: str, name: str, generation: int) -> Sequence[int]:
        if label == "champion":
            return [self.run.champion(name, generation)]
        return super().slots(label, name, generation)


def comparisons(run: Run) -> list[dict]:
    """Return the rows of the CSV.

    Per measure: the changes, the differences in the last generation, and the difference between the
    changes. The intervals are those of the claims (docs/claims.md), for nats too.
    """
    read = cache(run.measures)
    chance = run.chance() if run.plan.config["tasks"] else {}
    last, population, line = run.last, run.roles["population"], run.roles["line"]
    folders = [
        folder
        for role in ("population", "line")
        for g in dict.fromkeys((0, last))
        for folder in run.members(role, g).folder
    ]
    rows = []
    # Some texts are measured in one generation or family only.
    common = [key for key in read(folders[0]) if all(key in read(folder) for folder in folders)]
    groups = {"population": population, "champion": population, "line": line}
    tests: list[tuple[str, list[str], Callable]] = [
        (name, [role], rise) for name, role in CHANGES.items() if last > 0
    ]
    tests += [(name, [role, "line"], lead) for name, role in ENDS.items()]
    tests += [(OF_CHANGES, ["population", "line"], rise_over)] if last > 0 else []
    for key in common:
        measure, nats = key
        values = Measured(run, key, folders, read)
        unit, better = (NATS, "lower") if nats else (POINTS, "higher")
        for name, roles, function in tests:
            if not all(groups[role] for role in roles):
                continue
            # a line lends its variance
            donors = {"line": line} if line and "line" not in roles else {}
            sides = {role: groups[role] for role in roles}
            drawn = values.draw(measure, sides, donors, (0, last), "answer")
            finding = tested(drawn, function, name, [LAST])
            used = finding.questions if finding.draws is None else finding.draws
            assert used is not None, "every finding has draws of its runs or of its questions"
            low, high = possible(ends(used), nats, 2 if name == OF_CHANGES else 1)
            models = len(groups[roles[0]]) * len(values.slots(roles[0], groups[roles[0]][0], last))
            row: dict[str, Any] = {"measure": measure, "unit": unit, "better": better}
            row |= {"comparison": name, "mean": finding.estimate, "low": low, "high": high}
            row |= {"replicates": finding.replicates, "variance_between_runs": finding.variance}
            row |= {"models": models, "questions": values.asked if values.comparable else 1}
            reached = None
            if not nats:
                each = drawn.point[:, LAST] if name in ENDS else drawn.point.ravel()
                benchmark = measure.removesuffix(ANSWERS)
                reached = limit(each.tolist(), values.asked, chance.get(benchmark))
            row |= {"limit": reached.kind if reached else ""}
            row |= {"verdict": verdict(name, row, reached)}
            rows.append(row | {"sentence": sentence(row, last, reached, run.line_name)})
    return rows


def possible(ends: tuple[float, float], nats: bool, differences: int = 1) -> tuple[float, float]:
    """Return the ends of an interval, cut to what differences of percentages can be."""
    most = math.inf if nats else 100.0 * differences
    low, high = ends
    return max(low, -most), min(high, most)


def rise_over(x: np.ndarray) -> np.ndarray:
    return rise(x[:, :1]) - rise(x[:, 1:])


def verdict(name: str, result: dict, reached: Limit | None = None) -> str:
    """Return the verdict; a difference is significant if its interval excludes zero.

    If the variance between runs is unknown, it is undecided (docs/claims.md).
    """
    if reached and reached.saturated:
        level = f"{'equal' if name in ENDS else 'unchanged'} at {reached.level:.2f}"
        return level if reached.exact else reached.kind
    if result["variance_between_runs"] == UNKNOWN:
        return UNDECIDED
    if name in CHANGES:
        if result["low"] > 0:
            return "rises"
        return "falls" if result["high"] < 0 else "no significant change"
    first = name.split(" minus ")[0].removeprefix("change of ")
    if result["low"] > 0:
        return f"{first} higher"
    return "line higher" if result["high"] < 0 else "not significant"


def sentence(
    row: dict, last: int, reached: Limit | None = None, line: str = style.NAME["line"]
) -> str:
    """Return the result in plain words. The size of a significant result has no sign.

    `line`: what the line is called.
    """
    name, digits, unit = row["comparison"], *((1, "points") if row["unit"] == POINTS else (3, NATS))
    who = (style.NAME | {"line": line})[name.split(" minus ")[0].removeprefix("change of ")]
    when = f"in generation {last}" if name in ENDS else f"from generation 0 to {last}"
    start = f"{row['measure']}: {when}"
    mean, low, high = (row[key] for key in ("mean", "low", "high"))
    numbers = f"{mean:+.{digits}f} {unit}, {INTERVAL} {low:+.{digits}f} to {high:+.{digits}f}"
    if reached and reached.exact:
        of_facts = row["measure"].endswith(FACTS)
        answer, what = ("know", "fact") if of_facts else ("answer", "question")
        why = f"every model {answer}s every {what}"
        why = why if reached.level else f"no model {answer}s any {what}"
        state = f"the {who} is unchanged"
        if name not in CHANGES:
            state = f"{who} and {line} are {'equal' if name in ENDS else 'unchanged'}"
        return f"{start} {state} at {reached.level:.2f} (saturated: {why})."
    subject = f"the difference between {who} and {line} is"
    if name in CHANGES:
        subject = f"the change of the {who} is"
    elif name not in ENDS:
        subject = f"the difference between the changes of population and {line} is"
    if reached and reached.saturated:
        return f"{start} {subject} {numbers} ({reached.says})."
    also = f" The benchmark is {reached.says}." if reached else ""
    if row["variance_between_runs"] == UNKNOWN:
        why = "the variance between runs is unknown, and the interval covers other questions only"
        return f"{start} {subject} {UNDECIDED} ({numbers}): {why}.{also}"
    if low <= 0 <= high:
        return f"{start} {subject} not significant ({numbers}).{also}"
    least, most = sorted((abs(low), abs(high)))
    size = f"{abs(mean):.{digits}f} {unit} ({INTERVAL} {least:.{digits}f} to {most:.{digits}f})"
    if name in CHANGES:
        return f"{start} the {who} {'rises' if low > 0 else 'falls'} by {size}.{also}"
    side = "exceeds" if low > 0 else "is below"
    if name in ENDS:
        return f"{start} the {who} {side} the {line} by {size}.{also}"
    return f"{start} the change of the population {side} that of the {line} by {size}.{also}"
