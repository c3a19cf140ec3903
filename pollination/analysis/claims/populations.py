"""Study A's claims on accuracy: populations, lines, sizes, inheritance.

The unit is the run: members are averaged, not counted as units.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd

from pollination.analysis.claims.noise import Draws, Side, draw
from pollination.analysis.claims.verdicts import Finding, measure
from pollination.analysis.run import REPORTING, SELECTING, Run
from pollination.analysis.saturation import limit
from pollination.core import artifacts
from pollination.core.seeds import derive_seed
from pollination.plan import layout
from pollination.plan.claims import Claim
from pollination.plan.layout import place_of

NO_CONTROL = "figures.controls names no experiment"
FIRST, LAST = 0, 1  # the columns of a side: accuracy of generation 0 and of the last, in percent


class Accuracies:
    """Correct answers of a run's members to one half of the questions (core/questions.py)."""

    def __init__(self, run: Run, half: str = REPORTING) -> None:
        self.half = half
        self.run, self.plan = run, run.plan

    @cache  # noqa: B019
    def tasks(self, name: str) -> list[str]:
        """Return the tasks of an experiment's members that have a score for each question."""
        if not self.plan.config["tasks"]:
            return []
        answers = self.run.answers(layout.member_folder(self.plan, name, 0, 0))
        return [task for task in self.plan.config["tasks"] if task in answers]

    def member(self, folder: str, task: str) -> np.ndarray:
        """Return (Q,): 100 times the score, 100 for a correct answer, in the order of questions."""
        return 100.0 * self.run.part(folder, task, self.half)

    def floor(self, task: str, questions: int) -> float:
        """Return the least standard deviation between runs: one answer."""
        return 100.0 / questions

    def slots(self, label: str, name: str, generation: int) -> Sequence[int]:
        """Return the members that a side averages."""
        return range(self.plan.experiment(name)["population"])

    def mean(self, label: str, name: str, generation: int, task: str) -> np.ndarray:
        """Return (Q,): the mean over the side's members."""
        return np.mean(
            [
                self.member(layout.member_folder(self.plan, name, generation, m), task)
                for m in self.slots(label, name, generation)
            ],
            axis=0,
        )

    def side(self, label: str, names: list[str], task: str, generations: Sequence[int]) -> Side:
        """Return the replicates `names` in these generations, the first of which is 0."""
        values = np.stack(
            [np.stack([self.mean(label, name, g, task) for g in generations]) for name in names]
        )
        # except in generation 0, which all replicates share
        later = np.array([float(g > 0) for g in generations])
        floor = later * self.floor(task, values.shape[2])
        size = self.plan.experiment(names[0])["population"]
        side = Side(label, size, [(1.0, values)], floor)
        pools = tuple(place_of(self.plan, name, 0) for name in names)
        spread = self.founder_spread(names[0], task)
        if len(names) > 1 and len(set(pools)) == len(names):
            return replace(side, pools=pools)
        if spread is None:
            return side
        sd, degrees = spread
        return replace(
            side,
            founders=len(self.slots(label, names[0], generations[-1])),
            founder_pool=place_of(self.plan, names[0], 0),
            founder_sd=np.maximum(later * sd, floor),
            founder_df=degrees,
        )

    def founder_spread(self, name: str, task: str) -> tuple[float, int] | None:
        """Return (standard deviation, degrees of freedom) of founders in the largest population."""
        place = place_of(self.plan, name, 0)
        sizes = [
            settings["population"]
            for experiment, settings in self.plan.config["experiments"].items()
            if place_of(self.plan, experiment, 0) == place
        ]
        if max(sizes) < 2:
            return None
        levels = [
            self.member(f"{self.plan.results}/{place}/member{m}", task).mean()
            for m in range(max(sizes))
        ]
        return float(np.std(levels, ddof=1)), max(sizes) - 1

    def limit(self, name: str, task: str, percent: np.ndarray) -> str:
        """Return in words the end of the scale that all accuracies (in percent) have reached."""
        founder = layout.member_folder(self.plan, name, 0, 0)
        table = artifacts.read_table(f"{founder}/answers.parquet", ["task", "chance"])
        rows = table.to_pandas()
        known = rows[rows.task == task].chance.dropna()
        chance = float(known.mean()) if len(known) else None
        reached = limit(percent.tolist(), len(self.member(founder, task)), chance)
        return reached.says if reached else ""

    def selecting(self, names: list[str]) -> str:
        if layout.selects(self.plan, names[0]):
            return self.plan.experiment(names[0])["select"]["task"]
        return self.tasks(names[0])[0]

    def benchmarks(self, role: dict[str, list[str]]) -> list[tuple[str, str, list[str], bool]]:
        """Return (instance, task, replicates, does it select?), each population on its benchmark.

        The first population is also tested on the benchmarks that no population selects on.
        """
        own = [(label, self.selecting(names), names, True) for label, names in role.items()]
        selecting = {task for _, task, _, _ in own}
        first = next(iter(role.values()))
        others = [task for task in self.tasks(first[0]) if task not in selecting]
        return own + [(task, task, first, False) for task in others]

    def last(self, *groups: list[str]) -> int:
        names = [name for group in groups for name in group]
        return min(self.plan.experiment(name)["generations"] for name in names) - 1

    def draws(self, task: str, sides: dict[str, list[str]], donors: dict[str, list[str]]) -> Draws:
        last = self.last(*sides.values(), *donors.values())
        return self.draw(task, sides, donors, (0, last))

    def draw(
        self, task: str, sides: dict, donors: dict, generations: Sequence[int], use: str = "claims"
    ) -> Draws:
        """Draw {label: replicates} in these generations; `donors` lend their variance."""
        drawn, lenders = (
            [self.side(label, names, task, generations) for label, names in group.items()]
            for group in (sides, donors)
        )
        lenders = [side for side in lenders if side.replicates > 1 and side.label not in sides]
        return draw(drawn, lambda means: means, derive_seed(use, task, *sides), lenders)

    def band(
        self, label: str, names: list[str], task: str, donors: dict[str, list[str]]
    ) -> pd.DataFrame:
        """Return rows generation, mean, low, high, variance of one curve, in shares of 1.

        The interval is that of the claims (docs/claims.md): at 95 %, with the run as the unit.
        Where the variance between runs is unknown, it covers other questions only.
        """
        generations = range(self.last(names) + 1)
        reaching = {
            label: group for label, group in donors.items() if self.last(group) >= generations[-1]
        }
        drawn = self.draw(task, {label: names}, reaching, generations, "band")
        full = drawn.questions if drawn.full is None else drawn.full
        values = np.where(drawn.known, full[:, 0], drawn.questions[:, 0])
        low, high = np.clip(np.quantile(values, [0.025, 0.975], axis=0) / 100, 0.0, 1.0)
        return pd.DataFrame(
            {"generation": generations, "mean": drawn.point[0] / 100, "low": low, "high": high}
        ).assign(variance=np.where(drawn.known, drawn.variance, "unknown"))


