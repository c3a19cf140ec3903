"""Ecosystems of models: diversity, perplexity over rounds, and the diversity that is best after T rounds (study B, section 3);
and whether effective data quality tells harm from help (section 5).

A round is a generation; T counts rounds, and the round on human text, t = 0, is the first of them. Letters: M models, T rounds,
B blocks of the test text, R resamples, D ecosystems of rising diversity. Every draw has its seed.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

Members = Sequence[np.ndarray]  # of one replicate: each member's perplexities (T, B); with another tokenizer, another B


def hill_shannon(shares: Iterable[float]) -> float:
    """exp(-sum w ln w): the effective number of equally frequent kinds (study B, equation 1). Shares are normalised; zeros are no kinds."""
    weights = np.asarray(list(shares), dtype=float)
    if not len(weights) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
        raise ValueError(f"hill_shannon: shares must be finite, not negative and not all zero, not {weights.tolist()}")
    weights = weights[weights > 0] / weights.sum()
    return float(np.exp(-(weights * np.log(weights)).sum()))


def diversity(kinds: Sequence[Hashable]) -> float:
    """D of an ecosystem whose members write equal shares of its text: members of one kind (equal entries) are no diversity."""
    return hill_shannon(Counter(kinds).values())


def trajectory(replicates: Sequence[Members]) -> tuple[np.ndarray, np.ndarray]:
    """(mu_t, sd_t), each (T,): the mean over blocks, then models, then replicates (study B, equation 3), and the combined standard
    deviation of all models' blocks around it."""
    members = [member for replicate in replicates for member in replicate]
    mean_MT = np.stack([member.mean(axis=1) for member in members])
    square_MT = np.stack([(member**2).mean(axis=1) for member in members])
    mu = mean_MT.mean(axis=0)
    return mu, np.sqrt(np.maximum(square_MT.mean(axis=0) - mu**2, 0.0))


def aggregate(mu: np.ndarray) -> np.ndarray:
    """mu_T (..., T) of mu_t (..., T): the mean over the first 1, 2, ... rounds (study B, equation 4)."""
    return np.cumsum(mu, axis=-1) / np.arange(1, mu.shape[-1] + 1)


@dataclass(frozen=True)
class Optimum:
    """D_opt(T) and how sure it is. Columns T = 1, 2, ...; rows follow `diversities`, which rise."""

    diversities: list[float]
    mu_DT: np.ndarray
    """Aggregated perplexity mu_T(D)."""
    low_DT: np.ndarray
    high_DT: np.ndarray
    """Ends of its bootstrap interval."""
    best_T: np.ndarray
    """Row of the ecosystem that is best (study B, equation 5; of equals, the less diverse)."""
    probability_DT: np.ndarray
    """Share of the resamples in which an ecosystem is the best."""
    monotone: bool
    """D_opt never falls with T (study B, equation 6)."""
    monotone_probability: float
    rises_probability: float
    """Share of the resamples in which D_opt of all rounds is above D_opt of the first."""


def optimum(ecosystems: Sequence[tuple[float, Sequence[Members]]], seed: int, resamples: int = 1000, level: float = 0.95) -> Optimum:
    """The best diversity for every number of rounds, from (D, replicates) of each ecosystem.

    Bootstrap: blocks are drawn once a resample for all ecosystems, whose models all read the same ones; replicates (seeds) are drawn
    within an ecosystem and models within a replicate, each with all its rounds. A single model that has no replicate adds no variation
    of its own: then the result speaks of the blocks alone. Percentile intervals.
    """
    ecosystems = sorted(ecosystems, key=lambda one: one[0])
    rounds = {member.shape[0] for _, replicates in ecosystems for members in replicates for member in members}
    if len(rounds) != 1:
        raise ValueError(f"optimum: ecosystems must have equally many rounds, at least one, not {sorted(rounds)}")
    rng = np.random.default_rng(seed)
    shares: dict[int, np.ndarray] = {}  # of blocks, (B, R): one draw for all that read the same number of blocks
    mu_DT, mu_DRT = [], []
    for _, replicates in ecosystems:
        members = [member for replicate in replicates for member in replicate]
        mean_MRT = np.stack([_resampled(member, shares, rng, resamples) for member in members])
        mu_DRT.append(np.einsum("rm,mrt->rt", _member_shares([len(r) for r in replicates], rng, resamples), mean_MRT))
        mu_DT.append(np.mean([np.mean([member.mean(axis=1) for member in replicate], axis=0) for replicate in replicates], axis=0))
    mu_DT, mu_DRT = aggregate(np.stack(mu_DT)), aggregate(np.stack(mu_DRT))
    low, high = np.quantile(mu_DRT, [(1 - level) / 2, (1 + level) / 2], axis=1)
    best_T, best_RT = mu_DT.argmin(axis=0), mu_DRT.argmin(axis=0)
    return Optimum(
        [diversity for diversity, _ in ecosystems],
        mu_DT,
        low,
        high,
        best_T,
        np.stack([(best_RT == row).mean(axis=0) for row in range(len(ecosystems))]),
        bool((np.diff(best_T) >= 0).all()),
        float((np.diff(best_RT, axis=1) >= 0).all(axis=1).mean()),
        float((best_RT[:, -1] > best_RT[:, 0]).mean()),
    )


