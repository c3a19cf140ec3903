"""The tables that the theory's rules write: trajectories over generations, sensitivities at the last one, and the tail bound."""

from itertools import product

import numpy as np
import pandas as pd

from pollination.seeds import derive_seed
from pollination.statistics import wilson_interval
from pollination.theory import bound
from pollination.theory.gaussian import Setting, simulate

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
COLLAPSED = 0.1  # a run whose standard deviation is below a tenth of the truth's has collapsed
X = np.round(np.concatenate([np.arange(0.25, 6, 0.25), np.arange(6, 61, 1.0)]), 2)  # n delta / sigma^2


def recursion(theory: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(paths, summary). paths: role, run, generation, mean, sd, w2 of the first `shown` runs. summary: role, generation, quantity and its
    mean and quantiles over all runs. Roles: evolution (best of K), baseline (K = 1)."""
    paths, summary = [], []
    for role, k in (("evolution", theory["k"]), ("baseline", 1)):
        found = simulate(_setting(theory, theory["runs"], k=k), derive_seed(theory["seed"], role))
        generation = np.arange(theory["generations"] + 1)
        for run in range(min(theory["shown"], theory["runs"])):
            values = {name: track[:, run] for name, track in found.items()}
            paths.append(pd.DataFrame({"role": role, "run": run, "generation": generation, **values}))
        for name, track in found.items():
            summary.append(pd.DataFrame({"role": role, "generation": generation, "quantity": name, **_spread(track)}))
    return pd.concat(paths), pd.concat(summary)


def sensitivity(theory: dict) -> pd.DataFrame:
    """One row a setting: how the last generation lies, over the grid of n and K, of noise and K, and of dimensions and K."""
    grid, rows = theory["grid"], []
    axes = {
        "n": (grid["n"], grid["runs"]),
        "noise": (grid["noise"], grid["runs"]),
        "dimensions": (grid["dimensions"], grid["dimension_runs"]),
    }
    for axis, (values, runs) in axes.items():
        for value, k in product(values, grid["k"]):
            setting = _setting(theory, runs, k=k, **{axis: value})
            found = simulate(setting, derive_seed(theory["seed"], axis, str(value), k), every_generation=False)
            row = {"axis": axis, "n": setting.n, "k": k, "noise": setting.noise, "dimensions": setting.dimensions, "runs": runs}
            row |= {f"w2_{name}": spread[0] for name, spread in _spread(found["w2"][-1:]).items()}
            row |= {"sd_median": np.median(found["sd"][-1]), "mean_median": np.median(np.abs(found["mean"][-1]))}
            rows.append(row | {"collapsed": (found["sd"][-1] < COLLAPSED).mean()})
    return pd.DataFrame(rows)


def _setting(theory: dict, runs: int, **change) -> Setting:
    base = {"n": theory["n"], "generations": theory["generations"], "noise": theory["noise"]}
    return Setting(**base | {"runs": runs, "unbiased": theory["variance"] == "unbiased", "dimensions": theory["dimensions"]} | change)


def _spread(values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and quantiles over runs of (T, R), each (T,)."""
    found = np.quantile(values, list(QUANTILES.values()), axis=1)
    return {"mean": values.mean(axis=1)} | dict(zip(QUANTILES, found, strict=True))


def bounds(theory: dict) -> pd.DataFrame:
    """One row a (n, K, x): the printed bound on P(best of K has W >= delta) beside the exact probability and the simulated one.

    `verdict`: violated (below the exact probability), says nothing (1 or more), or loose; `factor`: bound over exact probability.
    """
    settings, unbiased, draws, rows = theory["bound"], theory["variance"] == "unbiased", theory["bound"]["draws"], []
    one = {"printed": bound.printed(X), "at_t": bound.at_t(X), "chernoff": bound.chernoff(X), "approximate": bound.approximate(X)}
    for n, k in product(settings["n"], settings["k"]):
        counts = bound.simulated(X, n, k, draws, derive_seed(theory["seed"], "bound", n, k), unbiased)
        low, high = np.array([wilson_interval(int(count), draws) for count in counts]).T
        values = {name: value**k for name, value in (one | {"exact": bound.exact(X, n, unbiased)}).items()}
        values |= {"simulated": counts / draws, "simulated_low": low, "simulated_high": high}
        constant = {"exact_constant": bound.exact_constant(n, unbiased)}
        rows.append(pd.DataFrame({"n": n, "k": k, "x": X, "delta": X / n, **values, **constant}))
    table = pd.concat(rows, ignore_index=True)
    table["factor"] = table.printed / table.exact
    table["verdict"] = np.select([table.printed < table.exact, table.printed >= 1], ["violated", "says nothing"], "loose")
    return table
