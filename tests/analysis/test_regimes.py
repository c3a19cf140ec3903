"""Effective data quality: both tests keep their size under the coupling, and find a real effect."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, spearmanr

from pollination.analysis.regimes import regimes
from pollination.figures.quality import title

ROUNDS, TRIALS = 5, 100
UNDER_5_PERCENT = binom.ppf([0.001, 0.999], TRIALS, 0.05)  # rejections in TRIALS trials


def trainings(
    seed: int, effect: float = 0.0, shared: bool = False, sizes=(1, 2, 4), replicates: int = 3
) -> pd.DataFrame:
    """Return noise: text, model before and model after are independent, but for `effect`.

    `shared`: the members of a run read nearly the same text, and gain or lose together.
    """
    rng, parts = np.random.default_rng(seed), []
    for size in sizes:
        for replicate in range(replicates):
            shape = (ROUNDS, size)
            text, before, after = rng.normal(size=(3, *shape))
            if shared:
                text = rng.normal(size=(ROUNDS, 1)) + 0.05 * text
                after = rng.normal(size=(ROUNDS, 1)) + 0.5 * after
            generation, member = np.indices(shape)
            columns = {"text": text, "before": before, "loss_before": before}
            columns |= {"generation": generation + 1, "member": member}
            columns["change"] = after - before + effect * text
            flat = {name: values.ravel() for name, values in columns.items()}
            parts.append(pd.DataFrame(flat).assign(experiment=f"m{size}.s{replicate}"))
    return pd.concat(parts, ignore_index=True)


def found(effect: float, shared: bool, trials: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            vars(regimes(trainings(seed, effect, shared), seed, resamples=99))
            for seed in range(trials)
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared text"])
def test_without_an_effect_both_tests_reject_in_one_trial_of_twenty(shared):
    tests = found(0.0, shared, TRIALS)
    # the coupling, which the permutation finds and the raw correlation takes for an effect
    assert tests.rank_correlation.mean() == pytest.approx(0.48 if not shared else 0.46, abs=0.03)
    assert tests.rank_correlation_null.mean() == pytest.approx(
        tests.rank_correlation.mean(), abs=0.02
    )
    assert tests.same_sign_null.mean() == pytest.approx(tests.same_sign.mean(), abs=0.01)
    assert tests.same_sign.mean() > 0.62 and tests.parted_null.mean() > 0.65
    conditional = ((tests.partial_low > 0) | (tests.partial_high < 0)).sum()
    for rejected in (conditional, (tests.permutation_p <= 0.05).sum()):
        assert UNDER_5_PERCENT[0] <= rejected <= UNDER_5_PERCENT[1]
    assert tests.verdict.isin(["supported", "contradicted"]).mean() < 0.05


@pytest.mark.parametrize("shared, power", [(False, 0.9), (True, 0.5)])
def test_a_real_effect_is_found(shared, power):
    tests = found(0.7, shared, 40)
    assert (tests.verdict == "supported").mean() >= power
    assert (found(-0.7, False, 20).verdict == "contradicted").mean() >= 0.9


def test_the_statistics_are_those_worked_out_another_way():
    rows = trainings(3, effect=0.5)
    said = regimes(rows, 0, resamples=50)
    assert said.n == len(rows) and said.runs == 9
    assert said.rank_correlation == pytest.approx(
        spearmanr(rows.text - rows.before, rows.change).statistic
    )
    ranks = rows[["text", "before", "loss_before", "change"]].rank()

    def partial(strata: pd.Series) -> float:
        """Frisch-Waugh: correlate what a least-squares fit on the rest leaves."""
        rest = ranks[["before"]].join(pd.get_dummies(strata, dtype=float))
        fits = [np.linalg.lstsq(rest, ranks[key], rcond=None)[0] for key in ("text", "change")]
        left = [ranks[key] - rest @ fit for key, fit in zip(("text", "change"), fits, strict=True)]
        return np.corrcoef(*left)[0, 1]

    assert said.partial == pytest.approx(partial(rows.generation))
    size = rows.experiment.str[:2]
    assert said.within == pytest.approx(partial(size + rows.generation.astype(str)))


def test_without_another_text_in_the_round_there_is_no_test():
    rows = trainings(0, sizes=(1,), replicates=1)
    said = regimes(rows, 0, resamples=20)
    assert said.verdict == "no test" and np.isnan([said.permutation_p, said.partial_low]).all()
    assert "no text can be exchanged within a round" in title(said, "sentences")
    # several members that read one text are one text
    rows = trainings(0, sizes=(4,), replicates=1)
    rows["text"] = rows.generation * 0.1
    assert np.isnan(regimes(rows, 0, resamples=20).permutation_p)
    rows["text"] = 1.0  # no rank: what is left of it is rounding
    constant = regimes(rows, 0, resamples=20)
    assert np.isnan([constant.partial, constant.within]).all()
    rows["text"] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        regimes(rows, 0)


def test_where_all_are_harmed_there_is_no_boundary():
    rows = trainings(0)
    rows["change"] = rows.change.abs() + 1
    said = regimes(rows, 0, resamples=50)
    assert np.isnan([said.boundary, said.boundary_low, said.parted]).all()
