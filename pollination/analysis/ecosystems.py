"""Ecosystems of models: diversity, perplexity, and the best diversity after T rounds (study B).

Section 3 of the paper defines them. A round is a generation. T counts rounds and includes the round
on human text, t = 0. Shapes: M models, T rounds, B blocks of the test text, R resamples, D
ecosystems of rising diversity. Every draw has its seed.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# one replicate: the perplexities (T, B) of each member; B depends on the member's tokenizer
Members = Sequence[np.ndarray]


def hill_shannon(shares: Iterable[float]) -> float:
    """Return exp(-sum w ln w), the effective number of kinds (study B, equation 1).

    Shares are normalised; a share of zero counts as no kind. Equal shares of n kinds give n exactly
    (equation 2), which exp(ln n) misses in the last digit.
    """
    weights = np.asarray(list(shares), dtype=float)
    finite = len(weights) and np.isfinite(weights).all()
    if not finite or weights.min() < 0 or weights.sum() == 0:
        raise ValueError(
            f"hill_shannon: the shares are {weights.tolist()}; they must be finite, not negative "
            "and not all zero"
        )
    weights = np.sort(weights[weights > 0])  # the order of the kinds must not change the last digit
    if weights[0] == weights[-1]:
        return float(len(weights))
    weights = weights / weights.sum()
    return float(np.exp(-(weights * np.log(weights)).sum()))


def diversity(kinds: Sequence[Hashable]) -> float:
    """Return D of an ecosystem whose members write equal shares; equal entries are one kind."""
    return hill_shannon(Counter(kinds).values())


def mean_of_corpora(values: Sequence[np.ndarray], corpora: Sequence[str]) -> np.ndarray:
    """Return the mean over the members of each test corpus, then over the corpora.

    `values`: one array per member of a replicate; `corpora`: the corpus that measures each, or
    empty if all members share one. So a corpus with more blocks or readers counts no more.
    """
    groups = _by_corpus(len(values), corpora)
    return np.mean([np.mean([values[m] for m in group], axis=0) for group in groups], axis=0)


def _by_corpus(members: int, corpora: Sequence[str]) -> list[list[int]]:
    """Return the members of each corpus, by place."""
    names = list(corpora) or [""] * members
    return [[m for m in range(members) if names[m] == name] for name in dict.fromkeys(names)]


def trajectory(
    replicates: Sequence[Members], corpora: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return (mu_t, sd_t), each (T,).

    mu_t: the mean over blocks, then models, then replicates (study B, equation 3); with several
    test `corpora`, as in `mean_of_corpora`. sd_t: the combined standard deviation of all models'
    blocks around it.
    """
    mu, square = (
        np.mean(
            [
                mean_of_corpora([(member**power).mean(axis=1) for member in members], corpora)
                for members in replicates
            ],
            axis=0,
        )
        for power in (1, 2)
    )
    return mu, np.sqrt(np.maximum(square - mu**2, 0.0))


def aggregate(mu: np.ndarray) -> np.ndarray:
    """Return mu_T (..., T) of mu_t (..., T): means over the first 1, 2, ... rounds (B, eq. 4)."""
    return np.cumsum(mu, axis=-1) / np.arange(1, mu.shape[-1] + 1)


@dataclass(frozen=True)
class Optimum:
    """D_opt(T) and its certainty. Columns: T = 1, 2, ...; rows follow `diversities`, which rise."""

    diversities: list[float]
    mu_DT: np.ndarray
    """Aggregated perplexity mu_T(D)."""
    low_DT: np.ndarray
    high_DT: np.ndarray
    """Ends of its bootstrap interval."""
    best_T: np.ndarray
    """Row of the best ecosystem (study B, equation 5); on a tie, the less diverse one."""
    probability_DT: np.ndarray
    """Share of the resamples in which each ecosystem is best."""
    monotone: bool
    """D_opt never falls with T (study B, equation 6)."""
    monotone_probability: float
    rises_probability: float
    """Share of the resamples in which D_opt of all rounds exceeds D_opt of the first."""
    low_T: np.ndarray
    high_T: np.ndarray
    """Rows of the ends of the interval of D_opt(T)."""
    replicates: list[int]
    """Runs of each ecosystem. With one run, the interval lacks the variation between runs."""


