"""Directed influence between models of different families against the lag of their release, and its asymmetry (study A, B.3).

Orientation is all: I(A -> B) and I(B -> A) share the same features, so they differ only by what they are divided by and by which of the
shared features weigh much. A model with a longer fingerprint, or one from more text, is carried less and carries more, whenever it came out. So
beside the raw asymmetry stand the one expected from sizes and popularity alone, the excess over it, and the excess with the amount of text held
equal; each with a permutation p-value that deals the release months out to the models anew.

Shapes: M models, matrices (M, M) with the source in rows; months (M,); lag of B after A is months[B] - months[A].
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
    """{raw, p_raw, expected, excess, p_excess, adjusted, p_adjusted}: I(older -> newer) minus I(newer -> older), mean over pairs of other
    families and other months; all None where there are none. `written` (M,): words that each model wrote; None: `adjusted` is None.

    adjusted: the slope of the excess on the sign of the lag beside what text makes: the pair's log ratio of words, its square with its sign,
    and the difference of squared logs (straight lines alone let lists of fixed length through). p by permuting the models in what these leave
    of the sign (double semi-partialling; Dekker, Krackhardt and Snijders 2007). p-values are two-sided.
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

    found = {name: mean(difference, order) for name, difference in turned.items()}
    for name in ("raw", "excess"):
        found[f"p_{name}"] = _p(found[name], [mean(turned[name], order[np.ix_(s, s)]) for s in shuffles])
    found |= {"adjusted": None, "p_adjusted": None}
    if written is not None:
        log = np.log(np.maximum(written, 1))
        log = log - log.mean()
        made = np.stack([lags(log), lags(log) * np.abs(lags(log)), lags(log**2)])  # (3, M, M)
        held = made[:, used].T  # (pairs, 3)
        solve = np.linalg.pinv(held)  # 0 where all wrote as much: nothing is held then
        difference = turned["excess"][used]
        difference = difference - held @ (solve @ difference)
        left = order - np.tensordot(solve @ order[used], made, axes=1)
        dealt = [left[np.ix_(s, s)][used] for s in [np.arange(len(months)), *shuffles]]
        slopes = [_slope(difference, x - held @ (solve @ x)) for x in dealt]
        found |= {"adjusted": slopes[0], "p_adjusted": _p(slopes[0], slopes[1:])}
    return {name: found[name] for name in names}


def _slope(y: np.ndarray, x: np.ndarray) -> float:
    """No intercept: both change sign when a pair is turned round."""
    return float(y @ x / (x @ x)) if x @ x > 1e-9 else 0.0


def _p(value: float, dealt: list[float]) -> float:
    return (1 + sum(abs(other) >= abs(value) - 1e-15 for other in dealt)) / (1 + len(dealt))


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
    """Mean influence and its expectation in bins of `width` months, [1, width], [width + 1, 2 width], ... and their mirror images; intervals
    from resampled models. A bin lies at the mean lag of its pairs."""
    apart, lag = cross_family(families), lags(months)
    bins = np.sign(lag) * -(-np.abs(lag) // width)
    counts = np.random.default_rng(seed).multinomial(len(months), np.full(len(months), 1 / len(months)), resamples).astype(float)
    rows = []
    for number in np.unique(bins[apart & (lag != 0)]):
        source, target = np.nonzero(apart & (bins == number) & (lag != 0))
        weights = counts[:, source] * counts[:, target]  # (S, pairs)
        total = weights.sum(axis=1)
        values = (weights @ observed[source, target])[total > 0] / total[total > 0]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (np.nan, np.nan)
        far = number * width
        row = {"first": int(min(far, far - np.sign(number) * (width - 1))), "last": int(max(far, far - np.sign(number) * (width - 1)))}
        row |= {"lag": float(lag[source, target].mean()), "pairs": len(source), "models": len(set(source) | set(target))}
        row |= {"mean": float(observed[source, target].mean()), "low": float(low), "high": float(high)}
        rows.append(row | {"expected": float(expected[source, target].mean())})
    return rows
