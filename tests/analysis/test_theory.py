"""The Gaussian theory: sufficient statistics instead of samples, distances in closed form,
selection, and the tail bound.
"""

import copy

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from scipy.linalg import sqrtm
from scipy.stats import t as student

from pollination.analysis.claims import standalone, verdicts
from pollination.analysis.run import Run
from pollination.analysis.theory import bound, tables
from pollination.analysis.theory.gaussian import Setting, distance, simulate
from pollination.core import artifacts
from pollination.figures.theory import bound as bound_figure
from pollination.figures.theory import noise, runs, sensitivity, trajectory
from pollination.plan.claims import CLAIMS
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.figures import THEORY
from pollination.plan.plan import Plan
from tests.conftest import planned, snakemake, study_a

SMALL = {
    "n": 20,
    "k": 4,
    "generations": 12,
    "runs": 30,
    "shown": 2,
    "variance": "unbiased",
    "noise": 0.0,
    "dimensions": 1,
    "seed": 1,
}
SMALL["grid"] = {
    "n": [5, 20],
    "k": [1, 4],
    "noise": [0, 1],
    "dimensions": [1, 2],
    "runs": 20,
    "dimension_runs": 10,
}
SMALL["bound"] = {"n": [2, 50], "k": [1, 4], "draws": 20_000}


