"""Draw the answer of a run: what its data decide, what was lost, and what the controls say.

The comparisons and intervals are those of the claims (docs/claims.md). The first row of the CSV has
the sentence that opens the landing page.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import t as student

from pollination.analysis.claims.populations import LAST, lead, rise
from pollination.analysis.claims.verdicts import LEVEL, POWER, ends
from pollination.analysis.claims.verdicts import measure as tested
from pollination.analysis.run import Run
from pollination.analysis.saturation import limit
from pollination.figures import style
from pollination.figures.difference import NATS, POINTS, UNKNOWN, Measured, numbers, possible
from pollination.figures.truth import BANDS
from pollination.plan import layout
from pollination.plan.layout import place_of

COLUMNS = (
    "part",
    "measure",
    "unit",
    "comparison",
    "first",
    "last",
    "mean",
    "low",
    "high",
    "replicates",
    "variance_between_runs",
    "decided",
    "limit",
    "sentence",
)
PARTS = {  # heading of a panel
    "answer": "the answer",
    "lost": "what was lost: last minus first generation",
    "control": "what the controls say",
}
SHOWN = (10, 5, 2.5)  # points: the page says how many replicates would show these differences
MOST = 1000  # replicates
ACCURACY, EXCESS = ", accuracy", "excess nats"
CHOSEN = "mean of the single lines of its chosen founders"
LINES = ("single line", "single lines")  # how a name of the line ends
Key = tuple[str, bool]  # a measure, and whether it is in nats


def draw(run: Run, out: Path) -> None:
    rows = pd.DataFrame(Answer(run).rows(), columns=list(COLUMNS))
    if rows.empty:
        return style.nothing(NO_ANSWER, out, COLUMNS)
    panels = [part for _, part in rows.groupby(["part", "unit"], sort=False)]
    heights = [len(part) + 1.3 for part in panels]
    figure = style.Figure(figsize=(9.2, 0.5 + 0.4 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
    for axis, part in zip(axes, panels, strict=True):
        forest(axis, part)
    roles = [role for role in ("population", "line") if run.roles[role]]
    names = style.NAME | {"line": run.line_name}
    style.legend(figure, [style.key(role, names[role], line=False) for role in roles])
    style.save(figure, rows, out)


def forest(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw one row per comparison: its name, its interval, its numbers."""
    axis.axvline(0, color=style.BLACK, lw=1)
    for place, row in enumerate(rows.to_dict("records")):
        role = role_of(row)
        look: dict[str, Any] = {
            "color": style.COLOUR[role],
            "alpha": 1.0 if row["decided"] else 0.45,
        }
        dash = ":" if row["variance_between_runs"] == UNKNOWN else "-"
        axis.hlines(place, row["low"], row["high"], lw=2.4, ls=dash, **look)
        axis.plot(row["mean"], place, marker=style.MARKER[role], ms=6, mec="white", **look)
        at = axis.get_yaxis_transform()
        axis.text(1.01, place, numbers(row), va="center", fontsize=8, transform=at)
    axis.set_yticks(range(len(rows)), [fill(label(row), 52) for row in rows.to_dict("records")])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.08)
    axis.set_title(f"{PARTS[rows.part.iloc[0]]}, {rows.unit.iloc[0]} (bars: 95 %)")


def role_of(row: dict) -> str:
    """Return whose colour a row has: changes of the line have the line's."""
    changes = row["part"] == "lost" or " minus " not in row["comparison"]
    return "line" if changes and row["comparison"].endswith(LINES) else "population"


def label(row: dict) -> str:
    if row["part"] == "lost" or " minus " not in row["comparison"]:
        return f"{row['measure']}: {row['comparison']}"
    return row["comparison"].replace(" minus ", " \u2212 ")


NO_ANSWER = (
    "This run does not compare a population with a single line over generations. Name both in "
    "figures.population and figures.line, and measure a benchmark or held-out text."
)

ONCE = "The experiments ran once, so nobody knows how much runs differ; set replicates."


