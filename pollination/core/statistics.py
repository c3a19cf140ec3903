"""Intervals and confidences by resampling: what selection and the report say about noise.

Every draw has its seed.

All bootstrap intervals are percentile intervals (Efron 1979). With few units to resample (three
replicates of a line) they are too narrow, by about sqrt((n - 1) / n) and more in the tails; they
say how far the result would move, not that it is right to 95 %.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import stdtrit

CHUNK = 2**22  # resampled indices held at once


def draw_counts(generator: np.random.Generator, units: int, resamples: int) -> np.ndarray:
    """(resamples, units): how often each unit is drawn when `units` are drawn with replacement."""
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
    """{mean, low, high, stderr} of the mean of independent `values` (n,); with `weights` (n,) of
    sum(values) / sum(weights).

    The second form is a ratio (nats a token from sequences' nats and tokens). One value gives an
    interval of width zero.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    if values.size == 0 or values.shape != weights.shape or values.ndim != 1:
        raise ValueError(
            f"bootstrap: values and weights must be equally long and not empty, not {values.shape} "
            f"and {weights.shape}"
        )
    generator, resampled = np.random.default_rng(seed), np.empty(resamples)
    for chunk in chunks(resamples, len(values)):
        counts = draw_counts(generator, len(values), chunk.stop - chunk.start)
        resampled[chunk] = (counts @ values) / (counts @ weights)
    return _interval(values.sum() / weights.sum(), resampled, level)


def jackknife_interval(value: float, left_out: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """{mean, low, high, stderr} of any smooth statistic from its values without each one of n units
    (Tukey 1958), by Student's t.

    Of a mean this is its common t-interval. It may leave the statistic's range near its ends; NaN
    where n < 2 or a value is not known.
    """
    left_out, n = np.asarray(left_out, dtype=float), len(left_out)
    if n < 2:
        return {"mean": float(value), "low": math.nan, "high": math.nan, "stderr": math.nan}
    stderr = math.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * stderr
    return {"mean": float(value), "low": value - half, "high": value + half, "stderr": stderr}


def difference_interval(
    a_groups: np.ndarray,
    b_groups: np.ndarray,
    seed: int,
    paired: bool = False,
    resamples: int = 10_000,
    level: float = 0.95,
) -> dict[str, float]:
    """{mean, low, high, stderr} of mean(a) - mean(b), arrays (groups, questions), e.g. final
    against initial members' answers.

    `paired`: row i of both is the same group (a line's replicate at its end and at its start),
    drawn together. See `change_difference`.
    """
    parts = [
        (np.asarray(a_groups, dtype=float), 1.0, 0),
        (np.asarray(b_groups, dtype=float), -1.0, 0 if paired else 1),
    ]
    return _crossed(parts, seed, resamples, level)


def change_difference(
    population: tuple[np.ndarray, np.ndarray],
    line: tuple[np.ndarray, np.ndarray],
    seed: int,
    paired: tuple[bool, bool] = (False, True),
    resamples: int = 10_000,
    level: float = 0.95,
) -> dict[str, float]:
    """{mean, low, high, stderr} of (final - initial) of the population minus (final - initial) of
    the line.

    population, line: (initial, final), arrays (groups, questions): members, or replicates of the
    line. A population's members of two generations are different models, a line's replicate is the
    same one twice: hence the default of `paired`.

    Groups are resampled, and the questions inside them: all models answer the same questions (equal
    columns), so a draw of questions is shared by all arrays (the pigeonhole bootstrap, Owen 2007).
    Their common difficulty cancels in the difference, as it should. Assumed: groups are
    exchangeable and independent. Members that share parents are not quite, which makes the interval
    too narrow; and one group adds no variation at all, so its interval speaks of questions only. A
    score without questions is an array (groups, 1).
    """
    parts = []
    for index, ((initial, final), together, sign) in enumerate(
        ((population, paired[0], 1.0), (line, paired[1], -1.0))
    ):
        parts.append((np.asarray(final, dtype=float), sign, 2 * index))
        parts.append(
            (np.asarray(initial, dtype=float), -sign, 2 * index if together else 2 * index + 1)
        )
    return _crossed(parts, seed, resamples, level)


def _crossed(
    parts: list[tuple[np.ndarray, float, int]], seed: int, resamples: int, level: float
) -> dict[str, float]:
    """Sum of sign * mean(array); arrays of one key share their draw of groups, all share their draw
    of questions.
    """
    shapes = [array.shape for array, _, _ in parts]
    if (
        any(len(shape) != 2 or 0 in shape for shape in shapes)
        or len({shape[1] for shape in shapes}) > 1
    ):
        raise ValueError(
            f"bootstrap: arrays must be (groups, questions) with the same questions, not {shapes}"
        )
    groups: dict[int, int] = {}
    for array, _, key in parts:
        if groups.setdefault(key, len(array)) != len(array):
            raise ValueError(f"bootstrap: paired arrays must have the same groups, not {shapes}")
    questions, generator, resampled = shapes[0][1], np.random.default_rng(seed), np.zeros(resamples)
    for chunk in chunks(resamples, questions + sum(groups.values())):
        size = chunk.stop - chunk.start
        drawn = {key: draw_counts(generator, count, size) / count for key, count in groups.items()}
        asked = draw_counts(generator, questions, size) / questions
        for array, sign, key in parts:
            resampled[chunk] += sign * ((drawn[key] @ array) * asked).sum(axis=1)
    return _interval(sum(sign * array.mean() for array, sign, _ in parts), resampled, level)


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """(low, high) of the share k / n of independent trials, at 95 % (Wilson 1927).

    The interval keeps to [0, 1] and is sound at k = 0 and k = n. ValueError unless 0 <= k <= n > 0.
    """
    from scipy.stats import binomtest  # half a second, which most users of this module never need

    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def selection_confidence(
    correct: np.ndarray, chosen: list[int], k: int, seed: int, resamples: int = 2_000
) -> dict:
    """How sure the choice of `chosen` as the best k members is, given `correct` (members,
    questions) as booleans.

    Questions are drawn with replacement, the same for all members (their answers are paired), and
    the members ranked anew; a tie at the cut counts as an even chance for each that ties. Returned:
    same_set, the probability that the best k are the chosen; in_best_k, that each chosen member is
    among them; expected_overlap, the mean number that are; expected_regret, how much higher the
    mean accuracy of the best k is than that of the chosen, on average over draws; k, questions,
    resamples.

    These are bootstrap confidences, read as P(truly best) as one reads a flat-prior posterior:
    questions are taken as a sample of the skill meant, and only they are taken as noise (not the
    training seed). The regret is picked and measured on the same draw, so it is an upper estimate.
    """
    correct = np.asarray(correct, dtype=float)
    if correct.ndim != 2 or correct.shape[1] == 0:
        raise ValueError(
            "selection_confidence: correct must be (members, questions) with questions, not "
            f"{correct.shape}"
        )
    members, questions = correct.shape
    if not (
        0 < k <= members
        and len(set(chosen)) == len(chosen) == k
        and all(0 <= member < members for member in chosen)
    ):
        raise ValueError(
            f"selection_confidence: chosen {list(chosen)} must be {k} different members of "
            f"0..{members - 1}"
        )
    generator, inside = np.random.default_rng(seed), np.empty((resamples, k))
    same, regret = np.empty(resamples), np.empty(resamples)
    for chunk in chunks(resamples, questions):
        right = (
            draw_counts(generator, questions, chunk.stop - chunk.start) @ correct.T
        )  # whole numbers, so ties are exact
        best = -np.sort(-right, axis=1)[:, :k]
        cut = best[:, -1:]
        above, tied = right > cut, right == cut
        places, rivals = (
            k - above.sum(axis=1),
            tied.sum(axis=1),
        )  # places at the cut, and how many members tie for them
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