def by_samples(
    n: int, k: int, generations: int, runs: int, unbiased: bool, d: int = 1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The same recursion from real samples: the last source's mean (runs, D) and covariance (runs,
    D, D).
    """
    rng = np.random.default_rng(seed)
    means, covariances = np.zeros((runs, d)), np.broadcast_to(np.eye(d), (runs, d, d))
    for _ in range(generations):
        samples = (
            means[:, None, None]
            + rng.normal(size=(runs, k, n, d))
            @ np.linalg.cholesky(covariances).swapaxes(1, 2)[:, None]
        )
        fitted = samples.mean(axis=2)
        centred = samples - fitted[:, :, None]
        fits = centred.swapaxes(2, 3) @ centred / (n - unbiased)
        roots = np.sqrt(np.maximum(np.linalg.eigvalsh(fits), 0))
        w2 = (fitted**2).sum(-1) + np.trace(fits, axis1=2, axis2=3) + d - 2 * roots.sum(-1)
        best = w2.argmin(axis=1)
        means, covariances = fitted[np.arange(runs), best], fits[np.arange(runs), best]
    return means, covariances


@pytest.mark.parametrize(
    ("n", "k", "generations", "unbiased"),
    [(6, 1, 1, True), (6, 1, 4, False), (6, 3, 4, True), (40, 4, 3, False)],
)
def test_sufficient_statistics_are_distributed_as_those_of_samples(n, k, generations, unbiased):
    means, covariances = by_samples(n, k, generations, 4000, unbiased)
    found = simulate(Setting(n, k, generations, 4000, unbiased), seed=3, every_generation=False)
    mean, sd = found["mean"][-1], found["sd"][-1]
    assert stats.ks_2samp(mean, means[:, 0]).pvalue > 0.01
    assert stats.ks_2samp(sd, np.sqrt(covariances[:, 0, 0])).pvalue > 0.01
    assert (
        stats.ks_2samp(
            np.abs(mean) * sd, np.abs(means[:, 0]) * np.sqrt(covariances[:, 0, 0])
        ).pvalue
        > 0.01
    )  # together, too


def test_sufficient_statistics_in_more_dimensions():
    means, covariances = by_samples(9, 3, 3, 3000, True, d=3)
    found = simulate(Setting(9, 3, 3, 3000, dimensions=3), seed=4, every_generation=False)
    assert stats.ks_2samp(found["mean"][-1], np.linalg.norm(means, axis=1)).pvalue > 0.01
    assert stats.ks_2samp(found["sd"][-1], np.linalg.det(covariances) ** (1 / 6)).pvalue > 0.01


def test_one_generation_has_the_moments_of_theory():
    """E sd^2 is 1 or (n - 1) / n; var of the mean 1 / n; E W about 1.5 / n."""
    for unbiased, expected in ((True, 1.0), (False, 0.9)):
        found = simulate(Setting(10, 1, 1, 40_000, unbiased), seed=5)
        assert np.mean(found["sd"][-1] ** 2) == pytest.approx(expected, abs=0.01)
        assert np.var(found["mean"][-1]) == pytest.approx(0.1, rel=0.03)
    assert simulate(Setting(400, 1, 1, 40_000), seed=6)["w2"][-1].mean() == pytest.approx(
        1.5 / 400, rel=0.03
    )


def test_distance_in_closed_form_is_that_of_matrix_roots():
    rng = np.random.default_rng(0)
    for d in (1, 2, 5):
        a, b = rng.normal(size=(2, d, d))
        m, other = rng.normal(size=(2, d))
        c, root = b @ b.T, np.real(sqrtm(a @ a.T))
        expected = ((m - other) ** 2).sum() + np.trace(
            a @ a.T + c - 2 * np.real(sqrtm(root @ c @ root))
        )
        assert distance(m, a, other, b) == pytest.approx(expected)
    assert distance(
        np.array([1.0]), np.array([[2.0]]), np.array([3.0]), np.array([[0.5]])
    ) == pytest.approx(4 + 1.5**2)
    assert distance(m, a, m, a) == pytest.approx(0, abs=1e-9)


def test_selection_holds_the_truth_where_a_line_collapses_and_noise_undoes_it():
    last = {
        k: simulate(Setting(50, k, 400, 200), seed=7, every_generation=False) for k in (1, 4, 16)
    }
    medians = [np.median(found["w2"][-1]) for found in last.values()]
    assert medians[0] > 0.7 and medians[0] > 30 * medians[1] > 60 * medians[2]
    assert np.median(last[1]["sd"][-1]) < 0.2 and np.median(last[16]["sd"][-1]) == pytest.approx(
        1, abs=0.02
    )
    noisy = [
        np.median(
            simulate(Setting(50, 16, 400, 100, noise=s), seed=7, every_generation=False)["w2"][-1]
        )
        for s in (0.0, 0.1, 3.0)
    ]
    assert noisy[0] < noisy[1] < noisy[2] and noisy[2] > 0.5


def test_equal_seeds_give_equal_runs_and_a_longer_simulation_keeps_the_first_runs():
    one, more = (simulate(Setting(10, 2, 5, runs), seed=8) for runs in (500, 700))
    assert np.array_equal(one["w2"], more["w2"][:, :500]) and not np.array_equal(
        more["w2"][:, 500:], more["w2"][:, :200]
    )
    assert (one["w2"][0] == 0).all() and one["w2"].shape == (6, 500)


@pytest.mark.parametrize(("n", "unbiased"), [(2, True), (3, False), (10, True), (100, True)])
def test_exact_probability_is_the_simulated_one(n, unbiased):
    x, draws = np.array([0.1, 1.5, 5.0, 12.0]), 400_000
    expected = bound.exact(x, n, unbiased)
    for k in (1, 3):
        counts = bound.simulated(x, n, k, draws, 9, unbiased)
        assert (
            np.abs(counts - draws * expected**k).max()
            < 4 * np.sqrt(draws * expected**k * (1 - expected**k)).max()
        )
    assert np.all(
        np.abs(bound.simulated(x, n, 1, draws, 9, unbiased) / draws - expected)
        < 4.5 * np.sqrt(expected * (1 - expected) / draws)
    )


def test_the_printed_bound_holds_and_where_it_says_nothing():
    """What docs/theory.md says of the algebra, in numbers."""
    x = np.linspace(0.05, 80, 300)
    for n in (2, 3, 5, 30, 1000):
        for unbiased in (True, False):
            assert (
                bound.exact_constant(n, unbiased) < bound.PRINTED
            )  # so the bound is proved without the approximation
            assert (bound.exact(x, n, unbiased) < bound.printed(x)).all()
    assert bound.exact_constant(2) == pytest.approx(
        np.sqrt(2) * 2 * np.sqrt(np.e) / np.sqrt(2 * np.pi)
    )  # by hand, for a half-normal sd
    assert bound.exact_constant(100_000) == pytest.approx(bound.AT_T, rel=1e-3)
    assert bound.printed(4 * np.log(bound.PRINTED)) == pytest.approx(1) and 4 * np.log(
        bound.PRINTED
    ) == pytest.approx(4.77, abs=0.01)
    assert bound.exact(np.array([1.5]), 100)[0] == pytest.approx(
        0.36, abs=0.01
    )  # the mean error: no bound says anything there
    assert (
        bound.exact(x, 2) > bound.chernoff(x)
    ).any()  # at n = 2 the approximation's own best bound is broken
    assert not (bound.exact(x, 100) > bound.chernoff(x)).any()


def test_chernoff_is_the_smallest_over_t_and_the_approximation_is_a_weighted_sum_of_chi_squares():
    u = np.linspace(0, 0.4999, 20_000)
    for x in (0.5, 3.0, 20.0):
        assert bound.chernoff(np.array([x]))[0] == pytest.approx(
            (np.exp(-u * x) / np.sqrt((1 - 2 * u) * (1 - u))).min(), rel=1e-4
        )
    draws = np.random.default_rng(1).chisquare(1, (2, 400_000))
    assert bound.approximate(np.array([1.0, 4.0])) == pytest.approx(
        [(draws[0] + draws[1] / 2 >= x).mean() for x in (1, 4)], abs=0.003
    )


def test_tables_and_figures(tmp_path):
    names = ("recursion", "summary", "windows")
    made = dict(zip(names, tables.recursion(SMALL), strict=True))
    made |= {"sensitivity": tables.sensitivity(SMALL), "bound": tables.bounds(SMALL)}
    assert set(made["recursion"].run) == {0, 1} and set(made["summary"].role) == {
        "evolution",
        "baseline",
    }
    assert len(made["sensitivity"]) == 3 * 2 * 2 and set(made["sensitivity"].k) == {1, 4}
    assert set(made["bound"].verdict) == {"loose", "says nothing"}
    for name, table in made.items():
        artifacts.write_table(tmp_path / f"{name}.parquet", table)
    for module in (trajectory, runs, sensitivity, noise, bound_figure):
        name = f"theory_{module.__name__.rsplit('.', 1)[1]}"
        module.draw(
            {
                "table": tmp_path / f"{THEORY[name].reads[0]}.parquet",
                "summary": tmp_path / "summary.parquet",
            },
            tmp_path / name,
        )
        assert all(
            (tmp_path / f"{name}.{end}").stat().st_size > 200 for end in ("svg", "png", "csv")
        )


def test_theory_runs_alone_and_only_where_it_is_asked_for(tmp_path):
    path = tmp_path / "theory.yaml"
    small = {
        "runs": 20,
        "generations": 5,
        "grid": {"runs": 5, "dimension_runs": 2, "k": [1, 2], "n": [10], "noise": [0]},
        "bound": {"draws": 100},
    }
    path.write_text(yaml.safe_dump({"run": "small", "theory": small}))
    assert planned(snakemake(tmp_path, "-n", configfile=path)).keys() - {"all", "write_config"} >= {
        "simulate_recursion",
        "check_bound",
    }
    demo = study_a() | {"theory": None}
    assert resolve(demo)["theory"] == {}


def test_more_dimensions_than_samples_are_refused():
    raw = {"run": "x", "theory": {"n": 4, "grid": {"dimensions": [1, 4]}}}
    with pytest.raises(
        ConfigError,
        match=r"theory.n: 4 samples are too few for the covariance of 4 dimensions; allowed: 5",
    ):
        resolve(copy.deepcopy(raw))
    with pytest.raises(ValueError, match="n to 4 or more"):
        Setting(3, 1, 1, 1, dimensions=3)
    with pytest.raises(ConfigError, match="the key 'corpora' is missing"):
        resolve({"run": "x", "theory": {}})


def windows(folder, levels: list[float], spread: float, seed: int = 0) -> Run:
    """Write a theory whose runs have these ratios of late to middle and early W2, in log10."""
    rng = np.random.default_rng(seed)
    noise = spread * rng.standard_normal((2, len(levels)))
    parts = [
        pd.DataFrame(
            {
                "run": np.arange(len(levels)),
                "role": role,
                "generations": 1000,
                "early": 1e-3,
                "middle": 1e-3,
                "late": 1e-3 * 10 ** (np.array(levels) * sign + noise[place]),
            }
        )
        for place, (role, sign) in enumerate((("evolution", 0), ("baseline", 1)))
    ]
    plan = Plan(resolve({"run": "theory", "theory": {"runs": len(levels)}}), str(folder))
    artifacts.write_table(folder / "theory/windows.parquet", pd.concat(parts))
    return Run(plan)


def test_the_claims_use_all_runs_and_not_the_drawn_ones(tmp_path):
    claim = {one.id: one for one in CLAIMS}
    # the four runs that figures draw stay; the line grows in the other 396
    run = windows(tmp_path / "many", [-2.0] * 4 + [2.0] * 396, 0.5)
    tests = {
        "w2_line_grows": standalone.w2_line_grows,
        "w2_below_line": standalone.w2_below_line,
        "w2_bounded": standalone.w2_bounded,
    }
    for name, test in tests.items():
        (found,) = test(claim[name], run)
        made = verdicts.row(claim[name], found)
        assert (made["verdict"], made["replicates"]) == ("supported", "400"), name
    few = windows(tmp_path / "few", [2.0] * 25, 0.5)
    many = windows(tmp_path / "more", [2.0] * 2500, 0.5)
    rows = [
        verdicts.row(
            claim["w2_line_grows"], standalone.w2_line_grows(claim["w2_line_grows"], one)[0]
        )
        for one in (few, many)
    ]
    width = [made["high"] - made["low"] for made in rows]
    assert width[0] / width[1] == pytest.approx(10, rel=0.35)
    assert rows[0]["detectable"] / rows[1]["detectable"] == pytest.approx(10, rel=0.35)
    # Student's t by hand
    late = artifacts.read_table(f"{few.plan.results}/theory/windows.parquet").to_pandas()
    values = np.log10(late[late.role == "baseline"].late / 1e-3)
    low, high = student.interval(
        0.95, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    )
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((low, high), rel=1e-3)


def test_windows_are_the_means_of_every_run():
    theory = SMALL | {"generations": 40, "shown": 30}
    paths, _, windows = tables.recursion(theory)
    assert len(windows) == 2 * 30
    for row in windows.itertuples():
        w2 = paths[(paths.role == row.role) & (paths.run == row.run) & (paths.generation > 0)].w2
        parts = w2.to_numpy()[:2], w2.to_numpy()[10:20], w2.to_numpy()[30:]
        assert (row.early, row.middle, row.late) == pytest.approx([p.mean() for p in parts])
    short = tables.recursion(SMALL)[2]
    assert set(short.generations) == {12} and np.isfinite(short.early).all()
