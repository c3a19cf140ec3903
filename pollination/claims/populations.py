"""Study A's claims on accuracy: populations, lines, sizes, inheritance. The unit is the run: members are averaged, never counted."""

from functools import cached_property

import numpy as np

from pollination import artifacts
from pollination.claims.declared import Claim
from pollination.claims.noise import Draws, Side, draw
from pollination.claims.verdicts import Finding, measure
from pollination.figures.data import Run
from pollination.seeds import derive_seed

FIRST, LAST = 0, 1  # the columns of a side: accuracy of generation 0 and of the last, in percent


class Accuracies:
    """Right answers of a run's members, read once."""

    def __init__(self, run: Run) -> None:
        self.run, self.plan = run, run.plan
        self._read: dict[str, dict[str, np.ndarray]] = {}

    @cached_property
    def tasks(self) -> list[str]:
        return list(self.plan.config["tasks"])

    def member(self, folder: str, task: str) -> np.ndarray:
        """(Q,): 100 where right, in the order of questions."""
        if folder not in self._read:
            table = artifacts.read_table(f"{folder}/answers.parquet", ["task", "doc_id", "correct"]).to_pandas()
            parts = table.sort_values("doc_id", kind="stable").groupby("task", sort=False)
            self._read[folder] = {name: 100.0 * part.correct.to_numpy(float) for name, part in parts}
        return self._read[folder][task]

    def mean(self, name: str, generation: int, task: str) -> np.ndarray:
        """(Q,): the mean over members."""
        size = self.plan.experiment(name)["population"]
        return np.mean([self.member(self.plan.member(name, generation, m), task) for m in range(size)], axis=0)

    def side(self, label: str, names: list[str], task: str, last: int) -> Side:
        values = np.stack([np.stack([self.mean(name, g, task) for g in (0, last)]) for name in names])
        size, questions = self.plan.experiment(names[0])["population"], values.shape[2]
        answer = np.array([0.0, 100.0 / questions])  # one answer; of the last generation, since the first is where all start
        side = Side(label, size, [(1.0, values)], floor=answer)
        pools = {self.plan.place(name, 0) for name in names}
        spread = self.founder_spread(names[0], task)
        if len(names) > 1 and len(pools) == len(names) or spread is None:
            return side
        sd, degrees = spread
        return Side(label, size, side.parts, answer, size, np.maximum([0.0, sd], answer), degrees)

    def founder_spread(self, name: str, task: str) -> tuple[float, int] | None:
        """(standard deviation of founders' accuracy, degrees of freedom), from the largest population that starts from the same pool."""
        place = self.plan.place(name, 0)
        sizes = [e["population"] for other, e in self.plan.config["experiments"].items() if self.plan.place(other, 0) == place]
        if max(sizes) < 2:
            return None
        levels = [self.member(f"{self.plan.results}/{place}/member{m}", task).mean() for m in range(max(sizes))]
        return float(np.std(levels, ddof=1)), max(sizes) - 1

    def selecting(self, names: list[str]) -> str:
        task = self.plan.experiment(names[0])["select"]["task"]
        return task if task != "none" else self.tasks[0]

    def benchmarks(self, role: dict[str, list[str]]) -> list[tuple[str, str, list[str], bool]]:
        """(instance, task, replicates, does it select?): each population on its own benchmark, the first also on those that none selects on."""
        found = [(label, self.selecting(names), names, True) for label, names in role.items()]
        own = {task for _, task, _, _ in found}
        first = next(iter(role.values()))
        return found + [(task, task, first, False) for task in self.tasks if task not in own]

    def last(self, *groups: list[str]) -> int:
        return min(self.plan.experiment(name)["generations"] for names in groups for name in names) - 1

    def draws(self, task: str, sides: dict[str, list[str]], donors: dict[str, list[str]]) -> Draws:
        last = self.last(*sides.values(), *donors.values())
        made = [[self.side(label, names, task, last) for label, names in group.items()] for group in (sides, donors)]
        ours, others = made[0], [side for side in made[1] if side.replicates > 1 and side.label not in sides]
        return draw(ours, lambda means: means, derive_seed("claims", task, *sides), others)


