"""Study A's Gaussian theory against closed forms, scipy's distributions and own simulations."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scipy import integrate, optimize, special, stats

from pollination.analysis.theory import bound, tables
from pollination.analysis.theory.gaussian import Setting, distance, simulate
from pollination.figures import drawing, style
from tests.audit import made
from tests.audit.made import CSV, EXACT, QUADRATURE, SAMPLED

THEORY = {
    "n": 20,
    "k": 4,
    "generations": 12,
    "runs": 800,
    "shown": 3,
    "variance": "unbiased",
    "noise": 0.0,
    "dimensions": 1,
    "seed": 1,
    "grid": {
        "n": [5, 20],
        "k": [1, 4],
        "noise": [0, 1],
        "dimensions": [1, 2],
        "runs": 400,
        "dimension_runs": 300,
    },
    "bound": {"n": [2, 50], "k": [1, 4], "draws": 20_000},
}


def recursion(n, k, generations, runs, noise=0.0, d=1, seed=0):
    """Fit n samples K times, keep the fit with the smallest squared W2 plus noise, and repeat.

    The W2 to N(0, I) comes from the eigenvalues of the fitted covariance. Result per generation:
    mean (runs, D) and covariance (runs, D, D).
    """
    rng, mean = np.random.default_rng(seed), np.zeros((runs, d))
    cov, path = np.broadcast_to(np.eye(d), (runs, d, d)), []
    path.append((mean, cov))
    for _ in range(generations):
        root = np.linalg.cholesky(cov)
        x = rng.standard_normal((runs, k, n, d)) @ root.swapaxes(1, 2)[:, None]
        x = x + mean[:, None, None]
        fit = x.mean(axis=2)
        spread = x - fit[:, :, None]
        fits = spread.swapaxes(2, 3) @ spread / (n - 1)
        roots = np.sqrt(np.maximum(np.linalg.eigvalsh(fits), 0))
        w2 = (fit**2).sum(-1) + ((roots - 1) ** 2).sum(-1)
        best = (w2 + noise * rng.standard_normal(w2.shape)).argmin(axis=1)
        mean, cov = fit[np.arange(runs), best], fits[np.arange(runs), best]
        path.append((mean, cov))
    return path


@pytest.fixture(scope="module")
def simulated():
    return tables.recursion(THEORY)


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    return stats.ks_2samp(a, b).pvalue > SAMPLED


@pytest.mark.parametrize(("role", "k"), [("evolution", 4), ("baseline", 1)])
def test_summary_of_all_runs(simulated, role, k):
    """Figure 8: quantiles of mean, sd and W2 over runs, against own samples.

    The counts of own runs below a quantile are binomial.
    """
    _, summary, _ = simulated
    path = recursion(20, k, 12, 4000, seed=3)
    for g in (1, 6, 12):
        mean, sd = path[g][0][:, 0], np.sqrt(path[g][1][:, 0, 0])
        own = {"mean": mean, "sd": sd, "w2": mean**2 + (sd - 1) ** 2}
        for name, values in own.items():
            row = summary[(summary.role == role) & (summary.generation == g)]
            row = row[row.quantity == name].iloc[0]
            for column, q in (("q05", 0.05), ("q25", 0.25), ("median", 0.5), ("q95", 0.95)):
                # both sides are sampled: 800 and 4,000 runs
                error = np.sqrt(q * (1 - q) * (1 / 800 + 1 / 4000))
                z = ((values < row[column]).mean() - q) / error
                assert 2 * stats.norm.sf(abs(z)) > SAMPLED / 24  # 24 quantiles are compared


def test_a_single_line_in_closed_form():
    """K = 1: log variance falls by a known step, and the mean is a martingale (appendix A.1).

    The variance is the product of independent chi-squares over their degrees of freedom.
    """
    n, last, runs = 10, 30, 20_000
    found = simulate(Setting(n, 1, last, runs), seed=5, every_generation=False)
    log = 2 * np.log(found["sd"][-1])
    step = special.digamma((n - 1) / 2) - np.log((n - 1) / 2)
    error = np.sqrt(last * special.polygamma(1, (n - 1) / 2) / runs)
    assert 2 * stats.norm.sf(abs(log.mean() - last * step) / error) > SAMPLED
    assert log.var(ddof=1) == pytest.approx(last * special.polygamma(1, (n - 1) / 2), rel=0.05)
    mean = found["mean"][-1]
    assert 2 * stats.norm.sf(abs(mean.mean()) / (mean.std() / runs**0.5)) > SAMPLED
    first = simulate(Setting(n, 1, 1, runs), seed=6)
    assert stats.kstest(first["mean"][1] * n**0.5, "norm").pvalue > SAMPLED
    chi = stats.chi2(n - 1)
    assert stats.kstest(first["sd"][1] ** 2 * (n - 1), chi.cdf).pvalue > SAMPLED


def test_distance_of_gaussians():
    """W2 in one dimension, and in three from optimal transport of the eigenvectors' axes."""
    a, b = distance(np.array([1.0]), np.array([[2.0]]), np.array([3.0]), np.array([[0.5]])), 6.25
    assert a == pytest.approx(b, rel=EXACT)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    s, t, m = rng.uniform(0.5, 2, 3), rng.uniform(0.5, 2, 3), rng.standard_normal(3)
    found = distance(m, basis * s, np.zeros(3), basis * t)  # covariances commute
    assert found == pytest.approx((m**2).sum() + ((s - t) ** 2).sum(), rel=EXACT)


