"""Draw each measure of the last generation against the swept key, with intervals.

Of several swept keys, the first is the x axis, and the others are colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from pollination.analysis.claims.verdicts import ends
from pollination.analysis.run import Run
from pollination.figures import curves, style
from pollination.figures.difference import Measured
from pollination.plan import layout

DECADE = (
    10.0  # an axis is logarithmic if its largest value exceeds the least above 0 by this factor
)
DODGE = 5.0  # points between the bars of two colours
LOG = ", log perplexity"
COLUMNS = (
    "measure",
    "unit",
    "variant",
    "generation",
    "mean",
    "low",
    "high",
    "interval",
    "replicates",
    "members",
    "questions",
)
RUNS, QUESTIONS = "runs and questions", "questions"


def draw(run: Run, out: Path) -> None:
    (sweep,) = run.plan.config["sweeps"].values()
    rows = pd.DataFrame(measured(run, sweep), columns=[*sweep["keys"], *COLUMNS])
    if rows.empty:
        return style.nothing("This run has no measures to compare.", out, list(rows.columns))
    x_key, *others = sweep["keys"]
    values = [variant["values"] for variant in sweep["variants"].values()]
    axis_of_x = Scale.of([one[x_key] for one in values])
    groups = _groups(values, x_key, others)
    measures = list(dict.fromkeys(rows.measure))
    columns = 2 if len(measures) in (2, 4) else 3
    figure, axes = style.grid(len(measures), columns=columns, width=4.1, height=3.0)
    for axis, measure in zip(axes, measures, strict=True):
        shown = rows[rows.measure == measure]
        for place, group in enumerate(groups):
            mine = [len(groups) == 1 or _label(row, others) == group for _, row in shown.iterrows()]
            points = shown[mine]
            shift = DODGE * (place - (len(groups) - 1) / 2)
            look = curves.look(place) | ({"ls": ""} if axis_of_x.kind == "text" else {})
            draw_group(axis, points, axis_of_x.at(points[x_key]), look, shift)
        axis_of_x.show(axis)
        axis.set_title(measure)
        follow = f" (and {', '.join(others)})" if others and len(groups) == 1 else ""
        axis.set_xlabel(x_key + follow)
        axis.set_ylabel(shown.unit.iloc[0])
    handles = curves.keys(groups) if len(groups) > 1 else []
    for handle in handles if axis_of_x.kind == "text" else ():
        handle.set_linestyle("")
    dashes = {RUNS: "-", QUESTIONS: ":"}
    labels = {
        RUNS: "95 % interval over runs and questions",
        QUESTIONS: "95 % interval over questions: the variance between runs is unknown",
    }
    for kind in dict.fromkeys(rows.interval):
        look = {"color": style.BLACK, "ls": dashes[kind], "lw": 1.6}
        handles.append(Line2D([], [], label=labels[kind], **look))
    style.legend(figure, handles)
    style.save(figure, rows, out)


def measured(run: Run, sweep: dict) -> list[dict]:
    """Return one row per measure and variant, measures first.

    The intervals are those of the claims (docs/claims.md), for each variant alone.
    """
    read = cache(lambda folder: measures(run, folder))
    rows: dict[str, list[dict]] = {}
    for variant, entry in sweep["variants"].items():
        names = entry["runs"]
        last = run.plan.experiment(names[0])["generations"] - 1
        folders = [
            layout.member_folder(run.plan, name, g, m)
            for name in names
            for g in dict.fromkeys((0, last))
            for m in range(run.plan.experiment(name)["population"])
        ]
        given = {k: v if is_number(v) else text_of(v) for k, v in entry["values"].items()}
        for key in [key for key in read(folders[0]) if all(key in read(one) for one in folders)]:
            of = Measured(run, key, folders, read)
            row = given | {"variant": variant} | levels(of, variant, names, (0, last))[-1]
            rows.setdefault(row["measure"], []).append(row)
    return [row for found in rows.values() for row in found]


def levels(
    of: Measured, label: str, names: list[str], generations: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the means of a measure over replicates in `generations`, with their intervals.

    The first generation is 0. `names` are the experiments that repeat the setting `label`.
    """
    key, size = of.key, of.plan.experiment(names[0])["population"]
    drawn = of.draw(key[0], {label: names}, {}, generations, "sweep")
    rows = []
    for place, generation in enumerate(generations):
        full = drawn.full if drawn.known[place] else None
        used, kind = (drawn.questions, QUESTIONS) if full is None else (full, RUNS)
        numbers = drawn.point[0, place], *ends(used[:, 0, place])
        unit = "nats per token"
        if key[0].endswith(LOG):
            unit, numbers = "perplexity", tuple(np.exp(numbers))
        elif not key[1]:
            unit, numbers = "%", tuple(np.clip(numbers, 0.0, 100.0))
        row: dict[str, Any] = {"measure": title(key), "unit": unit, "generation": generation}
        row |= dict(zip(("mean", "low", "high"), map(float, numbers), strict=True))
        row |= {"interval": kind, "replicates": len(names), "members": size}
        rows.append(row | {"questions": of.asked if of.comparable else 1})
    return rows


