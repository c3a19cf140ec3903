"""Diversity, aggregated perplexity and D_opt against numbers worked by hand, and bootstrap
probabilities that mean what they say.
"""

import time

import numpy as np
import pytest

from pollination.analysis import ecosystems
from pollination.plan import layout
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from tests.figures.test_report import settings


def test_hill_shannon_counts_effective_kinds():
    assert ecosystems.hill_shannon([1 / 8] * 8) == pytest.approx(8)
    assert ecosystems.hill_shannon([3, 1]) == pytest.approx(
        np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    )  # 1.7548
    assert ecosystems.hill_shannon([0.5, 0.5, 0.0]) == pytest.approx(2)
    assert ecosystems.diversity(["a", "a"]) == 1 and ecosystems.diversity(
        ["a", "b", "a", "b"]
    ) == pytest.approx(2)
    for shares in ([], [0.0], [-1, 2], [float("nan")]):
        with pytest.raises(ValueError, match="hill_shannon"):
            ecosystems.hill_shannon(shares)


def test_members_that_share_model_corpus_and_segment_are_one_kind():
    raw = settings(line_seeds=(), select=False, text="pool", tasks=())
    plan = Plan(resolve(raw), "r")
    assert ecosystems.diversity(layout.kinds(plan, "population")) == pytest.approx(4)
    raw["founders"]["human"]["segments"] = "same"
    assert ecosystems.diversity(layout.kinds(Plan(resolve(raw), "r"), "population")) == 1


def test_trajectory_is_the_mean_over_blocks_then_models_with_a_combined_deviation():
    one, two = (
        np.array([[1.0, 3.0], [2.0, 2.0]]),
        np.array([[5.0, 7.0], [4.0, 8.0]]),
    )  # (rounds, blocks)
    mu, sd = ecosystems.trajectory([[one, two]])
    assert mu.tolist() == [4.0, 4.0]
    assert sd == pytest.approx([np.std([1, 3, 5, 7]), np.std([2, 2, 4, 8])])
    assert ecosystems.aggregate(np.array([2.0, 4.0, 9.0])).tolist() == [2.0, 3.0, 5.0]
    short = two[:, :1]  # another tokenizer: fewer blocks, and no less weight
    assert ecosystems.trajectory([[one, short]])[0].tolist() == [3.5, 3.0]


def members(
    mu: list[float], models: int, spread: float, seed: int, blocks: int = 60
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    common = 0.2 * np.random.default_rng(99).standard_normal(
        blocks
    )  # difficult blocks are difficult for all
    return [
        np.array(mu)[:, None]
        + common
        + spread * rng.standard_normal()
        + 0.05 * rng.standard_normal(blocks)
        for _ in range(models)
    ]


CROSSING = (
    [1.0, 3.0, 5.0, 7.0],
    [2.0, 2.5, 3.0, 3.5],
    [4.0, 3.0, 2.0, 1.0],
)  # mu_T: 1, 2, 3, 4 | 2, 2.25, 2.5, 2.75 | 4, 3.5, 3, 2.5


def test_d_opt_finds_a_known_crossing_and_is_sure_of_it():
    found = ecosystems.optimum(
        [
            (4.0, [members(CROSSING[2], 4, 0, 1)]),
            (1.0, [members(CROSSING[0], 1, 0, 2)]),
            (2.0, [members(CROSSING[1], 2, 0, 3)]),
        ],
        0,
    )
    assert found.diversities == [1.0, 2.0, 4.0]
    assert [found.diversities[row] for row in found.best_T] == [1.0, 1.0, 2.0, 4.0]
    assert found.mu_DT[2] == pytest.approx([4, 3.5, 3, 2.5], abs=0.1)
    assert (
        found.probability_DT.sum(axis=0) == pytest.approx(1)
        and found.probability_DT[0, 0] == 1
        and found.probability_DT[1, 2] > 0.99
    )
    assert found.monotone and found.monotone_probability > 0.99 and found.rises_probability == 1
    assert (found.low_DT <= found.mu_DT).all() and (found.mu_DT <= found.high_DT).all()


def test_a_fall_is_seen_and_equal_ecosystems_are_a_coin_toss():
    down = ecosystems.optimum(
        [(1.0, [members(CROSSING[2], 1, 0, 1)]), (2.0, [members(CROSSING[0], 2, 0, 2)])], 0
    )
    assert not down.monotone and down.monotone_probability == 0 and down.rises_probability == 0
    chances = []
    for seed in range(
        40
    ):  # the same kind of models, whose own noise is far larger than the blocks'
        pair = [(float(d + 1), [members([2.0], 8, 0.5, 100 + 2 * seed + d)]) for d in range(2)]
        chances.append(ecosystems.optimum(pair, seed, resamples=200).probability_DT[0, 0])
    assert (
        0.35 < np.mean(chances) < 0.65 and np.std(chances) > 0.15
    )  # as often one as the other, and seldom certain


def test_replicates_carry_the_uncertainty_of_a_single_model():
    alone = ecosystems.optimum([(1.0, [members([2.0], 1, 0, 1)])], 0)
    seeds = ecosystems.optimum([(1.0, [members([2.0], 1, 0.5, seed) for seed in range(4)])], 0)
    assert (seeds.high_DT - seeds.low_DT)[0, 0] > 3 * (alone.high_DT - alone.low_DT)[0, 0]
    values = np.array(
        [member.mean() for seed in range(4) for member in members([2.0], 1, 0.5, seed)]
    )
    assert seeds.mu_DT[0, 0] == pytest.approx(values.mean())
    resampled = np.random.default_rng(0).choice(values, (4000, 4)).mean(axis=1)
    assert (seeds.high_DT - seeds.low_DT)[0, 0] == pytest.approx(
        np.diff(np.quantile(resampled, [0.025, 0.975]))[0], rel=0.15
    )


def test_d_opt_has_an_interval_where_runs_differ():
    """The first of four runs of D = 2 is far better than the others; alone, it decides D_opt."""
    one = [members([2.0], 1, 0, seed) for seed in range(4)]
    two = [members([mu], 2, 0, seed) for seed, mu in enumerate((1.4, 2.2, 1.9, 2.4))]
    alone = ecosystems.optimum([(1.0, one[:1]), (2.0, two[:1])], 0)
    assert (alone.best_T[0], alone.low_T[0], alone.high_T[0]) == (1, 1, 1)
    assert alone.replicates == [1, 1]
    every = ecosystems.optimum([(1.0, one), (2.0, two)], 0)
    assert (every.low_T[0], every.high_T[0], every.replicates) == (0, 1, [4, 4])
    assert 0.2 < every.probability_DT[0, 0] < 0.8


def test_ecosystems_with_other_rounds_are_refused():
    with pytest.raises(ValueError, match="different numbers of rounds"):
        ecosystems.optimum(
            [(1.0, [members([1.0, 2.0], 1, 0, 0)]), (2.0, [members([1.0], 2, 0, 0)])], 0
        )


def test_the_size_of_study_b_takes_seconds():
    """31 models, 20 rounds, 2,200 blocks."""
    rng, start = np.random.default_rng(0), time.monotonic()
    sizes = [(float(m), [[rng.random((20, 2200)) for _ in range(m)]]) for m in (1, 2, 4, 8, 16)]
    ecosystems.optimum(sizes, 0)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("models", range(1, 33))
def test_equal_shares_have_a_whole_number_as_diversity(models):
    assert ecosystems.diversity(range(models)) == models  # exp(ln 8) is 7.999999999999998
    assert ecosystems.diversity("ab" * models) == 2
    assert ecosystems.diversity("aab") == ecosystems.diversity("bba")