def test_paths_of_runs(simulated, tmp_path):
    """Figure 11: each shown run, and W2 from its mean and standard deviation."""
    paths, summary, _ = simulated
    expected = paths["mean"] ** 2 + (paths["sd"] - 1) ** 2
    assert paths.w2.to_numpy() == pytest.approx(expected.to_numpy(), rel=EXACT, abs=EXACT)
    assert paths.groupby("role").run.nunique().tolist() == [3, 3]
    files = {"table": tmp_path / "r.parquet", "summary": tmp_path / "s.parquet"}
    paths.to_parquet(files["table"], index=False)
    summary.to_parquet(files["summary"], index=False)
    drawing("theory_runs").draw(files, tmp_path / "runs")
    csv = pd.read_csv(tmp_path / "runs.csv")
    assert csv.w2.to_numpy() == pytest.approx(paths.w2.to_numpy(), rel=CSV, abs=EXACT)
    drawing("theory_trajectory").draw(files, tmp_path / "trajectory")
    csv = pd.read_csv(tmp_path / "trajectory.csv")
    first = paths[paths.run == 0].set_index(["role", "generation"])
    for row in csv.itertuples():
        value = first.loc[(row.role, row.generation), row.quantity]
        assert row.one_run == pytest.approx(value, rel=CSV, abs=EXACT)


def test_windows_of_all_runs():
    """Mean squared W2 of every run in parts of its path; the claims read them, drawn or not."""
    paths, _, windows = tables.recursion(THEORY | {"generations": 80, "runs": 6, "shown": 6})
    expected = made.windows(paths).set_index(["role", "run"])
    found = windows.set_index(["role", "run"])[expected.columns]
    assert found.sort_index().to_numpy() == pytest.approx(
        expected.sort_index().to_numpy(), rel=EXACT
    )
    _, _, of_all = tables.recursion(THEORY)
    assert of_all.groupby("role").run.nunique().tolist() == [THEORY["runs"]] * 2


def test_colours_of_the_runs(simulated, tmp_path, monkeypatch):
    """Evolution is blue and the single line red, as in all figures; the paper has them swapped."""
    paths, summary, _ = simulated
    kept = []
    monkeypatch.setattr(style, "save", lambda figure, rows, out: kept.append(figure))
    files = {"table": tmp_path / "r.parquet", "summary": tmp_path / "s.parquet"}
    paths.to_parquet(files["table"], index=False)
    summary.to_parquet(files["summary"], index=False)
    drawing("theory_runs").draw(files, tmp_path / "runs")
    first = paths[paths.run == 0]
    for role, path in first.groupby("role"):
        (line,) = (
            line
            for line in kept[0].axes[0].lines
            if np.array_equal(path.sort_values("generation")["mean"], line.get_ydata())
        )
        red, _, blue = to_rgb(line.get_color())
        assert (red > blue) == (role == "baseline")