def _note(accuracies: Accuracies, names: list[str], selects: bool = True) -> str:
    parts = [] if selects else ["no population selects on this benchmark"]
    pools = {place_of(accuracies.plan, name, 0) for name in names}
    own = len(names) > 1 and len(pools) == len(names)
    if not own and accuracies.founder_spread(names[0], accuracies.tasks(names[0])[0]) is None:
        parts.append("there is one founder, so the variance between founders is unknown")
    elif not own:
        parts.append("runs share founders, so the variance between founders is added")
    return _joined(*parts)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _needs_change(accuracies: Accuracies, *groups: list[str]) -> str | None:
    if accuracies.last(*groups) > 0:
        return None
    return "the experiments have only one generation, so there is no change to test"


def line_falls(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    line = run.roles["line"]
    if not line:
        return "figures.line names no experiment"
    if why := _needs_change(accuracies, line):
        return why
    findings = []
    for instance, task, _, _ in _about(claim, run, accuracies.benchmarks(role)):
        note = _note(accuracies, line)
        findings.append(_finding(accuracies, task, {"line": line}, {}, fall, instance, note))
    return findings


def population_changes(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    findings = []
    for instance, task, names, selects in _about(claim, run, accuracies.benchmarks(role)):
        if why := _needs_change(accuracies, names):
            return why
        sides, note = {"population": names}, _note(accuracies, names, selects)
        findings.append(_finding(accuracies, task, sides, _line(run), rise, instance, note))
    if not findings:
        return f"no benchmark of the run is {' or '.join(claim.only)}; {_preset(claim)} has them"
    return findings


def population_over_line(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    line = run.roles["line"]
    if not line:
        return "figures.line names no experiment"
    return [
        _above(accuracies, instance, task, ("population", names), ("line", line), {}, selects)
        for instance, task, names, selects in _about(claim, run, accuracies.benchmarks(role))
    ]


def population_over_control(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    """Compare each population with each control, on the population's own benchmark."""
    if not run.roles["controls"]:
        return NO_CONTROL
    return [
        _above(
            accuracies,
            f"{task} over {title}",
            task,
            ("population", names),
            (f"control {title}", control),
            _line(run),
        )
        for _, task, names, selects in accuracies.benchmarks(role)
        if selects
        for title, control in run.roles["controls"].items()
    ]


def control_over_line(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    controls, line = run.roles["controls"], run.roles["line"]
    if not controls or not line:
        return "figures.line names no experiment" if controls else NO_CONTROL
    return [
        _above(
            accuracies, f"{title}: {task}", task, (f"control {title}", control), ("line", line), {}
        )
        for task in dict.fromkeys(
            task for _, task, _, selects in accuracies.benchmarks(role) if selects
        )
        for title, control in controls.items()
    ]


def larger_over_smaller(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    """Compare each size with the next smaller one, and the largest with the smallest."""
    sizes = sorted(role.items(), key=lambda item: run.plan.experiment(item[1][0])["population"])
    if len(sizes) < 2:
        return "it needs populations of two sizes"
    pairs = list(pairwise(sizes)) + ([(sizes[0], sizes[-1])] if len(sizes) > 2 else [])
    return [
        _above(
            accuracies,
            f"{larger[0]} over {smaller[0]}",
            accuracies.selecting(larger[1]),
            larger,
            smaller,
            _line(run),
        )
        for smaller, larger in pairs
    ]


def full_over_data_only(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    kinds = _inheritance(run, role)
    if {"parent", "fresh"} - set(kinds):
        return "it needs a population with weights: parent and a population with weights: fresh"
    full, data_only = kinds["parent"], kinds["fresh"]
    instance = f"{full[0]} over {data_only[0]}"
    task = accuracies.selecting(full[1])
    return [_above(accuracies, instance, task, full, data_only, _line(run))]


def data_only_over_line(
    claim: Claim, run: Run, role: dict, accuracies: Accuracies
) -> list[Finding] | str:
    kinds, line = _inheritance(run, role), run.roles["line"]
    if "fresh" not in kinds or not line:
        return "it needs a population with weights: fresh and a line"
    label, names = kinds["fresh"]
    task = accuracies.selecting(names)
    return [_above(accuracies, f"{label} over the line", task, (label, names), ("line", line), {})]


def _line(run: Run) -> dict[str, list[str]]:
    """Return the line as a donor of variance, if the run has one."""
    return {"line": run.roles["line"]} if run.roles["line"] else {}


def _above(
    accuracies: Accuracies,
    instance: str,
    task: str,
    upper: tuple[str, list[str]],
    lower: tuple[str, list[str]],
    donors: dict[str, list[str]],
    selects: bool = True,
) -> Finding:
    """Test the last accuracy of `upper` (label, replicates) minus that of `lower`."""
    notes = dict.fromkeys((_note(accuracies, upper[1], selects), _note(accuracies, lower[1])))
    note = _joined(*notes)
    return _finding(accuracies, task, dict([upper, lower]), donors, lead, instance, note)


def _finding(
    accuracies: Accuracies,
    task: str,
    sides: dict[str, list[str]],
    donors: dict[str, list[str]],
    function: Callable[[np.ndarray], np.ndarray],
    instance: str,
    note: str,
) -> Finding:
    """Test `function` of draws on the reported questions.

    Of a task with a split, the estimate on the selecting half (study A's way) is added.
    """
    drawn = accuracies.draws(task, sides, donors)
    compared = drawn.point[:, LAST] if len(sides) > 1 else drawn.point[0]
    note = _joined(note, accuracies.limit(next(iter(sides.values()))[0], task, compared))
    biased = None
    if task in accuracies.run.splits:
        other = Accuracies(accuracies.run, SELECTING)
        last = accuracies.last(*sides.values(), *donors.values())
        means = [
            [
                np.mean([other.mean(label, name, g, task).mean() for name in names])
                for g in (0, last)
            ]
            for label, names in sides.items()
        ]
        biased = float(function(np.array([means]))[0])
        said = f"on the questions that select parents, as in study A: {biased:.1f}"
        note = _joined(note, said)
    return measure(drawn, function, instance, [LAST], note=note, selecting_estimate=biased)


def fall(x: np.ndarray) -> np.ndarray:
    return x[:, 0, FIRST] - x[:, 0, LAST]


def rise(x: np.ndarray) -> np.ndarray:
    return x[:, 0, LAST] - x[:, 0, FIRST]


def lead(x: np.ndarray) -> np.ndarray:
    return x[:, 0, LAST] - x[:, 1, LAST]


def _inheritance(run: Run, role: dict) -> dict[str, tuple[str, list[str]]]:
    """Return source of the children's weights -> (label, replicates)."""
    return {
        run.plan.experiment(names[0])["weights"]: (label, names) for label, names in role.items()
    }


def _about(claim: Claim, run: Run, benchmarks: list) -> list:
    templates = run.plan.config["claims"]["templates"]
    return [entry for entry in benchmarks if not claim.only or templates[entry[1]] in claim.only]


def _preset(claim: Claim) -> str:
    from pollination.plan.config.targets import TARGETS

    return TARGETS[claim.target].preset