def title(key: tuple[str, bool]) -> str:
    """Return what the figures call a measure of `measures`."""
    return key[0].replace(LOG, ", perplexity")


def measures(run: Run, folder: str) -> dict[tuple[str, bool], np.ndarray]:
    """Return `Run.measures` on reported questions, and the log perplexity of microworlds too."""
    values = {
        key: each
        for key, each in run.measures(folder).items()
        if not key[0].endswith("selecting half")
    }
    sequences = run.sequences(folder)
    for (corpus, split), part in sequences.groupby(["corpus", "split"], sort=False):
        nats = part.nll.to_numpy() / part.tokens.mean()
        values.setdefault((f"{corpus}/{split}{LOG}", True), nats)
    return values


@dataclass(frozen=True)
class Scale:
    """The x axis of a sweep: numbers (linear or logarithmic), or text at equal distances."""

    values: list
    """The values in their order; numbers by size."""
    kind: str
    """linear, log, symlog (a log scale that has 0), or text."""

    @classmethod
    def of(cls, values: list) -> "Scale":
        found = list({text_of(value): value for value in values}.values())
        if not all(map(is_number, found)):
            return cls(list(map(text_of, found)), "text")
        found.sort()
        above = [value for value in found if value > 0]
        wide = above and max(above) >= DECADE * min(above)
        return cls(found, ("log" if above == found else "symlog") if wide else "linear")

    def at(self, values: pd.Series) -> np.ndarray:
        """Return where values are on the axis."""
        if self.kind == "text":
            return np.array([self.values.index(text_of(value)) for value in values], float)
        return values.to_numpy(float)

    def show(self, axis: Axes) -> None:
        """Set the scale of an axis, with a tick at each value."""
        if self.kind == "text":
            axis.set_xticks(range(len(self.values)), self.values)
            axis.set_xlim(-0.5, len(self.values) - 0.5)
            if sum(map(len, self.values)) > 40:
                axis.tick_params(axis="x", rotation=30)
            return
        least = min((value for value in self.values if value > 0), default=1.0)
        axis.set_xscale(self.kind, **({"linthresh": least} if self.kind == "symlog" else {}))
        axis.set_xticks(self.values, list(map(text_of, self.values)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        scale = axis.xaxis.get_transform()
        first, last = scale.transform(np.array([self.values[0], self.values[-1]], float))
        side = 0.12 * (last - first) or 0.5
        axis.set_xlim(*scale.inverted().transform(np.array([first - side, last + side])))


def draw_group(axis: Axes, rows: pd.DataFrame, x: np.ndarray, look: dict, shift: float) -> None:
    """Draw one colour: means, joined in the order of x, and their intervals.

    `shift`: in points, so that the bars of several colours do not hide each other.
    """
    order = np.argsort(x, kind="stable")
    rows, x = rows.iloc[order], x[order]
    moved = ScaledTranslation(shift / 72, 0, axis.figure.dpi_scale_trans)
    beside: dict[str, Any] = {"transform": axis.transData + moved}
    axis.plot(x, rows["mean"], ms=5, lw=1.2, alpha=0.9, zorder=3, **look, **beside)
    for kind, dash in ((RUNS, "-"), (QUESTIONS, ":")):
        bars = (rows.interval == kind).to_numpy()
        colour = {"color": look["color"], "lw": 1.8, "ls": dash}
        axis.vlines(x[bars], rows.low[bars], rows.high[bars], **colour, **beside)
    # matplotlib leaves what it draws with a transform of our own out of the limits
    axis.update_datalim(
        [(at, y) for end in ("low", "high") for at, y in zip(x, rows[end], strict=True)]
    )
    axis.autoscale_view(scalex=False)


def _groups(values: list[dict], x_key: str, others: list[str]) -> list[str]:
    """Return the colours; one colour if the other keys follow from x, as in a zip."""
    xs = [text_of(one[x_key]) for one in values]
    if len(set(xs)) == len(xs):
        return [""]
    return list(dict.fromkeys(_label(one, others) for one in values))


def _label(values: Any, keys: list[str]) -> str:
    return ", ".join(f"{key} {text_of(values[key])}" for key in keys)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def text_of(value: Any) -> str:
    """Return a value as the config has it; 1.0 is 1."""
    if is_number(value):
        return f"{value:.12g}"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