def test_figure_of_the_sensitivity(tmp_path):
    """The target's CSV: W2 and collapsed runs of every n and K, as simulated."""
    found = tables.sensitivity(THEORY)
    table = tmp_path / "sensitivity.parquet"
    found.to_parquet(table, index=False)
    drawing("theory_sensitivity").draw({"table": table}, tmp_path / "s")
    csv = pd.read_csv(tmp_path / "s.csv").set_index(["n", "k"])
    mine = found[found.axis == "n"].set_index(["n", "k"])
    assert len(csv) == len(mine) == 4
    for column in ("w2_median", "w2_q25", "w2_q75", "sd_median", "collapsed"):
        assert csv.loc[mine.index, column].to_numpy() == pytest.approx(mine[column], rel=CSV)


def test_sensitivity_to_samples_and_estimators():
    """A.2: final W2, sd and share of collapsed runs over n and K, noise and dimensions."""
    found = tables.sensitivity(THEORY)
    assert len(found) == 3 * 2 * 2
    for row in found.itertuples():
        shape = (row.n, row.k, 12, 1500, row.noise, row.dimensions)
        mean, cov = recursion(*shape, seed=9)[-1]
        roots = np.sqrt(np.maximum(np.linalg.eigvalsh(cov), 0))
        w2 = (mean**2).sum(-1) + ((roots - 1) ** 2).sum(-1)
        sd = np.prod(roots, axis=1) ** (1 / row.dimensions)
        for q, column in ((0.25, "w2_q25"), (0.5, "w2_median"), (0.75, "w2_q75")):
            error = np.sqrt(q * (1 - q) * (1 / row.runs + 1 / 1500))
            z = ((w2 < getattr(row, column)).mean() - q) / error
            assert 2 * stats.norm.sf(abs(z)) > SAMPLED / 36
        z = ((sd < row.sd_median).mean() - 0.5) / np.sqrt(0.25 * (1 / row.runs + 1 / 1500))
        assert 2 * stats.norm.sf(abs(z)) > SAMPLED / 36
        counts = [[row.collapsed * row.runs, row.runs], [(sd < 0.1).sum(), 1500]]
        hits = np.array([[round(hit), total - round(hit)] for hit, total in counts])
        assert stats.fisher_exact(hits).pvalue > SAMPLED / 36


def test_noise_without_limit_is_a_single_line():
    noisy = simulate(Setting(20, 4, 8, 3000, noise=1e9), seed=1, every_generation=False)
    mean, cov = recursion(20, 1, 8, 3000, seed=2)[-1]
    assert alike(noisy["sd"][-1], np.sqrt(cov[:, 0, 0])) and alike(noisy["mean"][-1], mean[:, 0])


X = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0])


@pytest.mark.parametrize("n", [2, 5, 50, 400])
def test_exact_tail_of_one_estimator(n):
    """P(W >= delta): integrate the normal tail of the mean over the chi density of the sd.

    The variance v of the estimate times n - 1 is chi-square, so the sd has the density
    2 (n - 1) sd f((n - 1) sd^2).
    """
    constant = (n - 1) / 2 * np.log(2) + special.gammaln((n - 1) / 2)

    def outside(x: float) -> float:
        delta = x / n

        def density(sd: float) -> float:
            left = delta - (sd - 1) ** 2
            tail = special.erfc(np.sqrt(left * n / 2)) if left > 0 else 1.0
            v = (n - 1) * sd * sd
            return tail * 2 * (n - 1) * sd * np.exp((n - 3) / 2 * np.log(v) - v / 2 - constant)

        cuts = [1e-300, max(1e-300, 1 - delta**0.5), 1 + delta**0.5, 1 + delta**0.5 + 40 / n**0.5]
        ends = pairwise(cuts)
        return sum(integrate.quad(density, *e, limit=200, epsabs=1e-13)[0] for e in ends)

    expected = [outside(x) for x in X]
    assert bound.exact(X, n) == pytest.approx(expected, rel=QUADRATURE, abs=1e-11)


