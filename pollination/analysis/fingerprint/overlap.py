"""Overlap of within-family and cross-family similarities (study A, appendix B.2).

The statistics are the overlap coefficient and Cliff's delta, with intervals and a permutation test.
All are functions of weights on pairs: 1 for the sample itself, counts for a resample, 0 for a pair
that a jackknife leaves out. So the same code resamples pairs, as the paper does, and models. Only
the latter is valid, because pairs share models. Shapes: S resamples, W within-family pairs, C
cross-family pairs, G grid places.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from pollination.core.statistics import kernels

GRID = 512  # number of points at which densities are compared
STATISTICS = ("overlap_kde", "overlap_histogram", "cliffs_delta")


@dataclass(frozen=True)
class Groups:
    """Similarities of within-family (W,) and cross-family pairs (C,), and their models (., 2)."""

    within: np.ndarray
    cross: np.ndarray
    within_models: np.ndarray
    cross_models: np.ndarray
    models: int
    bandwidth: str | float = "scott"
    bins: int = 50
    bounds: tuple[float, float] = (-np.inf, np.inf)
    """Limits of what is measured; densities are reflected there (a Jaccard index: 0 and 1)."""
    width: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "width", bandwidth(np.concatenate([self.within, self.cross]), self.bandwidth)
        )


def groups(similarity: np.ndarray, families: list[str], **options) -> Groups:
    """Return the pairs of different models, split into within-family and cross-family pairs."""
    first, second = np.triu_indices(len(families), 1)
    same = np.array([families[a] == families[b] for a, b in zip(first, second, strict=True)])
    pairs = np.stack([first, second], axis=1)
    values = similarity[first, second]
    return Groups(values[same], values[~same], pairs[same], pairs[~same], len(families), **options)


def bandwidth(values: np.ndarray, rule: str | float) -> float:
    """Return the common bandwidth of all pairs.

    'scott' is sd n^-1/5, 'silverman' is 0.9 min(sd, IQR / 1.34) n^-1/5; a number is used unchanged.
    """
    if not isinstance(rule, str):
        return float(rule)
    sd, size = values.std(ddof=1), len(values) ** -0.2
    quartiles = np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34
    width = sd * size if rule == "scott" else 0.9 * (min(sd, quartiles) or sd) * size
    return float(width) or 1e-6  # 0 if all pairs are equally similar


def grid(pairs: Groups) -> np.ndarray:
    """Return (G,): middles of equal cells, from four bandwidths below the smallest similarity to
    four above the largest, but within the bounds.
    """
    low = min(pairs.within.min(), pairs.cross.min()) - 4 * pairs.width
    high = max(pairs.within.max(), pairs.cross.max()) + 4 * pairs.width
    edges = np.linspace(max(low, pairs.bounds[0]), min(high, pairs.bounds[1]), GRID + 1)
    return (edges[:-1] + edges[1:]) / 2


def statistics(pairs: Groups) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Return a function of weights (S, W), (S, C) that computes each of STATISTICS, (S,)."""
    places = grid(pairs)
    step = places[1] - places[0]
    smooth = [
        kernels(values, places, pairs.width, pairs.bounds) for values in (pairs.within, pairs.cross)
    ]
    edges = np.histogram_bin_edges(np.concatenate([pairs.within, pairs.cross]), pairs.bins)
    binned = [
        np.eye(pairs.bins)[np.clip(np.searchsorted(edges, values, "right") - 1, 0, pairs.bins - 1)]
        for values in (pairs.within, pairs.cross)
    ]
    sign = np.sign(pairs.cross[:, None] - pairs.within)  # (C, W)

    def measure(within: np.ndarray, cross: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            within = within / within.sum(axis=1, keepdims=True)
            cross = cross / cross.sum(axis=1, keepdims=True)
        kde = np.minimum(within @ smooth[0], cross @ smooth[1]).sum(axis=1) * step
        histogram = np.minimum(within @ binned[0], cross @ binned[1]).sum(axis=1)
        delta = ((cross @ sign) * within).sum(axis=1)
        return dict(zip(STATISTICS, (kde, histogram, delta), strict=True))

    return measure


def intervals(pairs: Groups, seed: int, resamples: int = 1000, level: float = 0.95) -> list[dict]:
    """Return one row per statistic and resampled unit: value, percentile and BCa interval ends.

    The units are pairs and models. If no family has two models in a draw, the draw has no pair
    within a family. It is left out, and `resamples` counts the remaining draws.
    """
    measure, generator = statistics(pairs), np.random.default_rng(seed)
    sizes = len(pairs.within), len(pairs.cross)
    point = {
        name: value[0] for name, value in measure(*(np.ones((1, size)) for size in sizes)).items()
    }
    shares = np.full(pairs.models, 1 / pairs.models)
    counts = generator.multinomial(pairs.models, shares, resamples)  # (S, M)
    without_model = 1 - np.eye(pairs.models)
    without_pair = 1 - np.eye(sum(sizes))
    drawn = {
        "pairs": tuple(
            generator.multinomial(size, np.full(size, 1 / size), resamples) for size in sizes
        ),
        "models": tuple(
            counts[:, two].prod(axis=2) for two in (pairs.within_models, pairs.cross_models)
        ),
    }
    left_out = {
        "pairs": (without_pair[:, : sizes[0]], without_pair[:, sizes[0] :]),
        "models": tuple(
            without_model[:, two].prod(axis=2) for two in (pairs.within_models, pairs.cross_models)
        ),
    }
    rows = []
    for unit, weights in drawn.items():
        resampled, jackknife = measure(*weights), measure(*left_out[unit])
        for name, value in point.items():
            usable = resampled[name][np.isfinite(resampled[name])]
            low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]).tolist()
            bca_low, bca_high = bca(value, usable, jackknife[name], level)
            rows.append(
                {
                    "statistic": name,
                    "value": float(value),
                    "resampled": unit,
                    "resamples": len(usable),
                    "low": low,
                    "high": high,
                    "bca_low": bca_low,
                    "bca_high": bca_high,
                }
            )
    return rows


