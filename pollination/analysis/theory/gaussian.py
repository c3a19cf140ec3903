"""Recursive estimation of a Gaussian by the best of K (study A, section 6.1, appendix A.2).

The first source is the truth N(0, I). In each generation, each of K estimators fits n samples of
the source. The estimator with the smallest squared Wasserstein-2 distance to the truth is the next
source. K = 1 is the single line. An estimator depends only on the mean and covariance of its
samples, so these are drawn directly: N(m, C / n), and (Wishart of C with n - 1 degrees of freedom)
/ (n - 1), which in one dimension is a chi-square. Many runs are simulated at once. Shapes: K
estimators, R runs, D dimensions.
"""

from dataclasses import dataclass

import numpy as np

from pollination.core.seeds import derive_seed

BLOCK = 500  # runs per block: its arrays fit a core's cache; each block has its own random stream


@dataclass(frozen=True)
class Setting:
    """One simulation of `k` estimators with `n` samples each.

    `noise`: standard deviation (units of W2, the truth's variance) of the error that is added to
    each distance before the smallest is chosen, like the error of a benchmark. 0 is the oracle of
    the paper. Infinite noise is a random choice, which equals the single line.
    """

    n: int
    k: int
    generations: int
    runs: int
    unbiased: bool = True
    noise: float = 0.0
    dimensions: int = 1

    def __post_init__(self) -> None:
        if self.n <= self.dimensions:
            raise ValueError(
                f"theory: n = {self.n} samples cannot estimate a covariance in {self.dimensions} "
                f"dimensions; set n to {self.dimensions + 1} or more"
            )


def simulate(setting: Setting, seed: int, every_generation: bool = True) -> dict[str, np.ndarray]:
    """Return {mean, sd, w2}, each (generations + 1, runs), or (2, runs): first and last.

    w2: squared distance to the truth. In D dimensions `mean` is the length of the mean, and `sd` is
    the geometric mean of the standard deviations along the axes of the covariance.
    """
    last = setting.generations
    record = {g: g for g in range(last + 1)} if every_generation else {0: 0, last: 1}
    track = _track_1d if setting.dimensions == 1 else _track_nd
    parts = []
    for start in range(0, setting.runs, BLOCK):
        generator = np.random.Generator(np.random.SFC64(derive_seed(seed, "gaussian", start)))
        parts.append(track(setting, generator, min(BLOCK, setting.runs - start), record))
    return {
        name: np.concatenate([part[name] for part in parts], axis=1)
        for name in ("mean", "sd", "w2")
    }


def _track_1d(
    setting: Setting, generator: np.random.Generator, runs: int, record: dict[int, int]
) -> dict[str, np.ndarray]:
    """Simulate one block of runs in one dimension."""
    k, n, mean, sd = setting.k, setting.n, np.zeros(runs), np.ones(runs)
    divisor, columns = (n - 1 if setting.unbiased else n) / 2, np.arange(runs)
    kept = {name: np.empty((max(record.values()) + 1, runs)) for name in ("mean", "sd", "w2")}
    for g in range(setting.generations + 1):
        if g > 0:
            means = generator.standard_normal((k, runs))  # (K, R)
            means *= sd / np.sqrt(n)
            means += mean
            # half a chi-square with n - 1 degrees of freedom
            sds = generator.standard_gamma((n - 1) / 2, (k, runs))
            sds /= divisor
            np.sqrt(sds, out=sds)
            sds *= sd
            best = _choose(means**2 + (sds - 1.0) ** 2, setting.noise, generator)
            mean, sd = means[best, columns], sds[best, columns]
        if g in record:
            row = record[g]
            kept["mean"][row], kept["sd"][row] = mean, sd
            kept["w2"][row] = mean**2 + (sd - 1.0) ** 2
    return kept


def _track_nd(
    setting: Setting, generator: np.random.Generator, runs: int, record: dict[int, int]
) -> dict[str, np.ndarray]:
    """Simulate one block of runs in D dimensions.

    The state holds L of the covariance C = L L^T. By Bartlett's decomposition of the Wishart
    distribution (a triangle A of normals, chi variables on its diagonal), the next factor is
    L A / sqrt(n - 1).
    """
    k, n, d = setting.k, setting.n, setting.dimensions
    mean, factor = np.zeros((runs, d)), np.broadcast_to(np.eye(d), (runs, d, d))
    columns = np.arange(runs)
    below, scale = np.tril_indices(d, -1), np.sqrt(n - 1 if setting.unbiased else n)
    kept = {name: np.empty((max(record.values()) + 1, runs)) for name in ("mean", "sd", "w2")}
    w2 = np.zeros(runs)
    for g in range(setting.generations + 1):
        if g > 0:
            normal = generator.standard_normal((k, runs, d))
            means = mean + np.einsum("rij,krj->kri", factor, normal) / np.sqrt(n)  # (K, R, D)
            triangle = np.zeros((k, runs, d, d))
            triangle[..., below[0], below[1]] = generator.standard_normal((k, runs, len(below[0])))
            triangle[..., np.arange(d), np.arange(d)] = np.sqrt(
                generator.chisquare(n - 1.0 - np.arange(d), (k, runs, d))
            )
            factors = factor @ triangle / scale  # (K, R, D, D)
            distances = distance(means, factors, np.zeros(d), np.eye(d))
            best = _choose(distances, setting.noise, generator)
            mean, factor = means[best, columns], factors[best, columns]
            w2 = distances[best, columns]
        if g in record:
            row = record[g]
            volume = np.abs(np.diagonal(factor, axis1=1, axis2=2)).prod(axis=1)
            kept["mean"][row] = np.linalg.norm(mean, axis=1)
            kept["sd"][row], kept["w2"][row] = volume ** (1 / d), w2
    return kept


def _choose(distances: np.ndarray, noise: float, generator: np.random.Generator) -> np.ndarray:
    """Return (R,): the estimator of each run with the smallest noisy distance, of (K, R)."""
    if len(distances) == 1:
        return np.zeros(distances.shape[1], dtype=int)
    if noise > 0:
        distances = distances + noise * generator.standard_normal(distances.shape)
    return distances.argmin(axis=0)


def distance(
    mean_a: np.ndarray, factor_a: np.ndarray, mean_b: np.ndarray, factor_b: np.ndarray
) -> np.ndarray:
    """Return (...): squared Wasserstein-2 distance of N(a, A A^T) and N(b, B B^T).

    Shapes: a (..., D), A (..., D, D).

    |a - b|^2 + tr(A A^T) + tr(B B^T) - 2 tr((C^1/2 C' C^1/2)^1/2) (Dowson and Landau 1982). The
    last trace is the sum of the singular values of A^T B. In one dimension the distance is
    (a - b)^2 + (sd_a - sd_b)^2.
    """
    shared = np.swapaxes(factor_a, -1, -2) @ factor_b
    fidelity = np.linalg.svd(shared, compute_uv=False).sum(axis=-1)
    spread = (factor_a**2).sum(axis=(-2, -1)) + (factor_b**2).sum(axis=(-2, -1)) - 2 * fidelity
    return ((mean_a - mean_b) ** 2).sum(axis=-1) + np.maximum(spread, 0.0)