def _note(accuracies: Accuracies, names: list[str], selects: bool = True) -> str:
    parts = [] if selects else ["nothing selects on this benchmark"]
    own = len(names) > 1 and len({accuracies.plan.place(name, 0) for name in names}) == len(names)
    if not own and accuracies.founder_spread(names[0], accuracies.tasks[0]) is None:
        parts.append("one founder, and what another would do is unknown")
    elif not own:
        parts.append("runs share founders, whose spread is added")
    return "; ".join(parts)


def _needs_change(accuracies: Accuracies, *groups: list[str]) -> str | None:
    return None if accuracies.last(*groups) > 0 else "there is one generation only, so nothing can change"


def line_falls(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    line = run.roles["line"]
    if not line:
        return "nobody plays the line"
    if why := _needs_change(accuracies, line):
        return why
    found = []
    for instance, task, _, _ in _about(claim, run, accuracies.benchmarks(role)):
        drawn = accuracies.draws(task, {"line": line}, {})
        found.append(measure(drawn, lambda x: x[:, 0, FIRST] - x[:, 0, LAST], instance, [LAST], note=_note(accuracies, line)))
    return found


def population_changes(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    line, found = run.roles["line"], []
    for instance, task, names, selects in _about(claim, run, accuracies.benchmarks(role)):
        if why := _needs_change(accuracies, names):
            return why
        drawn = accuracies.draws(task, {"population": names}, {"line": line} if line else {})
        found.append(measure(drawn, lambda x: x[:, 0, LAST] - x[:, 0, FIRST], instance, [LAST], note=_note(accuracies, names, selects)))
    return found or f"no benchmark of the run is {' or '.join(claim.only)}; {_preset(claim)} has them"


def population_over_line(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    line, found = run.roles["line"], []
    if not line:
        return "nobody plays the line"
    for instance, task, names, selects in _about(claim, run, accuracies.benchmarks(role)):
        found.append(_above(accuracies, instance, task, "population", names, "line", line, {}, selects))
    return found


def larger_over_smaller(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    """Each size against the next smaller one, and the largest against the smallest."""
    sizes = sorted(role.items(), key=lambda item: run.plan.experiment(item[1][0])["population"])
    if len(sizes) < 2:
        return "there is one size only"
    pairs = list(zip(sizes, sizes[1:], strict=False)) + ([(sizes[0], sizes[-1])] if len(sizes) > 2 else [])
    found = []
    for (small, fewer), (large, more) in pairs:
        donors = {"line": run.roles["line"]} if run.roles["line"] else {}
        found.append(_above(accuracies, f"{large} over {small}", accuracies.selecting(more), large, more, small, fewer, donors))
    return found


def full_over_data_only(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    kinds = _inheritance(run, role)
    if {"parent", "fresh"} - set(kinds):
        return "it needs a population with weights: parent and one with weights: fresh"
    donors = {"line": run.roles["line"]} if run.roles["line"] else {}
    (full, ours), (alone, others) = kinds["parent"], kinds["fresh"]
    return [_above(accuracies, f"{full} over {alone}", accuracies.selecting(ours), full, ours, alone, others, donors)]


def data_only_over_line(claim: Claim, run: Run, role: dict, accuracies: Accuracies) -> list[Finding] | str:
    kinds, line = _inheritance(run, role), run.roles["line"]
    if "fresh" not in kinds or not line:
        return "it needs a population with weights: fresh and a line"
    label, names = kinds["fresh"]
    return [_above(accuracies, f"{label} over the line", accuracies.selecting(names), label, names, "line", line, {})]


def _above(accuracies, instance, task, first, ours, second, others, donors, selects=True) -> Finding:
    drawn = accuracies.draws(task, {first: ours, second: others}, donors)
    notes = dict.fromkeys(filter(None, (_note(accuracies, ours, selects), _note(accuracies, others))))
    return measure(drawn, lambda x: x[:, 0, LAST] - x[:, 1, LAST], instance, [LAST], note="; ".join(notes))


def _inheritance(run: Run, role: dict) -> dict[str, tuple[str, list[str]]]:
    """What children inherit weights from -> (label, replicates)."""
    return {run.plan.experiment(names[0])["weights"]: (label, names) for label, names in role.items()}


def _about(claim: Claim, run: Run, benchmarks: list) -> list:
    templates = run.plan.config["claims"]["templates"]
    return [one for one in benchmarks if not claim.only or templates[one[1]] in claim.only]


def _preset(claim: Claim) -> str:
    from pollination.paper import TARGETS

    return TARGETS[claim.target].preset
