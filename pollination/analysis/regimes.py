"""Test whether effective data quality explains the effect of training (study B, section 5).

delta (the distance of the text minus that of the model before the training) and the change of loss
share the model before. So they correlate even if the text has no effect. This is the coupling. Two
tests remove it (docs/quality.md): a partial correlation given the model before the training, and a
permutation of texts within a round. The run of an experiment is the unit, because its members share
ancestors and text. Shapes: n trainings, P permutations. Every draw has its seed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from pollination.core.statistics import jackknife_interval
from pollination.plan.config.values import entry_of

COLUMNS = ("experiment", "generation", "member", "text", "before", "loss_before", "change")
ALPHA = 0.05
TIE = 1e-9  # correlations that differ by less are equal


@dataclass(frozen=True)
class Regimes:
    """Statistics of n trainings. NaN: too few trainings or runs, or no text can be permuted."""

    n: int
    runs: int
    rank_correlation: float
    """Spearman, delta with the change of loss; it contains the coupling."""
    rank_correlation_null: float
    rank_correlation_null_low: float
    rank_correlation_null_high: float
    """Mean and interval of the same with permuted texts; the mean is the coupling."""
    partial: float
    partial_low: float
    partial_high: float
    """Rank correlation of text and change, given distance and loss before and the round."""
    within: float
    """The same within an experiment's round."""
    permutation_p: float
    """Share of permutations with at least this `within` in size (two-sided)."""
    verdict: str
    """supported or contradicted if both tests agree, no test, or undecided."""
    same_sign: float
    """Share of trainings where delta and the change have the same sign."""
    same_sign_null: float
    boundary: float
    """The delta that best separates harm from help; NaN if all trainings harmed, or none."""
    boundary_low: float
    boundary_high: float
    parted: float
    """Share of trainings that the boundary classifies correctly."""
    parted_null: float


def regimes(
    trainings: pd.DataFrame, seed: int, resamples: int = 1000, level: float = 0.95
) -> Regimes:
    """Test the hypothesis that text closer to the truth than its reader helps, and farther harms.

    `trainings` has COLUMNS: text and before are distances from the truth, loss_before and change
    (above zero: harm) are nats per token. An experiment is `NAME`, or a replicate `NAME.s{seed}`.
    Raises ValueError if a value is not finite.
    """
    values = trainings[list(COLUMNS[3:])].to_numpy(float)
    if not np.isfinite(values).all():
        raise ValueError("regimes: a distance or a loss is not finite; measure the trainings again")
    text, before, loss_before, change = values.T
    delta, given = text - before, np.column_stack([rankdata(before), rankdata(loss_before)])
    run = trainings.experiment.to_numpy()
    rounds = trainings.generation.to_numpy()
    rng, tails = np.random.default_rng(seed), [(1 - level) / 2, (1 + level) / 2]

    def conditional(kept: np.ndarray) -> float:
        x, y, *others = (rankdata(column[kept]) for column in (text, change, before, loss_before))
        return float(np.arctanh(_partial(x, y, np.column_stack(others), rounds[kept])))

    runs = np.unique(run)
    z = conditional(np.full(len(run), True))
    left_out = [conditional(run != one) for one in runs] if len(runs) > 1 else []
    interval = jackknife_interval(z, np.array(left_out), level)
    low, high = np.tanh([interval["low"], interval["high"]])

    source = _permutations(trainings, rng, resamples)  # (P, n): whose text a training gets
    strata = np.array([f"{entry_of(name)} {g}" for name, g in zip(run, rounds, strict=True)])
    ranks, effect = rankdata(text), rankdata(change)
    within = float(_partial(ranks, effect, given, strata))
    nulls = text[source] - before
    permuted, coupling, signs, parts = np.full((4, resamples), np.nan)
    if (ranks[source] != ranks).any():
        permuted = _partial(ranks[source], effect, given, strata)
        coupling = _correlation(rankdata(nulls, axis=1), effect)
        signs = (np.sign(nulls) == np.sign(change)).mean(axis=1)
        parts = _boundary(nulls, np.tile(change, (resamples, 1)))[1]
    null_low, null_high = np.quantile(coupling, tails)
    as_far = (np.abs(permuted) > abs(within) - TIE).sum()
    tested = np.isfinite(permuted).all() and np.isfinite(within)
    p = float((1 + as_far) / (1 + resamples)) if tested else float("nan")

    (boundary,), (parted,) = _boundary(delta[None], change[None])
    edges = _boundaries(delta, change, [np.flatnonzero(run == one) for one in runs], rng, resamples)
    edge_low, edge_high = _ends(edges, tails)
    return Regimes(
        n=len(text),
        runs=len(runs),
        rank_correlation=float(_correlation(rankdata(delta), effect)),
        rank_correlation_null=float(coupling.mean()),
        rank_correlation_null_low=float(null_low),
        rank_correlation_null_high=float(null_high),
        partial=float(np.tanh(z)),
        partial_low=float(low),
        partial_high=float(high),
        within=within,
        permutation_p=p,
        verdict=_verdict(low, high, within, p),
        same_sign=float((np.sign(delta) == np.sign(change)).mean()),
        same_sign_null=float(signs.mean()),
        boundary=float(boundary),
        boundary_low=edge_low,
        boundary_high=edge_high,
        parted=float(parted),
        parted_null=float(parts.mean()),
    )