class Answer:
    """The comparisons of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.read = cache(lambda folder: run.measures(folder, BANDS))
        self.roles = {role: run.roles[role] for role in ("population", "line") if run.roles[role]}
        self.names = {"population": "population", "line": run.line_name}
        compared = [*self.roles.values(), *run.roles["controls"].values()]
        every = [run.plan.experiment(name)["generations"] for names in compared for name in names]
        self.last = min(every, default=1) - 1

    def rows(self) -> list[dict]:
        """Return the rows of the CSV: the answer, what changed, and each control."""
        if not self.roles or self.last < 1 or not self.measured:
            return []
        return [*self.answer(), *self.lost(), *self.chosen(), *self.controls()]

    @cached_property
    def measured(self) -> list[Key]:
        """The measures that all members have; some texts are measured in one generation only."""
        compared = [*self.roles.values(), *self.run.roles["controls"].values()]
        each = [self.read(folder) for names in compared for folder in self.folders(names)]
        return [key for key in each[0] if all(key in one for one in each)]

    def folders(self, names: list[str]) -> list[str]:
        """Return the members of both ends of experiments."""
        plan = self.run.plan
        return [
            layout.member_folder(plan, name, g, m)
            for name in names
            for g in dict.fromkeys((0, self.last))
            for m in range(plan.experiment(name)["population"])
        ]

    @property
    def main(self) -> Key:
        """The reporting half of the task that selects; else a text in nats, else any measure."""
        task = self.run.task()
        mine = [key for key in self.measured if task and key[0] == task + ACCURACY]
        return (mine or [key for key in self.measured if key[1]] or self.measured)[0]

    def answer(self) -> Iterator[dict]:
        if len(self.roles) == 2:
            row = self.compare(
                "answer", self.main, self.roles, lead, " minus ".join(self.names.values())
            )
            yield row | {"sentence": self.headline(row)}
        for role, names in self.roles.items() if len(self.roles) == 1 else ():
            row = self.compare("answer", self.main, {role: names}, rise, self.names[role])
            yield row | {"sentence": self.alone(row)}

    def lost(self) -> Iterator[dict]:
        """Facts known, those of the least mentioned people first, and excess nats."""
        facts = [key for key in self.measured if key[0].endswith(tuple(BANDS.values()))]
        for key in facts[::-1] + [key for key in self.measured if key[0].endswith(EXCESS)]:
            for role, names in self.roles.items():
                row = self.compare("lost", key, {role: names}, rise, self.names[role])
                yield row | {"sentence": change(row)}

    def chosen(self) -> Iterator[dict]:
        """The lines of the founders that the population selected: what their choice does alone."""
        lines, plan = self.roles.get("line", []), self.run.plan
        parents: dict[str, set[frozenset[int]]] = {}  # pool -> what its populations chose
        for name in self.roles.get("population", []):
            parents.setdefault(place_of(plan, name, 0), set()).add(self.run.parents(name, 0))
        found = {name: parents.get(place_of(plan, name, 0), set()) for name in lines}
        if not lines or any(len(sets) != 1 for sets in found.values()):
            return
        chosen = {name: sorted(*sets) for name, sets in found.items()}
        size = plan.experiment(lines[0])["population"]
        if not all(0 < len(slots) < size and max(slots) < size for slots in chosen.values()):
            return
        for sides in (
            {"population": self.roles["population"], CHOSEN: lines},
            {CHOSEN: lines, "line": lines},
        ):
            words = [self.names.get(side, CHOSEN) for side in sides]
            what = " minus ".join(words)
            row = self.compare("control", self.main, sides, lead, what, chosen)
            yield row | {"sentence": difference(row, *words)}

    def controls(self) -> Iterator[dict]:
        for title, control in self.run.roles["controls"].items():
            named = f"control {title}"
            for role, names in self.roles.items():
                sides = {role: names, named: control}
                if role == "line":
                    sides = dict(reversed(sides.items()))
                words = [self.names.get(side, f"the control {title}") for side in sides]
                row = self.compare("control", self.main, sides, lead, " minus ".join(words))
                yield row | {"sentence": difference(row, *words)}

    def compare(
        self,
        part: str,
        key: Key,
        sides: dict[str, list[str]],
        function: Callable,
        what: str,
        chosen: dict[str, list[int]] | None = None,
    ) -> dict:
        """Return one row of the CSV, without its sentence.

        `first` and `last`: the side, or the difference of both, in the first and last generation.
        `chosen`: the members that the side CHOSEN averages.
        """
        folders = [folder for names in sides.values() for folder in self.folders(names)]
        values = Subset(self.run, key, folders, self.read, chosen or {})
        line = self.roles.get("line")
        donors = {"line": line} if line and "line" not in sides else {}
        # `difference` draws alike, so that both figures give one interval.
        drawn = values.draw(key[0], sides, donors, (0, self.last), "answer")
        finding = tested(drawn, function, what, [LAST])
        used = finding.questions if finding.draws is None else finding.draws
        assert used is not None, "every finding has draws of its runs or of its questions"
        low, high = possible(ends(used), key[1])
        first, last = (drawn.point[0] - drawn.point[1] if len(sides) > 1 else drawn.point[0])[
            [0, LAST]
        ]
        return {
            "part": part,
            "measure": key[0],
            "unit": NATS if key[1] else POINTS,
            "comparison": what,
            "first": float(first),
            "last": float(last),
            "mean": finding.estimate,
            "low": low,
            "high": high,
            "replicates": finding.replicates,
            "variance_between_runs": finding.variance,
            "decided": finding.variance != UNKNOWN and not low <= 0 <= high,
            "limit": self.limit(key, drawn.point[:, LAST].tolist(), values.asked),
        }

    def limit(self, key: Key, percent: list[float], asked: int) -> str:
        """Return in words the end of the scale that all sides have reached."""
        task = key[0].removesuffix(ACCURACY)
        if key[1] or task not in self.run.plan.config["tasks"]:
            return ""
        reached = limit(percent, asked, self.run.chance().get(task))
        return reached.says if reached else ""

    def alone(self, row: dict) -> str:
        """Return in one sentence how the only side of a run changes."""
        points = row["unit"] == POINTS
        unit = "percentage points" if points else row["unit"]
        size = f"{abs(row['mean']):.{1 if points else 3}f} {unit}"
        where, _, what = row["measure"].partition(", ")
        who = f"the {what} of the {row['comparison']} on {where}"
        start = f"From generation 0 to {self.last}, {who}"
        if row["decided"]:
            moved = "rises" if row["mean"] > 0 else "falls"
            return f"{start} {moved} by {size} ({interval(row)}; replicates: {row['replicates']})."
        if row["variance_between_runs"] == UNKNOWN:
            moved = "rises" if row["mean"] > 0 else "falls"
            return f"{start} {moved} by {size} ({interval(row)} over other questions alone). {ONCE}"
        said = f" The benchmark is {row['limit']}." if row["limit"] else ""
        return f"{start} has no significant change: {numbers(row)} {unit}.{said}"

    def headline(self, row: dict) -> str:
        """Return the answer in one sentence; where the data do not decide, how many runs would."""
        measure, line = row["measure"], self.names["line"]
        what = f"{measure.removesuffix(ACCURACY)} questions"
        if self.run.task() is None or self.run.task() in self.run.splits:
            what = f"held-out {what}"
        asked = f"answers {abs(row['mean']):.1f} percentage points {{}} {what} correctly"
        if row["unit"] == NATS:
            asked = f"has {abs(row['mean']):.3f} nats per token {{}} on {measure}"
        if row["decided"]:
            more = "more" if row["mean"] > 0 else "fewer" if row["unit"] == POINTS else "less"
            of = " of the" if row["unit"] == POINTS else ""
            return (
                f"In generation {self.last}, the population {asked.format(more + of)} than the "
                f"{line} ({interval(row)}; replicates: {row['replicates']})."
            )
        start = (
            f"This run does not decide whether the population or the {line} ends higher on "
            f"{what if row['unit'] == POINTS else measure}: the difference is {numbers(row)} "
            f"{row['unit']}"
        )
        if row["variance_between_runs"] == UNKNOWN:
            return f"{start} over other questions alone. {ONCE}"
        said = f" The benchmark is {row['limit']}." if row["limit"] else enough(row)
        return f"{start} with {row['replicates']} replicates.{said}"


class Subset(Measured):
    """Values of one measure, where the side CHOSEN has only some members."""

    def __init__(self, run, key, folders, read, chosen: dict[str, list[int]]) -> None:
        super().__init__(run, key, folders, read)
        self.chosen = chosen

    def slots(self, label: str, name: str, generation: int) -> Sequence[int]:
        return self.chosen[name] if label == CHOSEN else super().slots(label, name, generation)


def interval(row: dict) -> str:
    digits = 1 if row["unit"] == POINTS else 3
    low, high = (f"{row[end]:+.{digits}f}" for end in ("low", "high"))
    return f"95 % confidence interval {low} to {high}"


def change(row: dict) -> str:
    """Return the change of one side in words, without its interval."""
    first, last = row["first"], row["last"]
    levels = (
        f"{first:.3f} to {last:.3f}" if row["unit"] == NATS else f"{first:.0f} % to {last:.0f} %"
    )
    return f"{row['measure']}: {row['comparison']} from {levels}"


def difference(row: dict, upper: str, lower: str) -> str:
    """Return a difference in words, without its interval."""
    if not row["decided"]:
        return f"the difference between {upper} and {lower} is not significant"
    size = f"{abs(row['mean']):.3f}" if row["unit"] == NATS else f"{abs(row['mean']):.1f} points"
    return f"{upper} is {size} {'above' if row['mean'] > 0 else 'below'} {lower}"


def enough(row: dict) -> str:
    """Return in words how many replicates would show a difference, from the spread of this run."""
    counts = row["replicates"].split(" and ")
    runs = min(int(count) for count in counts)
    if row["unit"] == NATS or runs < 2:
        return ""
    half = (row["high"] - row["low"]) / 2
    spread = half * math.sqrt(runs) / student.ppf((1 + LEVEL) / 2, runs - 1)
    said = [
        f"{points:g} points with {count if count < MOST else f'over {MOST:,}'}"
        for points in SHOWN
        if (count := replicates(spread, points)) > runs
    ]
    if not said:
        return ""
    return (
        f" With such a spread, {POWER:.0%} of runs would show a difference of "
        f"{', '.join(said)} replicates."
    ).replace("%", " %")


def replicates(spread: float, wanted: float) -> int:
    """Return how many pairs of runs show a difference with the power POWER (paired t-test).

    `spread`: standard deviation of the difference between replicates.
    """
    for runs in range(2, MOST):
        t = student.ppf((1 + LEVEL) / 2, runs - 1) + student.ppf(POWER, runs - 1)
        if t * spread / math.sqrt(runs) <= wanted:
            return runs
    return MOST