def optimum(
    ecosystems: Sequence[tuple[float, Sequence[Members]]],
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    corpora: Sequence[Sequence[str]] = (),
) -> Optimum:
    """Find the best diversity for every number of rounds, from (D, replicates) per ecosystem.

    `corpora`: the test corpora of each ecosystem's members, as in `mean_of_corpora`.

    Each bootstrap resample draws blocks once for all ecosystems, because all models read the same
    blocks. It also draws replicates (seeds) within an ecosystem, and models within a replicate and
    test corpus, each with all its rounds. One model without replicates adds no variation of its
    own; there the result covers the blocks alone. Intervals are percentile intervals.
    """
    tested = list(corpora) or [()] * len(ecosystems)
    order = sorted(range(len(ecosystems)), key=lambda place: ecosystems[place][0])
    ecosystems, tested = [ecosystems[place] for place in order], [tested[place] for place in order]
    rounds = {
        member.shape[0]
        for _, replicates in ecosystems
        for members in replicates
        for member in members
    }
    if len(rounds) != 1:
        raise ValueError(
            f"optimum: the ecosystems have different numbers of rounds: {sorted(rounds)}; allowed: "
            "one number for all, at least 1. Give them the same `generations`"
        )
    rng = np.random.default_rng(seed)
    # shares of blocks (B, R): one draw for all members that read the same number of blocks
    shares: dict[int, np.ndarray] = {}
    means, resampled = [], []
    for (_, replicates), on in zip(ecosystems, tested, strict=True):
        members = [member for replicate in replicates for member in replicate]
        mean_MRT = np.stack([_resampled(member, shares, rng, resamples) for member in members])
        share_RM = _member_shares([len(replicate) for replicate in replicates], on, rng, resamples)
        resampled.append(np.einsum("rm,mrt->rt", share_RM, mean_MRT))
        of_replicates = [
            mean_of_corpora([member.mean(axis=1) for member in replicate], on)
            for replicate in replicates
        ]
        means.append(np.mean(of_replicates, axis=0))
    mu_DT, mu_DRT = aggregate(np.stack(means)), aggregate(np.stack(resampled))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(mu_DRT, tails, axis=1)
    best_T, best_RT = mu_DT.argmin(axis=0), mu_DRT.argmin(axis=0)
    low_T, high_T = np.quantile(best_RT, tails, axis=0, method="inverted_cdf").astype(int)
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
        low_T,
        high_T,
        [len(replicates) for _, replicates in ecosystems],
    )


def _resampled(
    perplexity_TB: np.ndarray,
    shares: dict[int, np.ndarray],
    rng: np.random.Generator,
    resamples: int,
) -> np.ndarray:
    """Return (R, T): a member's mean over each resample of the blocks."""
    blocks = perplexity_TB.shape[1]
    if blocks not in shares:
        shares[blocks] = rng.multinomial(blocks, np.full(blocks, 1 / blocks), resamples).T / blocks
    return (perplexity_TB @ shares[blocks]).T


def _member_shares(
    sizes: list[int], corpora: Sequence[str], rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """Return weights (R, members of all replicates): draw replicates, then members of each.

    Members are drawn within their test corpus, because the corpora are fixed.
    """
    shares = np.zeros((resamples, len(sizes), max(sizes)))
    for _ in sizes:
        chosen = rng.integers(0, len(sizes), resamples)
        for replicate, size in enumerate(sizes):
            hit, groups = chosen == replicate, _by_corpus(size, corpora)
            for group in groups:
                drawn = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), hit.sum())
                shares[np.ix_(hit, [replicate], group)] += (
                    drawn / len(group) / len(groups) / len(sizes)
                )[:, None]
    return np.concatenate(
        [shares[:, replicate, :size] for replicate, size in enumerate(sizes)], axis=1
    )
