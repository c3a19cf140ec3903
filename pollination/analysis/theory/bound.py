"""The tail of one generation's error W (study A, appendix A.1): bounds and exact probability.

W = (mu - mu_hat)^2 + (sigma - sigma_hat)^2 of one estimator with n samples. All functions take an
array x = n * delta / sigma^2 and return P(W >= delta), or a bound on it, for one estimator. The
best of K independent estimators has the K-th power. docs/theory.md has the algebra.
"""

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfc
from scipy.stats import chi2

NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)
PRINTED = 2 * np.exp(0.5)  # the constant in front of exp(-x / 4), as printed
# (1/2)^(-1/2) (3/4)^(-1/2), from the printed t = n / (4 sigma^2) and the printed approximation
AT_T = np.sqrt(8 / 3)


def printed(x: np.ndarray) -> np.ndarray:
    """Return 2 exp(-x / 4 + 1 / 2), the bound of the paper."""
    return PRINTED * np.exp(-np.asarray(x) / 4)


def at_t(x: np.ndarray) -> np.ndarray:
    """Return sqrt(8 / 3) exp(-x / 4), the paper's Chernoff bound at its own t without slack."""
    return AT_T * np.exp(-np.asarray(x) / 4)


def chernoff(x: np.ndarray) -> np.ndarray:
    """Return the smallest Chernoff bound under the printed approximation, at the best t.

    The approximation is W = (X + Y / 2) sigma^2 / n, where X and Y are chi-square. In units u =
    sigma^2 t / n: min over 0 <= u < 1/2 of exp(-u x) (1 - 2 u)^(-1/2) (1 - u)^(-1/2). Its slope is
    zero at x = 1 / (1 - 2 u) + 1 / (2 - 2 u). Below the mean, x <= 3/2, the best is u = 0 and the
    bound is 1.
    """

    def slope(u: float, at: float) -> float:
        return 1 / (1 - 2 * u) + 1 / (2 - 2 * u) - at

    x = np.asarray(x, dtype=float)
    u = np.array(
        [brentq(slope, 0.0, 0.5 - 1e-12, args=(at,)) if at > 1.5 else 0.0 for at in x.ravel()]
    ).reshape(x.shape)
    return np.exp(-u * x) / np.sqrt((1 - 2 * u) * (1 - u))


def approximate(x: np.ndarray) -> np.ndarray:
    """Return P(X + Y / 2 >= x) under the printed approximation, by quadrature over Y = y^2."""
    x = np.asarray(x, dtype=float)
    top = np.sqrt(2 * x)[..., None]
    y = top * (NODES + 1) / 2
    density = top / 2 * WEIGHTS * np.sqrt(2 / np.pi) * np.exp(-(y**2) / 2)
    tail = erfc(np.sqrt(np.maximum(x[..., None] - y**2 / 2, 0) / 2))
    return (density * tail).sum(-1) + erfc(np.sqrt(x))


def exact(x: np.ndarray, n: int, unbiased: bool = True) -> np.ndarray:
    """Return the exact P(W >= delta).

    The estimated sd is chi distributed. Given its deviation u, the mean must deviate by
    sqrt(delta - u^2). Quadrature is over u = sqrt(delta) sin(theta), where the integrand is smooth
    (an sd is not below 0, so u > -1); the tails have a closed form.
    """
    x = np.asarray(x, dtype=float)
    divisor = n - 1 if unbiased else n
    root = np.sqrt(x / n)[..., None]  # sqrt(delta), sigma = 1
    first = -np.arcsin(np.minimum(1, 1 / root))
    half = (np.pi / 2 - first) / 2
    theta = first + half * (NODES + 1)
    sd = np.maximum(1 + root * np.sin(theta), 1e-300)
    width = root * np.cos(theta)  # largest deviation of the mean
    density = 2 * divisor * sd * chi2.pdf(divisor * sd**2, n - 1)
    inside = (density * erfc(width * np.sqrt(n / 2)) * width * half * WEIGHTS).sum(-1)
    low, high = np.maximum(1 - root[..., 0], 0), 1 + root[..., 0]
    return inside + chi2.cdf(divisor * low**2, n - 1) + chi2.sf(divisor * high**2, n - 1)


def exact_constant(n: int, unbiased: bool = True) -> float:
    """Return the exact C = E exp(n W / (4 sigma^2)), so that P(W >= delta) <= C exp(-x / 4).

    C is sqrt(2) (from the mean) times E exp(n (sd - 1)^2 / 4) over the chi distribution of the
    estimated sd. A tail that is too heavy would make it infinite; no n >= 2 has one. The printed
    bound holds where C is below the printed constant 2 sqrt(e).
    """
    divisor = n - 1 if unbiased else n

    def integrand(sd: float) -> float:
        log = n * (sd - 1) ** 2 / 4 + chi2.logpdf(divisor * sd**2, n - 1)
        return np.exp(log) * 2 * divisor * sd

    width = 12 / np.sqrt(n)
    parts = [(0.0, max(0.0, 1 - width)), (max(0.0, 1 - width), 1 + width), (1 + width, 60.0)]
    return float(np.sqrt(2) * sum(quad(integrand, *ends, limit=400)[0] for ends in parts))


def simulated(
    x: np.ndarray, n: int, k: int, draws: int, seed: int, unbiased: bool = True
) -> np.ndarray:
    """Count the draws (len(x),) of k estimators, of `draws`, in which the best has W >= delta."""
    generator, size = np.random.default_rng(seed), max(1, 2**20 // k)
    counts = np.zeros(len(x), dtype=int)
    for start in range(0, draws, size):
        shape = (k, min(size, draws - start))
        sd = np.sqrt(generator.chisquare(n - 1, shape) / (n - 1 if unbiased else n))
        w = np.sort((n * (sd - 1) ** 2 + generator.standard_normal(shape) ** 2).min(axis=0))
        counts += shape[1] - np.searchsorted(w, x)
    return counts