def _resampled(perplexity_TB: np.ndarray, shares: dict[int, np.ndarray], rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(R, T): a member's mean over each resample of the blocks."""
    blocks = perplexity_TB.shape[1]
    if blocks not in shares:
        shares[blocks] = rng.multinomial(blocks, np.full(blocks, 1 / blocks), resamples).T / blocks
    return (perplexity_TB @ shares[blocks]).T


def _member_shares(sizes: list[int], rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(R, members of all replicates): replicates drawn with replacement, then as many members as it has within each that is drawn."""
    shares = np.zeros((resamples, len(sizes), max(sizes)))
    for _ in sizes:
        chosen = rng.integers(0, len(sizes), resamples)
        for replicate, size in enumerate(sizes):
            hit = chosen == replicate
            shares[hit, replicate, :size] += rng.multinomial(size, np.full(size, 1 / size), hit.sum()) / size / len(sizes)
    return np.concatenate([shares[:, replicate, :size] for replicate, size in enumerate(sizes)], axis=1)


def regimes(
    delta: np.ndarray, change: np.ndarray, lineages: Sequence[Hashable], seed: int, resamples: int = 1000, level: float = 0.95
) -> dict:
    """Does text that is nearer to the truth than its reader help, and text that is farther harm (study B, section 5)?

    delta (n,): distance of a training's text minus that of the model before it; change (n,): what the training did to the loss, above
    zero is harm. Returned: rank_correlation (Spearman) with low, high; same_sign, the share of trainings where both have one sign;
    boundary, the delta that best parts harm from help (NaN where all were harmed, or none), with its low and high, and parted, the
    share that it parts rightly; n, lineages. Intervals: lineages (a slot of an experiment, all its rounds) are drawn with replacement.
    """
    names, of = np.unique([repr(lineage) for lineage in lineages], return_inverse=True)
    groups, rng, drawn = [np.flatnonzero(of == g) for g in range(len(names))], np.random.default_rng(seed), []
    for _ in range(resamples):
        some = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        drawn.append((_spearman(delta[some], change[some]), _boundary(delta[some], change[some])[0]))
    low, high = np.transpose([_ends(values, level) for values in np.transpose(drawn)])
    boundary, parted = _boundary(delta, change)
    result = {"rank_correlation": _spearman(delta, change), "low": low[0], "high": high[0]}
    result |= {"boundary": boundary, "boundary_low": low[1], "boundary_high": high[1], "parted": parted}
    return result | {"same_sign": float((np.sign(delta) == np.sign(change)).mean()), "n": len(delta), "lineages": len(names)}


def _ends(values: np.ndarray, level: float) -> np.ndarray:
    """Percentile interval of the values that are numbers."""
    known = values[np.isfinite(values)]
    return np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if len(known) else np.full(2, np.nan)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _boundary(delta: np.ndarray, change: np.ndarray) -> tuple[float, float]:
    """(the middle of the gap in delta that parts change > 0 above from the rest below with the fewest errors, share parted rightly)."""
    harmed = change[np.argsort(delta, kind="stable")] > 0
    if harmed.all() or not harmed.any():
        return float("nan"), float("nan")
    values = np.sort(delta)
    right = np.cumsum(~harmed)[:-1] + np.cumsum(harmed[::-1])[::-1][1:]  # help below and harm above a cut after value 0, 1, ...
    right = np.where(np.diff(values) > 0, right, -1)
    cut = int(right.argmax())
    if right[cut] < 0:
        return float("nan"), float("nan")
    return float(values[cut : cut + 2].mean()), float(right[cut] / len(delta))
