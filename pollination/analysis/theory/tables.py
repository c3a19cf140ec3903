"""Tables of the theory's rules: trajectories, sensitivities and the tail bound."""

from itertools import product

import numpy as np
import pandas as pd

from pollination.analysis.theory import bound
from pollination.analysis.theory.gaussian import Setting, simulate
from pollination.core.seeds import derive_seed
from pollination.core.statistics import wilson_interval

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
# parts of all generations whose mean squared W2 the claims compare
WINDOWS = {"early": (0.0, 0.05), "middle": (0.25, 0.5), "late": (0.75, 1.0)}
COLLAPSED = 0.1  # a run has collapsed if its sd is below a tenth of the truth's
# n delta / sigma^2
X = np.round(np.concatenate([np.arange(0.25, 6, 0.25), np.arange(6, 61, 1.0)]), 2)


def recursion(theory: dict) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return (paths, summary, windows).

    paths: role, run, generation, mean, sd, w2 of `shown` runs.

    summary: role, generation, quantity and its mean and quantiles over all runs.

    windows: role, run, number of generations, and the mean w2 of each of WINDOWS, of all runs.
    Roles: evolution (best of K), baseline (K = 1).
    """
    paths, summary, windows = [], [], []
    for role, k in (("evolution", theory["k"]), ("baseline", 1)):
        tracks = simulate(_setting(theory, theory["runs"], k=k), derive_seed(theory["seed"], role))
        generation = np.arange(theory["generations"] + 1)
        for run in range(min(theory["shown"], theory["runs"])):
            values = {name: track[:, run] for name, track in tracks.items()}
            columns = {"role": role, "run": run, "generation": generation, **values}
            paths.append(pd.DataFrame(columns))
        for name, track in tracks.items():
            columns = {"role": role, "generation": generation, "quantity": name, **_spread(track)}
            summary.append(pd.DataFrame(columns))
        each = {name: _mean_within(tracks["w2"][1:], *ends) for name, ends in WINDOWS.items()}
        shared = {"role": role, "generations": theory["generations"]}
        windows.append(pd.DataFrame({"run": np.arange(theory["runs"]), **shared, **each}))
    return pd.concat(paths), pd.concat(summary), pd.concat(windows)


def _mean_within(w2: np.ndarray, first: float, last: float) -> np.ndarray:
    """Return (R,): the mean over a part of the generations, at least one, from (T, R)."""
    start = min(round(first * len(w2)), len(w2) - 1)
    return w2[start : max(start + 1, round(last * len(w2)))].mean(axis=0)


def sensitivity(theory: dict) -> pd.DataFrame:
    """Return the last generation, a row per setting: grids of n, noise and dimensions, by K."""
    grid, rows = theory["grid"], []
    axes = {
        "n": (grid["n"], grid["runs"]),
        "noise": (grid["noise"], grid["runs"]),
        "dimensions": (grid["dimensions"], grid["dimension_runs"]),
    }
    for axis, (values, runs) in axes.items():
        for value, k in product(values, grid["k"]):
            setting = _setting(theory, runs, k=k, **{axis: value})
            seed = derive_seed(theory["seed"], axis, str(value), k)
            ends = simulate(setting, seed, every_generation=False)
            row = {
                "axis": axis,
                "n": setting.n,
                "k": k,
                "noise": setting.noise,
                "dimensions": setting.dimensions,
                "runs": runs,
            }
            row |= {f"w2_{name}": spread[0] for name, spread in _spread(ends["w2"][-1:]).items()}
            row |= {
                "sd_median": np.median(ends["sd"][-1]),
                "mean_median": np.median(np.abs(ends["mean"][-1])),
            }
            rows.append(row | {"collapsed": (ends["sd"][-1] < COLLAPSED).mean()})
    return pd.DataFrame(rows)


def _setting(theory: dict, runs: int, **change) -> Setting:
    settings = {key: theory[key] for key in ("n", "generations", "noise", "dimensions")}
    settings |= {"runs": runs, "unbiased": theory["variance"] == "unbiased"}
    return Setting(**settings | change)


def _spread(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean and quantiles over runs of (T, R), each (T,)."""
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=1)
    return {"mean": values.mean(axis=1)} | dict(zip(QUANTILES, quantiles, strict=True))


def bounds(theory: dict) -> pd.DataFrame:
    """Return P(best of K has W >= delta), a row per (n, K, x): printed bound, exact, simulated.

    `verdict`: violated (below the exact probability), says nothing (1 or more), or loose; `factor`:
    bound over exact probability.
    """
    settings, unbiased, rows = theory["bound"], theory["variance"] == "unbiased", []
    draws = settings["draws"]
    of_one = {
        "printed": bound.printed(X),
        "at_t": bound.at_t(X),
        "chernoff": bound.chernoff(X),
        "approximate": bound.approximate(X),
    }
    for n, k in product(settings["n"], settings["k"]):
        seed = derive_seed(theory["seed"], "bound", n, k)
        counts = bound.simulated(X, n, k, draws, seed, unbiased)
        low, high = np.array([wilson_interval(int(count), draws) for count in counts]).T
        probabilities = of_one | {"exact": bound.exact(X, n, unbiased)}
        values = {name: value**k for name, value in probabilities.items()}
        values |= {"simulated": counts / draws, "simulated_low": low, "simulated_high": high}
        constant = {"exact_constant": bound.exact_constant(n, unbiased)}
        rows.append(pd.DataFrame({"n": n, "k": k, "x": X, "delta": X / n, **values, **constant}))
    table = pd.concat(rows, ignore_index=True)
    table["factor"] = table.printed / table.exact
    table["verdict"] = np.select(
        [table.printed < table.exact, table.printed >= 1], ["violated", "says nothing"], "loose"
    )
    return table