def test_bounds_of_the_proof():
    """The printed bound, the Chernoff bound at the printed t and at the best t, by minimisation."""
    assert bound.printed(X) == pytest.approx(2 * np.exp(-X / 4 + 0.5), rel=EXACT)

    def chernoff(u: float, x: float) -> float:  # t = n u / sigma^2
        return np.exp(-u * x) * (1 - 2 * u) ** -0.5 * (1 - u) ** -0.5

    assert bound.at_t(X) == pytest.approx([chernoff(0.25, x) for x in X], rel=EXACT)
    best = [
        optimize.minimize_scalar(
            chernoff, bounds=(0, 0.5 - 1e-9), args=(x,), method="bounded", options={"xatol": 1e-10}
        ).fun
        for x in X
    ]
    assert bound.chernoff(X) == pytest.approx(np.minimum(best, 1), rel=QUADRATURE)

    def tail(x: float) -> float:  # P(X + Y / 2 >= x), X and Y chi-square
        inside = integrate.quad(
            lambda s: stats.chi2.sf(x - s * s / 2, 1) * 2 * stats.norm.pdf(s), 0, (2 * x) ** 0.5
        )[0]
        return inside + stats.chi2.sf(2 * x, 1)

    assert bound.approximate(X) == pytest.approx([tail(x) for x in X], rel=QUADRATURE)


@pytest.mark.parametrize("n", [2, 5, 50])
def test_the_constant_of_the_exact_bound(n):
    """E exp(n W / 4) = sqrt(2) E exp(n (sd - 1)^2 / 4), by integration over the variance."""

    def integrand(v: float) -> float:
        log = (n - 3) / 2 * np.log(v) - v / 2 - (n - 1) / 2 * np.log(2)
        log -= special.gammaln((n - 1) / 2)
        return np.exp(n * (np.sqrt(v / (n - 1)) - 1) ** 2 / 4 + log)

    total = integrate.quad(integrand, 0, n - 1, limit=400)[0]
    total += integrate.quad(integrand, n - 1, 60 * n + 400, limit=400)[0]
    assert bound.exact_constant(n) == pytest.approx(2**0.5 * total, rel=QUADRATURE)


def test_table_of_bounds(tmp_path):
    """The best of K: the K-th power; draws of the minimum lie in their binomial interval."""
    found = tables.bounds(THEORY)
    for row in found.itertuples():
        one = 2 * np.exp(0.5 - row.x / 4)
        assert row.printed == pytest.approx(one**row.k, rel=EXACT)
        assert row.delta == pytest.approx(row.x / row.n, rel=EXACT)
        assert row.factor == pytest.approx(row.printed / row.exact, rel=EXACT)
        said = "violated" if row.printed < row.exact else "says nothing"
        said = "loose" if row.exact <= row.printed < 1 else said
        assert row.verdict == said
        hits, draws = round(row.simulated * 20_000), 20_000
        p = min(row.exact, 1.0)
        assert stats.binomtest(hits, draws, p).pvalue > SAMPLED / len(found)
        low, high = wilson(hits, draws)
        assert (row.simulated_low, row.simulated_high) == pytest.approx((low, high), abs=EXACT)
    table = tmp_path / "bound.parquet"
    found.to_parquet(table, index=False)
    drawing("theory_bound").draw({"table": table}, tmp_path / "bound")
    csv = pd.read_csv(tmp_path / "bound.csv")
    assert csv.exact.to_numpy() == pytest.approx(found.exact.to_numpy(), rel=CSV)


def wilson(hits: int, n: int) -> tuple[float, float]:
    z, p = stats.norm.ppf(0.975), hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def test_own_samples_keep_the_bound_within_a_generation():
    """P(W_min < delta) >= 1 - printed^K (the last line of A.1), on own samples."""
    n, k = 50, 4
    mean, cov = recursion(n, k, 1, 20_000, seed=4)[-1]
    w2 = mean[:, 0] ** 2 + (np.sqrt(cov[:, 0, 0]) - 1) ** 2
    for x in (3.0, 6.0, 12.0):
        share, expected = (w2 >= x / n).mean(), bound.exact(np.array([x]), n)[0] ** k
        hits = round(share * len(w2))
        assert stats.binomtest(hits, len(w2), expected).pvalue > SAMPLED
        assert share <= (2 * np.exp(0.5 - x / 4)) ** k
