"""Directed influence between families against release lag, and its asymmetry (study A, B.3).

I(A -> B) and I(B -> A) share the same features. They differ only by their divisors and by the
weights of the shared features. A model with a longer fingerprint, or with one from more text, has
less influence and receives more, whatever its release. So the tables show, beside the raw
asymmetry, the asymmetry expected from sizes and popularity alone, the excess over it, and the
excess with the amount of text held equal. Permutation p-values shuffle the release months.

Shapes: M models, matrices (M, M) with the source in rows; months (M,); lag of B after A is
months[B] - months[A].
"""

import numpy as np


def lags(months: np.ndarray) -> np.ndarray:
    return months - months[:, None]


def cross_family(families: list[str]) -> np.ndarray:
    names = np.array(families)
    return names[:, None] != names


def asymmetry(
    observed: np.ndarray,
    expected: np.ndarray,
    months: np.ndarray,
    families: list[str],
    written: np.ndarray | None,
    seed: int,
    permutations: int,
) -> dict[str, float | None]:
    """Return the mean of I(older -> newer) - I(newer -> older), with two-sided p-values.

    Result: {raw, p_raw, expected, excess, p_excess, adjusted, p_adjusted}. The pairs are of
    different families and different months; without such pairs all values are None. `written` (M,):
    words that each model wrote; if None, `adjusted` is None.

    adjusted: the slope of the excess on the sign of the lag, controlling for the amount of text:
    the pair's log ratio of words, its square with its sign, and the difference of squared logs
    (linear terms alone do not control for lists of fixed length). Its p permutes the models in the
    residual of the sign (double semi-partialling; Dekker, Krackhardt and Snijders 2007).
    """
    names = ("raw", "p_raw", "expected", "excess", "p_excess", "adjusted", "p_adjusted")
    apart, order = cross_family(families), np.sign(lags(months)).astype(float)
    used = apart & (order != 0)
    if not used.any():
        return dict.fromkeys(names)
    generator = np.random.default_rng(seed)
    shuffles = [generator.permutation(len(months)) for _ in range(permutations)]
    turned = {"raw": observed - observed.T, "expected": expected - expected.T}
    turned["excess"] = turned["raw"] - turned["expected"]

    def mean(difference: np.ndarray, order: np.ndarray) -> float:
        used = apart & (order != 0)
        return float((difference * order)[used].mean()) if used.any() else 0.0

    means = {name: mean(difference, order) for name, difference in turned.items()}
    values: dict[str, float | None] = dict(means)
    for name in ("raw", "excess"):
        dealt = [mean(turned[name], order[np.ix_(s, s)]) for s in shuffles]
        values[f"p_{name}"] = _p(means[name], dealt)
    values |= {"adjusted": None, "p_adjusted": None}
    if written is not None:
        log = np.log(np.maximum(written, 1))
        log = log - log.mean()
        made = np.stack([lags(log), lags(log) * np.abs(lags(log)), lags(log**2)])  # (3, M, M)
        held = made[:, used].T  # (pairs, 3)
        solve = np.linalg.pinv(held)  # 0 if all models wrote the same amount: no control then
        difference = turned["excess"][used]
        difference = difference - held @ (solve @ difference)
        left = order - np.tensordot(solve @ order[used], made, axes=1)
        dealt = [left[np.ix_(s, s)][used] for s in [np.arange(len(months)), *shuffles]]
        slopes = [_slope(difference, x - held @ (solve @ x)) for x in dealt]
        values |= {"adjusted": slopes[0], "p_adjusted": _p(slopes[0], slopes[1:])}
    return {name: values[name] for name in names}


def _slope(y: np.ndarray, x: np.ndarray) -> float:
    """Return the slope without intercept: y and x change sign if a pair is reversed."""
    return float(y @ x / (x @ x)) if x @ x > 1e-9 else 0.0


def _p(value: float, dealt: list[float]) -> float:
    as_large = sum(abs(permuted) >= abs(value) - 1e-15 for permuted in dealt)
    return (1 + as_large) / (1 + len(dealt))


def by_lag(
    observed: np.ndarray,
    expected: np.ndarray,
    months: np.ndarray,
    families: list[str],
    width: int,
    seed: int,
    resamples: int,
    level: float = 0.95,
) -> list[dict]:
    """Return mean influence and its expectation in bins of `width` months, with intervals.

    The bins are [1, width], [width + 1, 2 width], ... and their mirror images. The lag of a bin is
    the mean lag of its pairs. Intervals resample models.
    """
    apart, lag = cross_family(families), lags(months)
    bins = np.sign(lag) * -(-np.abs(lag) // width)
    shares = np.full(len(months), 1 / len(months))
    counts = np.random.default_rng(seed).multinomial(len(months), shares, resamples).astype(float)
    rows = []
    for number in np.unique(bins[apart & (lag != 0)]):
        source, target = np.nonzero(apart & (bins == number) & (lag != 0))
        weights = counts[:, source] * counts[:, target]  # (S, pairs)
        total = weights.sum(axis=1)
        values = (weights @ observed[source, target])[total > 0] / total[total > 0]
        low, high = np.nan, np.nan
        if len(values):
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        far = number * width
        near = far - np.sign(number) * (width - 1)
        row: dict[str, float] = {"first": int(min(far, near)), "last": int(max(far, near))}
        row |= {
            "lag": float(lag[source, target].mean()),
            "pairs": len(source),
            "models": len(set(source) | set(target)),
        }
        row |= {
            "mean": float(observed[source, target].mean()),
            "low": float(low),
            "high": float(high),
        }
        rows.append(row | {"expected": float(expected[source, target].mean())})
    return rows
