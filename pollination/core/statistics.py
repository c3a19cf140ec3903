"""Compute confidence intervals by resampling, for selection and for the report.

Every draw has a seed.

All bootstrap intervals are percentile intervals (Efron 1979). With few units to resample they are
too narrow, by about sqrt((n - 1) / n) and more in the tails. They then show how far the result
would move, but do not cover the truth in 95 % of cases.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import stdtrit

CHUNK = 2**22  # resampled indices in memory at once


def draw_counts(generator: np.random.Generator, units: int, resamples: int) -> np.ndarray:
    """Return (resamples, units): how often each unit occurs in a draw with replacement."""
    drawn = generator.integers(0, units, (resamples, units)) + units * np.arange(resamples)[:, None]
    return (
        np.bincount(drawn.ravel(), minlength=resamples * units)
        .reshape(resamples, units)
        .astype(float)
    )


def chunks(resamples: int, units: int) -> Iterator[slice]:
    size = max(1, CHUNK // max(1, units))
    return (slice(start, min(start + size, resamples)) for start in range(0, resamples, size))


def _interval(estimate: float, resampled: np.ndarray, level: float) -> dict[str, float]:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return {
        "mean": float(estimate),
        "low": float(low),
        "high": float(high),
        "stderr": float(resampled.std(ddof=1)),
    }


def bootstrap_mean_interval(
    values: np.ndarray,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Return {mean, low, high, stderr} of the mean of independent `values` (n,).

    With `weights` (n,), the statistic is the ratio sum(values) / sum(weights), e.g. nats per token
    from the nats and tokens of sequences. One value gives an interval of width zero.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    if values.size == 0 or values.shape != weights.shape or values.ndim != 1:
        raise ValueError(
            "bootstrap: values and weights must be one-dimensional, of equal length and not empty; "
            f"their shapes are {values.shape} and {weights.shape}"
        )
    generator, resampled = np.random.default_rng(seed), np.empty(resamples)
    for chunk in chunks(resamples, len(values)):
        counts = draw_counts(generator, len(values), chunk.stop - chunk.start)
        resampled[chunk] = (counts @ values) / (counts @ weights)
    return _interval(values.sum() / weights.sum(), resampled, level)


def jackknife_interval(value: float, left_out: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """Return the jackknife {mean, low, high, stderr} of a smooth statistic (Tukey 1958).

    left_out: (n,) values of the statistic, each without one of the n units. The interval uses
    Student's t; for a mean it is the usual t-interval. It may exceed the range of the statistic.
    It is NaN if n < 2 or a value is unknown.
    """
    left_out, n = np.asarray(left_out, dtype=float), len(left_out)
    if n < 2:
        return {"mean": float(value), "low": math.nan, "high": math.nan, "stderr": math.nan}
    stderr = math.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * stderr
    return {"mean": float(value), "low": value - half, "high": value + half, "stderr": stderr}


def kernels(
    values: np.ndarray,
    places: np.ndarray,
    width: float,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> np.ndarray:
    """Return (n, G): a Gaussian density around each value, reflected at finite `bounds`.

    Each row integrates to 1 between the bounds, so an estimate has no mass where no value can be
    (Silverman 1986, section 2.10). `places` (G,) lie between the bounds.
    """
    low, high = bounds
    images = [values]
    if np.isfinite(low):
        images.append(2 * low - values)
    if np.isfinite(high) and not np.isfinite(low):
        images.append(2 * high - values)
    if np.isfinite(low) and np.isfinite(high):  # mirrors face each other: images of images
        period, reach = 2 * (high - low), int(np.ceil(4 * width / (high - low)))
        shifts = period * np.arange(-reach, reach + 1)
        images = [image + shift for image in images for shift in shifts]
    heights = sum(np.exp(-0.5 * ((places - image[:, None]) / width) ** 2) for image in images)
    return np.asarray(heights) / (width * np.sqrt(2 * np.pi))


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of k / n independent trials (Wilson 1927).

    The interval stays within [0, 1] and is valid at k = 0 and k = n. Raises ValueError unless
    0 <= k <= n > 0.
    """
    from scipy.stats import binomtest  # takes half a second to import

    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def selection_confidence(
    correct: np.ndarray,
    chosen: list[int],
    k: int,
    seed: int,
    resamples: int = 2_000,
    precision_sd: np.ndarray | None = None,
) -> dict:
    """Return the bootstrap confidence that the members `chosen` are the best k.

    correct: (members, questions), from 0 (wrong) to 1 (right). Each draw takes questions with
    replacement, the same for all members because their answers are paired, and ranks the members
    again. Members that tie at the cut get equal chances. The result has these keys:

    - same_set: the probability that the best k are exactly the chosen members
    - in_best_k: for each chosen member, the probability that it is among the best k
    - expected_overlap: the mean number of chosen members among the best k
    - expected_regret: the mean accuracy of the best k minus that of the chosen, averaged over draws
    - k, questions, resamples

    The confidences can be read as P(truly best), like a posterior with a flat prior. Questions are
    treated as a sample of the intended skill and as the only noise; the training seed is not. The
    regret is selected and measured on the same draw, so it is an upper estimate.

    precision_sd: (members,), standard deviation of each accuracy by the precision of the scores
    (None: exact scores). Each draw adds normal noise of this size.
    """
    correct = np.asarray(correct, dtype=float)
    if correct.ndim != 2 or correct.shape[1] == 0:
        raise ValueError(
            "selection_confidence: correct must have the shape (members, questions) with at least "
            f"one question; its shape is {correct.shape}"
        )
    members, questions = correct.shape
    if not (
        0 < k <= members
        and len(set(chosen)) == len(chosen) == k
        and all(0 <= member < members for member in chosen)
    ):
        raise ValueError(
            f"selection_confidence: chosen is {list(chosen)}; allowed: {k} different members of "
            f"0 to {members - 1}"
        )
    generator, inside = np.random.default_rng(seed), np.empty((resamples, k))
    rounding = np.random.default_rng([seed, 1])
    same, regret = np.empty(resamples), np.empty(resamples)
    for chunk in chunks(resamples, questions):
        counts = draw_counts(generator, questions, chunk.stop - chunk.start)
        right = (counts @ correct.T).round(9)  # so that ties are exact
        if precision_sd is not None:
            right += questions * precision_sd * rounding.standard_normal(right.shape)
        best = -np.sort(-right, axis=1)[:, :k]
        cut = best[:, -1:]
        above, tied = right > cut, right == cut
        places, rivals = (
            k - above.sum(axis=1),
            tied.sum(axis=1),
        )  # places at the cut, and the number of members that tie for them
        inside[chunk] = above[:, chosen] + tied[:, chosen] * (places / rivals)[:, None]
        possible = (above | tied)[:, chosen].all(axis=1) & (
            above[:, chosen].sum(axis=1) == above.sum(axis=1)
        )
        same[chunk] = [
            ok / math.comb(n, r) for ok, n, r in zip(possible, rivals, places, strict=True)
        ]
        regret[chunk] = (best.mean(axis=1) - right[:, chosen].mean(axis=1)) / questions
    return {
        "same_set": float(same.mean()),
        "in_best_k": [float(share) for share in inside.mean(axis=0)],
        "expected_overlap": float(inside.sum(axis=1).mean()),
        "expected_regret": float(regret.mean()),
        "k": k,
        "questions": questions,
        "resamples": resamples,
    }