def bca(
    value: float, resampled: np.ndarray, jackknife: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval (Efron 1987)."""
    size = len(resampled)
    below = ((resampled < value).sum() + (resampled == value).sum() / 2) / size
    shift = ndtri(np.clip(below, 0.5 / size, 1 - 0.5 / size))
    jackknife = jackknife[np.isfinite(jackknife)]
    away = jackknife.sum() / max(1, len(jackknife)) - jackknife
    spread = (away**2).sum() ** 1.5
    lean = (away**3).sum() / (6 * spread) if spread > 0 else 0.0
    ends = shift + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(
        resampled, np.nan_to_num(ndtr(shift + ends / (1 - lean * ends)), nan=0.5)
    )
    return float(low), float(high)


def permutation_test(
    similarity: np.ndarray, families: list[str], seed: int, permutations: int = 1000, **options
) -> dict[str, float]:
    """Return one-sided p-values of Cliff's delta (low) and of the difference of means (high).

    Families are assigned to the models at random; the observed labels count as one such draw.
    """
    generator = np.random.default_rng(seed)
    first, second = np.triu_indices(len(families), 1)
    values, labels = similarity[first, second], np.unique(families, return_inverse=True)[1]
    ranks = rankdata(values) - 1

    def separation(dealt: np.ndarray) -> tuple[float, float]:
        same = dealt[first] == dealt[second]
        w, c = same.sum(), (~same).sum()
        # Mann-Whitney: how often a cross pair exceeds a within pair
        above = ranks[~same].sum() - c * (c - 1) / 2
        return 2 * above / (w * c) - 1, values[same].mean() - values[~same].mean()

    delta, difference = separation(labels)
    dealt = [separation(generator.permutation(labels)) for _ in range(permutations)]
    as_low = sum(d <= delta + 1e-12 for d, _ in dealt)
    as_high = sum(m >= difference - 1e-12 for _, m in dealt)
    return {
        "cliffs_delta": float(delta),
        "p_cliffs_delta": (1 + int(as_low)) / (1 + permutations),
        "mean_difference": float(difference),
        "p_mean_difference": (1 + int(as_high)) / (1 + permutations),
    }