def _verdict(low: float, high: float, within: float, p: float) -> str:
    if not np.isfinite([low, high, p]).all():
        return "no test"
    if p <= ALPHA and low > 0 and within > 0:
        return "supported"
    return "contradicted" if p <= ALPHA and high < 0 and within < 0 else "undecided"


def _permutations(trainings: pd.DataFrame, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return (P, n): the row whose text each training gets.

    A permutation exchanges whole runs among the replicates of an experiment, and texts among the
    slots of a run. It is the same in all rounds, because the rounds of a line are not independent.
    Slots that read the same texts stay together.
    """
    rows = np.arange(len(trainings))
    source = np.tile(rows, (count, 1))
    experiment = trainings.experiment.str.split(".").str[0].to_numpy()
    for name in dict.fromkeys(experiment):
        mine = trainings.assign(row=rows)[experiment == name]
        mine = mine.sort_values(["experiment", "generation", "member"])
        counts = (mine.experiment.nunique(), mine.generation.nunique(), mine.member.nunique())
        place = mine.row.to_numpy().reshape(counts)  # (runs, rounds, slots)
        text = trainings.text.to_numpy()[place]
        R, G, M = counts
        # (P, runs, slots): whose text a slot of this run gets
        slots = np.empty((count, R, M), dtype=int)
        for r in range(R):
            _, first, group = np.unique(text[r], axis=1, return_index=True, return_inverse=True)
            order = rng.permuted(np.tile(np.arange(len(first)), (count, 1)), axis=1)
            slots[:, r] = first[order[:, group.ravel()]]
        runs = rng.permuted(np.tile(np.arange(R), (count, 1)), axis=1)  # (P, runs)
        of_slot = slots[np.arange(count)[:, None], runs]  # (P, runs, slots)
        source[:, place.ravel()] = place[
            runs[:, :, None, None], np.arange(G)[None, None, :, None], of_slot[:, :, None, :]
        ].reshape(count, -1)
    return source


def _partial(x: np.ndarray, y: np.ndarray, given: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return the correlation (...) of x (..., n) with y (n,), given (n, c) and strata (n,)."""
    _, of = np.unique(strata, return_inverse=True)
    covariates = np.column_stack([given, np.eye(of.max() + 1)[of]])
    u, size, _ = np.linalg.svd(covariates, full_matrices=False)
    basis = u[:, size > size[0] * TIE]
    rest_x, rest_y = (values - (values @ basis) @ basis.T for values in (x, y))
    free = len(y) - basis.shape[1] > 1
    # the rest of ranks without spread is rounding
    return _correlation(rest_x, rest_y, max(x.std(), 1.0) * TIE if free else np.inf)


def _correlation(x: np.ndarray, y: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return the correlation (...) of x (..., n) with y (n,); NaN if a spread is below `least`."""
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean()
    sizes = np.linalg.norm(x, axis=-1), np.linalg.norm(y)
    known = (sizes[0] > least) & (sizes[1] > least)
    bound = 1 - TIE  # finite after Fisher's z
    return np.where(
        known, np.clip(x @ y / np.where(known, sizes[0] * sizes[1], 1), -bound, bound), np.nan
    )


def _boundaries(
    delta: np.ndarray,
    change: np.ndarray,
    runs: list[np.ndarray],
    rng: np.random.Generator,
    resamples: int,
) -> np.ndarray:
    """Return (resamples,): the boundary in resamples of whole runs; none with a single run."""
    if len(runs) < 2:
        return np.array([])
    drawn = [
        np.concatenate([runs[r] for r in rng.integers(0, len(runs), len(runs))])
        for _ in range(resamples)
    ]
    return np.array([_boundary(delta[None, rows], change[None, rows])[0][0] for rows in drawn])


def _ends(values: np.ndarray, tails: list[float]) -> tuple[float, float]:
    """Return the percentile interval of the finite values."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, tails) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _boundary(delta: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (delta that separates harm above from help below, share classified correctly).

    Both arguments are (P, n), both results (P,). Harm is change > 0. The delta is the middle of the
    gap with the fewest errors. Both are NaN if all trainings harmed, or none.
    """
    order = np.argsort(delta, axis=1, kind="stable")
    values = np.take_along_axis(delta, order, axis=1)
    harmed = np.take_along_axis(change, order, axis=1) > 0
    # correct: help below, harm above a cut after value 0, 1, ...
    above = harmed.sum(axis=1, keepdims=True) - np.cumsum(harmed, axis=1)
    right = (np.cumsum(~harmed, axis=1) + above)[:, :-1]
    right = np.where(np.diff(values, axis=1) > 0, right, -1)
    known = ~harmed.all(axis=1) & harmed.any(axis=1)
    if right.shape[1] == 0:
        return np.full(len(delta), np.nan), np.full(len(delta), np.nan)
    cut, rows = right.argmax(axis=1), np.arange(len(delta))
    known &= right[rows, cut] >= 0
    middle = (values[rows, cut] + values[rows, cut + 1]) / 2
    share = right[rows, cut] / delta.shape[1]
    return np.where(known, middle, np.nan), np.where(known, share, np.nan)
