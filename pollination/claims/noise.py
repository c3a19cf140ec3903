"""What chance does to a comparison: draws of every side's statistic, with the structure of a run respected.

Two sources of chance. *Questions* (of a benchmark, or blocks of a test text) are resampled, once for all models that answer the same ones.
*Runs*: a replicate is one unit, however many members it has, because members share ancestors and text. A side's deviations between replicates
are drawn with normal weights and divided by the root of a chi-square over its degrees of freedom, so that each side alone has Student's
t-interval, and a difference that of Behrens and Fisher. A side with one run only borrows the variance of a side that averages no more models,
with that side's chi-square; where there is none, what runs do is unknown.

Shapes: S draws, n sides, R replicates, T rounds, Q questions, K statistics.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pollination.statistics import chunks, draw_counts

DRAWS = 10_000


@dataclass(frozen=True)
class Side:
    """One side of a comparison. `parts`: (weight, values (R, T, Q)) of the models that answer the same questions."""

    label: str
    models: int
    parts: list[tuple[float, np.ndarray]]
    floor: float | np.ndarray = 0.0
    """() or (K,): the standard deviation between runs is at least this: three runs that all score 100 % do not show that runs never differ."""
    founders: int = 0
    """How many founders all its replicates share; 0: each replicate has its own, so runs differ by them too."""
    founder_sd: float | np.ndarray = 0.0
    """() or (K,): standard deviation of the statistics between founders, from `founder_df` + 1 of them."""
    founder_df: int = 1

    @property
    def replicates(self) -> int:
        return len(self.parts[0][1])


@dataclass(frozen=True)
class Draws:
    """Statistics of n sides: `point` (n, K); `questions` (S, n, K) with the questions drawn alone; `full` with runs too, None where they are unknown."""

    point: np.ndarray
    questions: np.ndarray
    full: np.ndarray | None
    replicates: tuple[int, ...]
    variance: str
    """Whose replicates say how much runs differ: 'own', 'borrowed from ...' or 'unknown'."""
    known: np.ndarray
    """(K,): statistics that differ between the replicates of every side (a round that all replicates share does not)."""


def draw(sides: list[Side], scale: Callable[[np.ndarray], np.ndarray], seed: int, donors: list[Side] = (), draws: int = DRAWS) -> Draws:
    """`scale` makes the statistics (..., K) of means over questions (..., T). `donors`: further sides whose variance may be borrowed."""
    generator = np.random.default_rng(seed)
    each = [scale(sum(weight * values.mean(axis=2) for weight, values in side.parts)) for side in sides]  # (R, K)
    rows: dict[int, list[np.ndarray]] = {}
    for side in sides:
        for _, values in side.parts:
            rows.setdefault(values.shape[2], []).append(values.reshape(-1, values.shape[2]))
    drawn = {size: _resampled(np.concatenate(group), generator, draws) for size, group in rows.items()}
    used, questions = dict.fromkeys(drawn, 0), []
    for side in sides:
        means = np.zeros((draws, side.replicates, side.parts[0][1].shape[1]))
        for weight, values in side.parts:
            size, count = values.shape[2], values.shape[0] * values.shape[1]
            means += weight * drawn[size][:, used[size] : used[size] + count].reshape(means.shape)
            used[size] += count
        questions.append(scale(means).mean(axis=1))
    questions = np.stack(questions, axis=1)
    point = np.stack([one.mean(axis=0) for one in each])
    counted = tuple(side.replicates for side in sides)
    replicated = [(side, one) for side, one in zip(sides, each, strict=True) if side.replicates > 1]
    replicated += [(side, scale(sum(weight * values.mean(axis=2) for weight, values in side.parts))) for side in donors]
    full, sources, known = questions.copy(), [], np.ones(point.shape[1], dtype=bool)
    chi: dict[str, np.ndarray] = {}  # one estimate of a variance has one error, whoever uses it

    def root(name: str, degrees: int) -> np.ndarray:
        if name not in chi:
            chi[name] = np.sqrt(generator.chisquare(degrees, draws) / degrees)
        return chi[name][:, None]

    for place, side in enumerate(sides):
        source = _source(side, replicated, point.shape[1])
        if source is None:
            return Draws(point, questions, None, counted, "unknown", known & False)
        donor, values = source
        if donor is not side and donor.label not in sources:
            sources.append(donor.label)
        deviations = _deviations(donor, values)
        known &= deviations.any(axis=0)
        weights = generator.standard_normal((draws, len(values))) / np.sqrt((len(values) - 1) * side.replicates)
        full[:, place] += weights @ deviations / root(donor.label, len(values) - 1)
        if side.founders:
            spread = side.founder_sd / np.sqrt(side.founders)
            full[:, place] += spread * generator.standard_normal((draws, 1)) / root("founders", side.founder_df)
    return Draws(point, questions, full, counted, f"borrowed from {', '.join(sources)}" if sources else "own", known)


def _resampled(rows: np.ndarray, generator: np.random.Generator, draws: int) -> np.ndarray:
    """(S, rows): means of each resample of the questions, the same for all rows."""
    size = rows.shape[1]
    found = np.empty((draws, len(rows)))
    for chunk in chunks(draws, size):
        found[chunk] = draw_counts(generator, size, chunk.stop - chunk.start) @ rows.T / size
    return found


def _source(side: Side, replicated: list[tuple[Side, np.ndarray]], statistics: int) -> tuple[Side, np.ndarray] | None:
    """Whose replicates speak for a side: its own, or, of those that average no more models, the ones that differ most."""
    for other, each in replicated:
        if other is side:
            return other, each
    fit = [(other, each) for other, each in replicated if other.models <= side.models and each.shape[1] == statistics]
    return max(fit, key=lambda one: one[1].var(axis=0, ddof=1).sum(), default=None)


def _deviations(side: Side, each: np.ndarray) -> np.ndarray:
    """(R, K): of the replicates from their mean, as large as `floor` at least."""
    deviations = each - each.mean(axis=0)
    low = np.sqrt((deviations**2).sum(axis=0) / (len(each) - 1)) < side.floor
    pattern = np.eye(1, len(each)).T * np.sqrt(len(each) - 1)  # one run apart from the others, its square as large as all should be
    return np.where(low, side.floor * pattern, deviations)
