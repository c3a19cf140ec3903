"""Claims on the Gaussian theory and on fingerprints, tested on their tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.claims.verdicts import Finding, around, student_draws
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.plan.claims import Claim

OVL, DELTA = 0.313, -0.572  # study A, section 4
KIND = "all"  # words, bigrams and trigrams together


# --- theory: the independent runs are the units, all of them and not only those that are drawn


def _w2(run: Run, role: str) -> pd.DataFrame:
    """Return the mean squared W2 of each run within analysis/theory/tables.WINDOWS (columns)."""
    table = artifacts.read_table(f"{run.plan.results}/theory/windows.parquet").to_pandas()
    return table[table.role == role].sort_values("run")


def _growth(run: Run, role: str, window: str) -> np.ndarray | str:
    """Return (runs,): log10 of the mean of the last quarter over the mean of a window."""
    w2 = _w2(run, role)
    if w2["generations"].min() < 20:
        return "theory.generations is below 20, too few for this test"
    return np.log10(w2["late"] / w2[window]).to_numpy()


def _of_runs(values: np.ndarray | str, instance: str) -> list[Finding] | str:
    if isinstance(values, str):
        return values
    if len(values) < 2:
        return "the theory has only one run; set theory.runs to 2 or more"
    stderr = values.std(ddof=1) / np.sqrt(len(values))
    return [
        Finding(
            instance,
            float(values.mean()),
            student_draws(values.mean(), stderr, len(values) - 1),
            replicates=str(len(values)),
        )
    ]


def w2_bounded(claim: Claim, run: Run, *_) -> list[Finding] | str:
    return _of_runs(_growth(run, "evolution", "middle"), "population")


def w2_line_grows(claim: Claim, run: Run, *_) -> list[Finding] | str:
    return _of_runs(_growth(run, "baseline", "early"), "single estimator")


def w2_below_line(claim: Claim, run: Run, *_) -> list[Finding] | str:
    late = {role: np.log10(_w2(run, role)["late"]) for role in ("baseline", "evolution")}
    return _of_runs(
        late["baseline"].to_numpy() - late["evolution"].to_numpy(), "pairs of independent runs"
    )


def bound_holds(claim: Claim, run: Run, *_) -> list[Finding] | str:
    """Compare bound and probability; both are exact, so there is no interval."""
    table = artifacts.read_table(
        f"{run.plan.results}/theory/bound.parquet", ["n", "k", "x", "printed", "exact"]
    ).to_pandas()
    table = table[(table.exact > 0) & (table.printed > 0)]
    least = table.iloc[int(np.argmin(np.log10(table.printed) - np.log10(table.exact)))]
    value = float(np.log10(least.printed) - np.log10(least.exact))
    note = f"calculated, not sampled; tightest at n = {least.n:g}, K = {least.k:g}, x = {least.x:g}"
    draws, settings = np.full(2, value), f"{len(table)} settings"
    return [Finding(settings, value, draws, variance="none: exact", note=note, exact=True)]


# --- fingerprints: models are the units, because pairs share them


def _overlap(run: Run, survey: str, statistic: str, shift: float, sign: float) -> list[Finding]:
    rows = pd.DataFrame(_statistics(run, survey)["overlap"])
    rows = rows[(rows.kind == KIND) & (rows.statistic == statistic) & (rows.resampled == "models")]
    row = rows.iloc[0]
    value, *interval = (sign * (row[key] - shift) for key in ("value", "low", "high"))
    low, high = sorted(interval)
    draws = around(value, low, high)
    models = f"{len(_statistics(run, survey)['models'])} models"
    variance = "models resampled"
    return [Finding(survey, float(value), draws, replicates=models, variance=variance)]


def ovl(claim: Claim, run: Run, survey: str, *_) -> list[Finding]:
    return _overlap(run, survey, "overlap_kde", OVL, 1.0)


def delta_below_zero(claim: Claim, run: Run, survey: str, *_) -> list[Finding]:
    return _overlap(run, survey, "cliffs_delta", 0.0, -1.0)


def delta(claim: Claim, run: Run, survey: str, *_) -> list[Finding]:
    return _overlap(run, survey, "cliffs_delta", DELTA, 1.0)


def lag_raw(claim: Claim, run: Run, survey: str, *_) -> list[Finding] | str:
    return _lag(run, survey, excess=False)


def lag_excess(claim: Claim, run: Run, survey: str, *_) -> list[Finding] | str:
    return _lag(run, survey, excess=True)


def _lag(run: Run, survey: str, excess: bool) -> list[Finding] | str:
    """Test the mean of I(older -> newer) - I(newer -> older), twice the signed mean over pairs.

    The jackknife leaves out models: a model is in many pairs, so pairs are not units.
    """
    path = f"{run.plan.results}/fingerprint/{survey}/pairs.parquet"
    pairs = artifacts.read_table(path).to_pandas()
    pairs = pairs[(pairs.source_family != pairs.target_family) & (pairs.lag != 0)]
    if pairs.empty:
        return "no two models of different families have different release times"
    difference = (pairs.influence - (pairs.expected if excess else 0.0)).to_numpy()
    signed = 2 * np.sign(pairs.lag.to_numpy()) * difference
    models = sorted({*pairs.source, *pairs.target})
    without = []
    for model in models:
        kept = ((pairs.source != model) & (pairs.target != model)).to_numpy()
        if not kept.any():
            return "one model is in all pairs, so the jackknife cannot leave it out"
        without.append(signed[kept].mean())
    size, value = len(models), float(signed.mean())
    stderr = np.sqrt((size - 1) / size * ((np.array(without) - np.mean(without)) ** 2).sum())
    asymmetry = next(row for row in _statistics(run, survey)["asymmetry"] if row["kind"] == KIND)
    note = (
        f"permutation test over models: p = {asymmetry['p_excess' if excess else 'p_raw']:.3g} "
        "(two-sided)"
    )
    draws = student_draws(value, float(stderr), size - 1)
    variance = "jackknife over models"
    return [
        Finding(survey, value, draws, replicates=f"{size} models", variance=variance, note=note)
    ]


def _statistics(run: Run, survey: str) -> dict:
    return artifacts.read_json(Path(run.plan.results, "fingerprint", survey, "statistics.json"))
