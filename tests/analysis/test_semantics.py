"""Measures of diversity: known answers by hand, intervals, equal counts, and the map."""

import numpy as np
import pandas as pd
import pytest

from pollination.analysis import semantics
from pollination.analysis.semantics import (
    Texts,
    compare,
    distinct,
    measures,
    pairwise,
    project,
    self_bleu,
    spread,
    subsets,
    vendi,
)
from pollination.data.words import tokenize

E = np.eye(4)


def test_spread_pairwise_and_vendi_by_hand():
    same, apart, mixed = E[[0, 0]], E[[0, 1]], E[[0, 0, 1]]
    assert [spread(same), pairwise(same), vendi(same)] == pytest.approx([0, 0, 1])
    assert [spread(apart), pairwise(apart), vendi(apart)] == pytest.approx([1 - 2**-0.5, 1, 2])
    third = np.array(
        [1 / 3, 2 / 3]
    )  # eigenvalues of the kernel over three: two alike and one apart
    assert vendi(mixed) == pytest.approx(np.exp(-(third * np.log(third)).sum()))
    assert pairwise(mixed) == pytest.approx(2 / 3)
    assert spread(mixed) == pytest.approx(1 - (2 * 2 / 5**0.5 + 1 / 5**0.5) / 3)
    assert spread(np.array([[1.0, 0], [-1.0, 0]])) == 1  # no centroid
    assert vendi(E[[0, 1, 2, 3] * 3]) == pytest.approx(4)  # more texts than dimensions


