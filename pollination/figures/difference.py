"""The main result: last generation minus generation 0, and population minus line at the end."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pollination.analysis.run import Run
from pollination.analysis.saturation import Limit, limit
from pollination.core.seeds import derive_seed
from pollination.core.statistics import change_difference, difference_interval
from pollination.figures import style
from pollination.plan import layout

COLUMNS = (
    "measure",
    "unit",
    "better",
    "comparison",
    "mean",
    "low",
    "high",
    "stderr",
    "models",
    "questions",
    "limit",
    "verdict",
    "sentence",
)
POINTS, NATS = "percentage points", "nats per token"
RESAMPLES = 4_000
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
            else f"population minus single line, generation {run.last}"
        )
    present = {
        role for kinds in columns for name, role in kinds.items() if (rows.comparison == name).any()
    }
    labels = {
        "population": "population, all members",
        "champion": f"champion ({run.champion_rule()})",
        "line": "single line",
    }
    style.legend(
        figure, [style.key(role, labels[role], line=False) for role in labels if role in present]
    )
    style.save(figure, rows, out)


def forest(axis, rows: pd.DataFrame, measures: list[str], kinds: dict[str, str]) -> None:
    """Draw estimates with 95 % intervals: a row per measure, its comparisons below each other."""
    axis.axvline(0, color=style.BLACK, lw=1)
    for index, (name, role) in enumerate(kinds.items()):
        shown = rows[rows.comparison == name]
        offset = 0.22 * (index - (len(kinds) - 1) / 2)
        place = np.array([measures.index(measure) for measure in shown.measure]) + offset
        axis.hlines(place, shown.low, shown.high, color=style.COLOUR[role], lw=2)
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


def comparisons(run: Run) -> list[dict]:
    """Return the rows of the CSV.

    Per measure: the changes, the differences in the last generation, and the difference between the
    changes.
    """
    read = cache(run.measures)
    chance = run.chance() if run.plan.config["tasks"] else {}
    last, population, line = run.last, run.roles["population"], run.roles["line"]
    groups = {
        (role, g): [layout.member_folder(run.plan, name, g, 0) for name in run.roles[role]]
        if role == "line"
        else list(run.members(role, g).folder)
        for role in ("population", "line")
        for g in (0, last)
    }
    groups |= {
        ("champion", g): [
            layout.member_folder(run.plan, name, g, run.champion(name, g)) for name in population
        ]
        for g in (0, last)
    }
    rows = []
    first, *more_folders = [folder for folders in groups.values() for folder in folders]
    # Some texts are measured in one generation or family only.
    common = [key for key in read(first) if all(key in read(folder) for folder in more_folders)]
    for measure, nats in common:
        stacks = {
            key: stack([read(folder)[measure, nats] for folder in folders])
            for key, folders in groups.items()
            if folders
        }
        widths = {values.shape[1] for values in stacks.values()}
        if len(widths) > 1:  # another tokenizer gives other sequences, so only means are comparable
            stacks = {key: values.mean(axis=1, keepdims=True) for key, values in stacks.items()}
        unit, better = (NATS, "lower") if nats else (POINTS, "higher")
        options: dict[str, Any] = {
            "seed": derive_seed("difference", measure),
            "resamples": RESAMPLES,
        }
        intervals, compared = {}, {}
        for name, role in CHANGES.items() if last > 0 else ():
            if groups[role, 0]:
                intervals[name] = difference_interval(
                    stacks[role, last], stacks[role, 0], paired=role != "population", **options
                )
                compared[name] = [stacks[role, last], stacks[role, 0]]
        for name, role in ENDS.items() if population and line else ():
            intervals[name] = difference_interval(
                stacks[role, last], stacks["line", last], **options
            )
            compared[name] = [stacks[role, last], stacks["line", last]]
        if population and line and last > 0:
            both = [(stacks[role, 0], stacks[role, last]) for role in ("population", "line")]
            name = "change of population minus change of line"
            intervals[name] = change_difference(both[0], both[1], **options)
            compared[name] = [values for pair in both for values in pair]
        for name, result in intervals.items():
            role = CHANGES.get(name) or ENDS.get(name) or "population"
            row = {"measure": measure, "unit": unit, "better": better, "comparison": name, **result}
            row |= {"models": len(stacks[role, last]), "questions": stacks[role, last].shape[1]}
            reached = None
            if not nats:
                each = [float(values.mean()) for values in compared[name]]
                asked = min(len(read(folder)[measure, nats]) for folder in (first, *more_folders))
                reached = limit(each, asked, chance.get(measure.removesuffix(ANSWERS)))
            row |= {"limit": reached.kind if reached else ""}
            row |= {"verdict": verdict(name, result, reached)}
            rows.append(row | {"sentence": sentence(row, run.last, reached)})
    return rows


def stack(values: list[np.ndarray]) -> np.ndarray:
    """Return (groups, questions), or (groups, 1) of means if models answered other questions."""
    if len({len(row) for row in values}) > 1:
        values = [np.array([row.mean()]) for row in values]
    return np.stack(values)


def verdict(name: str, result: dict, reached: Limit | None = None) -> str:
    """Return the verdict; a difference is significant if its interval excludes zero."""
    if reached and reached.saturated:
        level = f"{'equal' if name in ENDS else 'unchanged'} at {reached.level:.2f}"
        return level if reached.exact else reached.kind
    if name in CHANGES:
        if result["low"] > 0:
            return "rises"
        return "falls" if result["high"] < 0 else "no significant change"
    first = name.split(" minus ")[0].removeprefix("change of ")
    if result["low"] > 0:
        return f"{first} higher"
    return "line higher" if result["high"] < 0 else "not significant"


def sentence(row: dict, last: int, reached: Limit | None = None) -> str:
    """Return the result in plain words. The size of a significant result has no sign."""
    name, digits, unit = row["comparison"], *((1, "points") if row["unit"] == POINTS else (3, NATS))
    who = style.NAME[name.split(" minus ")[0].removeprefix("change of ")]
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
            state = f"{who} and single line are {'equal' if name in ENDS else 'unchanged'}"
        return f"{start} {state} at {reached.level:.2f} (saturated: {why})."
    subject = f"the difference between {who} and single line is"
    if name in CHANGES:
        subject = f"the change of the {who} is"
    elif name not in ENDS:
        subject = "the difference between the changes of population and single line is"
    if reached and reached.saturated:
        return f"{start} {subject} {numbers} ({reached.says})."
    also = f" The benchmark is {reached.says}." if reached else ""
    if low <= 0 <= high:
        return f"{start} {subject} not significant ({numbers}).{also}"
    least, most = sorted((abs(low), abs(high)))
    size = f"{abs(mean):.{digits}f} {unit} ({INTERVAL} {least:.{digits}f} to {most:.{digits}f})"
    if name in CHANGES:
        return f"{start} the {who} {'rises' if low > 0 else 'falls'} by {size}.{also}"
    side = "exceeds" if low > 0 else "is below"
    if name in ENDS:
        return f"{start} the {who} {side} the single line by {size}.{also}"
    return f"{start} the change of the population {side} that of the single line by {size}.{also}"
