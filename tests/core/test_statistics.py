"""Intervals cover what they claim, differences pair what is paired, and the confidence of a
selection is what it says.
"""

import numpy as np
import pytest

from pollination.core import statistics


def test_mean_interval_agrees_with_the_normal_approximation_and_its_seed():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = statistics.bootstrap_mean_interval(values, seed=1)
    stderr = values.std(ddof=1) / 20
    assert interval["mean"] == pytest.approx(values.mean())
    assert interval["stderr"] == pytest.approx(stderr, rel=0.05)
    assert (interval["high"] - interval["low"]) / 2 == pytest.approx(1.96 * stderr, rel=0.07)
    assert (
        interval
        == statistics.bootstrap_mean_interval(values, seed=1)
        != statistics.bootstrap_mean_interval(values, seed=2)
    )


def test_weighted_interval_is_of_the_ratio():
    tokens = np.array([1.0, 10.0, 100.0, 5.0])
    assert statistics.bootstrap_mean_interval(2 * tokens, 0, 500, weights=tokens)[
        "mean"
    ] == pytest.approx(2.0)
    assert statistics.bootstrap_mean_interval(2 * tokens, 0, 500, weights=tokens)[
        "stderr"
    ] == pytest.approx(0.0, abs=1e-12)


def test_results_do_not_depend_on_how_draws_are_chunked(monkeypatch):
    values, correct = np.arange(50.0), np.random.default_rng(0).random((4, 50)) < 0.5
    whole = (
        statistics.bootstrap_mean_interval(values, 3, 200),
        statistics.selection_confidence(correct, [0, 1], 2, 3, 200),
    )
    monkeypatch.setattr(statistics, "CHUNK", 50 * 7)
    assert whole == (
        statistics.bootstrap_mean_interval(values, 3, 200),
        statistics.selection_confidence(correct, [0, 1], 2, 3, 200),
    )


def test_wilson_interval():
    assert statistics.wilson_interval(5, 10) == pytest.approx(
        (0.2366, 0.7634), abs=1e-4
    )  # Newcombe 1998 by formula
    assert statistics.wilson_interval(0, 10)[0] == 0.0 and statistics.wilson_interval(0, 10)[
        1
    ] == pytest.approx(0.2775, abs=1e-4)
    assert statistics.wilson_interval(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="not less than 1"):
        statistics.wilson_interval(0, 0)


def test_a_clear_choice_is_certain_and_a_coin_toss_is_not():
    generator = np.random.default_rng(0)
    clear = generator.random((4, 500)) < np.array([[0.9], [0.3], [0.85], [0.2]])
    result = statistics.selection_confidence(clear, [0, 2], 2, seed=0)
    assert (
        result["same_set"] == 1.0
        and result["in_best_k"] == [1.0, 1.0]
        and result["expected_overlap"] == 2.0
    )
    assert result["expected_regret"] == 0.0
    noisy = generator.random((16, 100)) < 0.25
    chosen = np.argsort(-noisy.mean(axis=1), kind="stable")[:4].tolist()
    result = statistics.selection_confidence(noisy, chosen, 4, seed=0)
    assert result["same_set"] < 0.3
    assert result["expected_overlap"] == pytest.approx(sum(result["in_best_k"]))
    assert 0 < result["expected_regret"] < 0.1


def test_two_members_match_the_exact_probability():
    # Member 0 alone is right on 3 questions, member 1 alone on 1 of 4: best unless a draw of 4
    # holds question 3 three times or four
    # (probability 13 / 256); two and two (6 * (1/4)^2 * (3/4)^2 = 54 / 256) is a tie, an even
    # chance
    correct = np.array([[1, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
    result = statistics.selection_confidence(correct, [0], 1, seed=0, resamples=200_000)
    assert result["same_set"] == pytest.approx(1 - 13 / 256 - 27 / 256, abs=0.002)


def test_a_choice_among_equals_is_a_draw_by_lot():
    result = statistics.selection_confidence(
        np.ones((4, 10), dtype=bool), [0, 1], 2, seed=0, resamples=50
    )
    assert result["same_set"] == pytest.approx(1 / 6)
    assert (
        result["in_best_k"] == [0.5, 0.5]
        and result["expected_overlap"] == 1.0
        and result["expected_regret"] == 0.0
    )
    one_better = np.vstack([np.ones(10), np.zeros((3, 10))]).astype(bool)
    assert statistics.selection_confidence(one_better, [0, 2], 2, seed=0, resamples=50)[
        "same_set"
    ] == pytest.approx(1 / 3)


@pytest.mark.parametrize("chosen, k", [([0, 0], 2), ([0], 2), ([5], 1), ([], 0)])
def test_impossible_choices_are_refused(chosen, k):
    with pytest.raises(ValueError, match="different members of 0 to 2"):
        statistics.selection_confidence(np.ones((3, 4)), chosen, k, seed=0)


def test_the_jackknife_of_a_mean_is_its_t_interval():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = statistics.jackknife_interval(values.mean(), (values.sum() - values) / 3)
    stderr = values.std(ddof=1) / 2
    assert found["mean"] == 4 and found["stderr"] == pytest.approx(stderr)
    assert (found["low"], found["high"]) == pytest.approx(
        (4 - 3.182446 * stderr, 4 + 3.182446 * stderr)
    )
    assert np.isnan(statistics.jackknife_interval(1.0, [2.0])["low"])


def test_the_noise_of_a_precision_lowers_the_confidence_by_its_size():
    """Two members, 400 questions: the lead of 0.05 is certain but for noise of sd s each.

    All questions give the same answer, so resampling changes nothing, and the leader stays best
    with the probability Phi(lead / (s sqrt 2)).
    """
    correct = np.array([[0.55] * 400, [0.5] * 400])
    assert statistics.selection_confidence(correct, [0], 1, seed=1)["same_set"] == 1.0
    noisy = statistics.selection_confidence(
        correct, [0], 1, seed=1, precision_sd=np.array([0.05, 0.05])
    )
    assert noisy["same_set"] == pytest.approx(0.7602, abs=0.03)