def test_distinct_and_self_bleu_by_hand():
    texts = [tokenize("The cat sat."), tokenize("the cat ran")]
    assert texts[0] == ["the", "cat", "sat", "."]
    assert distinct(texts, 1) == pytest.approx(5 / 7) and distinct(texts, 2) == pytest.approx(4 / 5)
    assert np.isnan(distinct([["a"], []], 2))
    assert self_bleu([["a", "b"], ["a", "b"]]) == pytest.approx(1)  # shorter than four
    assert np.isnan(self_bleu([["a"], []]))
    one, other = list("abcd"), list("abef")
    # of four, two words, one pair, no triple and no four stand in the other; none counts as 0.1
    # (method 1)
    expected = (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25
    assert self_bleu([one, other]) == pytest.approx(expected)


def texts(vectors_MPD: np.ndarray) -> Texts:
    return Texts(
        vectors_MPD,
        [[list(f"m{m}p{p}") for p in range(vectors_MPD.shape[1])] for m in range(len(vectors_MPD))],
    )


def test_one_model_is_measured_over_prompts_and_several_within_them():
    both = texts(np.stack([E[[0, 1, 1]], E[[0, 1, 2]]]))  # they agree on two of three prompts
    found = {key: value for key, (value, _) in measures(both, (2,), seed=1).items()}
    assert found["prompt", "pairwise", 2] == pytest.approx(1 / 3) and found[
        "prompt", "vendi", 2
    ] == pytest.approx(4 / 3)
    assert found["model", "between", 1] == pytest.approx((2 / 3 + 1) / 2)
    assert found["model", "vendi", 1] == pytest.approx((vendi(E[[0, 1, 1]]) + 3) / 2)
    assert found["all", "vendi", 2] == pytest.approx(vendi(E[[0, 1, 1, 0, 1, 2]]))
    assert found["all", "between", 2] == pytest.approx(1 - 2 * (0 + 0 + 2 / 4) / 6)
    assert {scope for scope, _, _ in measures(texts(E[None, :3]), (2,), seed=1)} == {
        "model"
    }  # one model has nobody to differ from


def test_without_each_prompt_is_what_measuring_without_it_gives():
    rng = np.random.default_rng(3)
    said = [[list(map(str, rng.integers(0, 9, 12))) for _ in range(5)] for _ in range(3)]
    some = Texts(semantics.unit(rng.normal(size=(3, 5, 8))), said)
    found = measures(some, (3,), seed=1)
    for p in range(5):
        rest = Texts(
            np.delete(some.unit_MPD, p, axis=1), [tokens[:p] + tokens[p + 1 :] for tokens in said]
        )
        for key, (value, _) in measures(rest, (3,), seed=1).items():
            assert found[key][1][p] == pytest.approx(value), key


def test_subsets_are_all_or_some_that_follow_from_the_seed():
    assert subsets(4, 3, 1) == [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
    drawn = subsets(16, 3, 1)
    assert len(set(drawn)) == semantics.SUBSETS and drawn == subsets(16, 3, 1) != subsets(16, 3, 2)


def rows(
    experiment: str, generation: int, member: int, model: str, vectors: np.ndarray
) -> list[dict]:
    about = {"experiment": experiment, "generation": generation, "member": member, "model": model}
    return [
        about | {"prompt_id": f"p{p}", "completion": f"word{v.argmax()} and more", "embedding": v}
        for p, v in enumerate(vectors)
    ]


def test_a_single_line_has_no_spread_and_its_replicates_are_pooled_at_equal_counts():
    alike, apart = E[[0, 1, 2]], E[[3, 3, 3]]
    table = []
    for m in range(4):
        table += rows("population", 0, m, f"founder{m}", alike) + rows(
            "population", 1, m, f"child{m}", alike if m else apart
        )
    for seed in (1, 2):
        table += rows(f"line.s{seed}", 0, 0, "founder0", alike) + rows(
            f"line.s{seed}", 1, 0, f"line{seed}", alike if seed > 1 else apart
        )
    groups = [
        {"group": "population", "experiments": ["population"], "population": 4},
        {"group": "line", "experiments": ["line.s1", "line.s2"], "population": 1},
    ]
    found = compare(pd.DataFrame(table), groups, seed=1)
    value = found.set_index(["group", "against", "generation", "scope", "measure", "models"]).value
    assert not (
        (found.group == "line") & (found.generation == 0) & (found.scope == "prompt")
    ).any()  # replicates share one founder
    assert value["line", "", 1, "prompt", "pairwise", 2] == pytest.approx(1)
    assert value["population", "", 1, "prompt", "pairwise", 2] == pytest.approx(
        3 / 6
    )  # three of six pairs differ
    assert value["population", "", 1, "prompt", "pairwise", 4] == pytest.approx(3 / 6)
    assert value["population", "line", 1, "prompt", "pairwise", 2] == pytest.approx(3 / 6 - 1)
    assert value["line", "", 1, "model", "vendi", 1] == pytest.approx((1 + 3) / 2)
    gone = [
        row
        for row in table
        if (row["model"], row["prompt_id"]) not in (("child2", "p0"), ("line1", "p1"))
    ]
    with pytest.raises(ValueError, match="share 1 prompts"):
        compare(pd.DataFrame(gone), groups, seed=1)


def test_texts_of_nothing_have_numbers_where_they_can():
    table = pd.DataFrame(
        rows("population", 0, 0, "a", E[[0, 1]]) + rows("population", 0, 1, "b", E[[0, 1]])
    ).assign(completion="")
    found = compare(
        table, [{"group": "population", "experiments": ["population"], "population": 2}], seed=1
    ).set_index(["scope", "measure"])
    assert np.isnan(
        found.low["model", "vendi"]
    )  # two prompts: no interval, rather than one of width zero
    assert np.isnan(found.value["prompt", "self_bleu"]) and found.value[
        "prompt", "vendi"
    ] == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_the_map_takes_any_number_of_texts_and_is_the_same_every_time(count):
    vectors = np.random.default_rng(1).normal(size=(count, 6))
    places = project(vectors, perplexity=30, seed=7)
    assert places.shape == (count, 2) and np.isfinite(places).all()
    assert np.array_equal(places, project(vectors, perplexity=30, seed=7))
    assert project(np.ones((count, 6)), 30, 7).shape == (count, 2)
