"""Sampling noise of a comparison: draws of each side's statistic that respect a run's structure.

There are two sources of noise. *Questions* (of a benchmark, or blocks of a test text) are
resampled, once for all models that answer the same ones. *Runs*: a replicate is one unit, however
many members it has, because members share ancestors and text. A side's deviations between
replicates are drawn with normal weights and divided by the root of a chi-square over its degrees of
freedom. So each side alone has Student's t-interval, and a difference has the Behrens-Fisher
interval. A side with a single run borrows the variance, and the chi-square, of a side that averages
no more models. If there is no such side, the variance between runs is unknown. Two sides whose
replicates are matched (run by run, both start from the founders of one pool) get the same weights
and the same chi-square. Their difference then has the interval of the paired t-test.

Shapes: S draws, n sides, R replicates, T rounds, Q questions, K statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pollination.core.statistics import chunks, draw_counts

DRAWS = 10_000


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    `parts`: (weight, values (R, T, Q)) of the models that answer the same questions.
    """

    label: str
    models: int
    parts: list[tuple[float, np.ndarray]]
    floor: float | np.ndarray = 0.0
    """() or (K,): minimum standard deviation between runs; three runs at 100 % may still differ."""
    founders: int = 0
    """Number of founders that all replicates share; 0: each replicate has its own founders."""
    pools: tuple[str, ...] = ()
    """The founder pool of each replicate, if no two replicates share one."""
    founder_pool: str = ""
    """The pool of these founders. Sides of one pool share the error of `founder_sd`."""
    founder_sd: float | np.ndarray = 0.0
    """() or (K,): standard deviation of the statistics between `founder_df` + 1 founders."""
    founder_df: int = 1

    @property
    def replicates(self) -> int:
        return len(self.parts[0][1])


@dataclass(frozen=True)
class Draws:
    """Statistics of n sides.

    `point` (n, K); `questions` (S, n, K) resamples questions only; `full` (S, n, K) draws runs too,
    and is None if their variance is unknown.
    """

    point: np.ndarray
    questions: np.ndarray
    full: np.ndarray | None
    replicates: tuple[int, ...]
    variance: str
    """Source of the variance between runs: 'own', 'borrowed from ...' or 'unknown'."""
    known: np.ndarray
    """(K,): whether the replicates of every side differ in it (not in a round that all share)."""


def draw(
    sides: list[Side],
    scale: Callable[[np.ndarray], np.ndarray],
    seed: int,
    donors: Sequence[Side] = (),
    draws: int = DRAWS,
) -> Draws:
    """Draw the statistics of all sides.

    `scale` turns means over questions (..., T) into statistics (..., K). `donors`: further sides
    that lend their variance.
    """

    def of_replicates(side: Side) -> np.ndarray:  # (R, K)
        return scale(sum(weight * values.mean(axis=2) for weight, values in side.parts))

    generator = np.random.default_rng(seed)
    each = [of_replicates(side) for side in sides]
    rows: dict[int, list[np.ndarray]] = {}
    for side in sides:
        for _, values in side.parts:
            rows.setdefault(values.shape[2], []).append(values.reshape(-1, values.shape[2]))
    drawn = {
        size: _resampled(np.concatenate(group), generator, draws) for size, group in rows.items()
    }
    used, of_sides = dict.fromkeys(drawn, 0), []
    for side in sides:
        means = np.zeros((draws, side.replicates, side.parts[0][1].shape[1]))
        for weight, values in side.parts:
            size, count = values.shape[2], values.shape[0] * values.shape[1]
            means += weight * drawn[size][:, used[size] : used[size] + count].reshape(means.shape)
            used[size] += count
        of_sides.append(scale(means).mean(axis=1))
    questions = np.stack(of_sides, axis=1)
    point = np.stack([statistics.mean(axis=0) for statistics in each])
    counted = tuple(side.replicates for side in sides)
    replicated = [pair for pair in zip(sides, each, strict=True) if pair[0].replicates > 1]
    replicated += [(side, of_replicates(side)) for side in donors]
    full, known = questions.copy(), np.ones(point.shape[1], dtype=bool)
    sources: list[str] = []
    # all users of a variance estimate (of a donor's runs, of a pool's founders) share its error
    chi: dict[tuple[str, str], np.ndarray] = {}

    def root(kind: str, name: str, degrees: int) -> np.ndarray:
        if (kind, name) not in chi:
            chi[kind, name] = np.sqrt(generator.chisquare(degrees, draws) / degrees)
        return chi[kind, name][:, None]

    paired = _matched(sides, each)
    weights = np.empty(0)
    for place, side in enumerate(sides):
        source = _source(side, replicated, point.shape[1])
        if source is None:
            return Draws(point, questions, None, counted, "unknown", known & False)
        donor, values = source
        if donor is not side and donor.label not in sources:
            sources.append(donor.label)
        deviations = _deviations(donor, values)
        known &= deviations.any(axis=0)
        if not (paired and place):
            weights = generator.standard_normal((draws, len(values))) / np.sqrt(
                (len(values) - 1) * side.replicates
            )
        error = root("runs", sides[0].label if paired else donor.label, len(values) - 1)
        full[:, place] += weights @ deviations / error
        if side.founders:
            spread = side.founder_sd / np.sqrt(side.founders)
            error = root("founders", side.founder_pool, side.founder_df)
            # independent even in one pool: a founder need not shift both sides equally
            full[:, place] += spread * generator.standard_normal((draws, 1)) / error
    variance = f"borrowed from {', '.join(sources)}" if sources else "own"
    return Draws(point, questions, full, counted, variance, known)


def _resampled(rows: np.ndarray, generator: np.random.Generator, draws: int) -> np.ndarray:
    """Return (S, rows): means over each resample of the questions, the same for all rows."""
    size = rows.shape[1]
    means = np.empty((draws, len(rows)))
    for chunk in chunks(draws, size):
        means[chunk] = draw_counts(generator, size, chunk.stop - chunk.start) @ rows.T / size
    return means


def _matched(sides: list[Side], each: list[np.ndarray]) -> bool:
    """Return whether two sides are matched, and their differences vary at least as `floor` says."""
    if len(sides) != 2 or len(sides[0].pools) < 2 or sides[0].pools != sides[1].pools:
        return False
    low = np.maximum(sides[0].floor, sides[1].floor)
    ok = [(values.std(axis=0, ddof=1) >= low).all() for values in (*each, each[0] - each[1])]
    return all(ok)


def _source(
    side: Side, replicated: list[tuple[Side, np.ndarray]], statistics: int
) -> tuple[Side, np.ndarray] | None:
    """Return the side that lends its variance: itself, or the widest with no more models."""
    for donor, each in replicated:
        if donor is side:
            return donor, each
    fit = [
        (donor, each)
        for donor, each in replicated
        if donor.models <= side.models and each.shape[1] == statistics
    ]
    return max(fit, key=lambda pair: pair[1].var(axis=0, ddof=1).sum(), default=None)


def _deviations(side: Side, each: np.ndarray) -> np.ndarray:
    """Return (R, K): deviations of the replicates from their mean, at least `floor` in size."""
    deviations = each - each.mean(axis=0)
    low = np.sqrt((deviations**2).sum(axis=0) / (len(each) - 1)) < side.floor
    # one run carries the whole sum of squares that `floor` requires
    pattern = np.eye(1, len(each)).T * np.sqrt(len(each) - 1)
    return np.where(low, side.floor * pattern, deviations)
