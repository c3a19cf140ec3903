"""Distances from a grammar: none for the truth, known for hand-made text, and rising with
corruption; bigrams for text whose truth is unknown.
"""

import numpy as np
import pytest

from pollination.core.seeds import derive_seed
from pollination.data.microworld import World
from pollination.evaluation.grammar import Counts, Grammar
from pollination.evaluation.quality import bigrams, total_variation

EOS = "<eos>"


@pytest.fixture(scope="module")
def world() -> World:
    return World.create({"people": 8, "numbers": 8, "objects": 5, "roles": 3}, derive_seed(1))


@pytest.fixture(scope="module")
def grammar(world) -> Grammar:
    return Grammar(world)


def small() -> World:
    """Three sentences: a b . (1/2), a c . (1/4), d . (1/4)."""
    return World(2.0, ["a b .", "a c .", "d ."], np.array([0.5, 0.25, 0.25]), None, {}, {})


def read(grammar: Grammar, text: str, first: int = 0, known: bool = True) -> Counts:
    return grammar.read([(text.split(), first, known)], EOS)


def test_the_truth_itself_is_at_no_distance(world, grammar):
    def truth(sentences):
        return [world.token_logprobs(words)[:-1] for words in sentences]

    found = grammar.distances(grammar.of_model(truth))
    assert found == pytest.approx({"sentences": 0, "next_token": 0, "outside": 0}, abs=1e-12)
    assert grammar.p_E == pytest.approx(grammar.of_model(truth))


def test_hand_worked_distances():
    grammar = Grammar(small())
    counts = read(grammar, f"a b . a b . d . {EOS} d .")
    found = grammar.distances(grammar.of_text(counts))
    # root: a 1/2, d 1/2 against 3/4, 1/4; after a: b alone. Sentences 1/2, 0, 1/2 against 1/2, 1/4,
    # 1/4.
    assert found["sentences"] == pytest.approx(0.25) and found["outside"] == 0
    # nodes root (1/4 apart), after "a" (b 1 against 2/3: 1/3), after "a b" and "d" (0), after "a c"
    # (not there: 1), passed 1, 3/4, 1/2, 1/4 and 1/4 times
    assert found["next_token"] == pytest.approx(
        (0.25 + 0.75 / 3 + 0.25) / (1 + 0.75 + 0.5 + 0.25 + 0.25)
    )


def test_words_outside_the_grammar_count_where_they_stand():
    grammar = Grammar(small())
    counts = read(
        grammar, f"a x y . d . a {EOS} a b . a"
    )  # x after a; an eos after a; the last a is cut and says nothing of what follows
    after_a = grammar.to[grammar.children[0]["a"]]
    assert counts.outside[after_a] == 2 and counts.outside.sum() == 2
    assert counts.edges[grammar.children[0]["a"]] == 4
    assert grammar.distances(grammar.of_text(counts))["outside"] == pytest.approx(4 / 5 * 2 / 3)


def test_what_is_cut_is_no_distance():
    """Half of the sentences begin with "a", of which nothing else is known: "a b ." and "a c ."
    share it as the truth has it.
    """
    grammar = Grammar(small())
    found = grammar.distances(grammar.of_text(grammar.read([(["d", ".", "a"], 0, True)], EOS)))
    assert found["sentences"] == pytest.approx(0.25) and found["outside"] == pytest.approx(0)


def test_only_the_completion_counts_and_an_unknown_beginning_is_skipped():
    grammar = Grammar(small())
    assert (
        read(grammar, "d . a b . d .", first=3).edges.sum() == 4
    )  # b . d . ; that b follows a is known from the prompt
    counts = read(grammar, "c . a b .", known=False)
    assert counts.edges.sum() == 3 and counts.outside.sum() == 0
    assert (0.5 * counts + counts).edges.sum() == 4.5


def test_distance_rises_with_corruption_and_a_true_sample_lies_at_its_floor(world, grammar):
    rng = np.random.default_rng(0)
    documents = [text.split() for text in world.sample_documents(400, rng)]
    words, found = world.vocabulary, []
    for share in (0.0, 0.05, 0.2, 0.6):
        noisy = [
            [w if rng.random() >= share else words[rng.integers(len(words))] for w in text]
            for text in documents
        ]
        found.append(
            grammar.distances(
                grammar.of_text(grammar.read([(text, 0, True) for text in noisy], EOS))
            )
        )
    for key in ("sentences", "next_token", "outside"):
        assert np.all(np.diff([one[key] for one in found]) > 0), key
    sentences = sum(text.count(".") for text in documents)
    for key, (mean, sd) in grammar.floor(sentences, 0).items():
        assert abs(found[0][key] - mean) <= 4 * sd + 1e-9, key
    assert (
        grammar.floor(20 * sentences, 0)["sentences"][0]
        < grammar.floor(sentences, 0)["sentences"][0] / 3
    )


def test_cutting_a_text_anywhere_does_not_bias_it(world, grammar):
    """Windows of 12 words cut off the long sentences; counting whole sentences would lose nearly
    all of those with 17.
    """
    text = " ".join(world.sample_documents(9000, np.random.default_rng(1))).split()
    windows = [(text[i : i + 30], 0, False) for i in range(0, len(text), 30)]
    cut, whole = grammar.read(windows, EOS), grammar.read([(text, 0, True)], EOS)
    floor = grammar.floor(int(whole.edges[list(grammar.children[0].values())].sum() / 3), 0)[
        "sentences"
    ]
    assert grammar.distances(grammar.of_text(cut))["sentences"] < floor[0] + 4 * floor[1]


def test_bigrams_and_their_distance():
    assert bigrams([[1, 2, 1], [2, 1]], None) == {
        1 << 32 | 2: pytest.approx(1 / 3),
        2 << 32 | 1: pytest.approx(2 / 3),
    }
    assert bigrams([[1, 2, 1, 2]], 2) == {1 << 32 | 2: 1.0}
    p, q = bigrams([[1, 2, 1]], None), bigrams([[1, 2, 3]], None)
    assert (
        total_variation(p, p) == 0
        and total_variation(p, q) == pytest.approx(0.5)
        and total_variation(p, bigrams([[7, 8]], None)) == 1
    )
