"""The microworld: exact probabilities, questions that agree with its sentences, truth measures."""
# ruff: noqa: SIM905 (word lists are easier to read as text)

import hashlib
import json
import math
from collections import Counter

import numpy as np
import pytest

from pollination.core.questions import selecting_half
from pollination.core.settings import definition, whole
from pollination.data.microworld import World, expected_distinct_facts, fact_distribution
from pollination.data.sentences import EVENTS, GIVERS, HOLDERS, NUMBERS, SIZES, TAKERS, THINGS

CORPUS = definition("corpus")

SMALL = {"people": 12, "numbers": 8, "objects": 5, "roles": 3, "mean_sentences": 4}
WORLD = World.create(SMALL, seed=3)
# the grammar before it had these keys
OLD_SHARES = {"knowledge": 0.55, "arithmetic": 0.2, "coreference": 0.1, "social": 0.15}
OLD = SMALL | {"exceptions": 0, "shares": OLD_SHARES}


def truth(sequences: list[list[str]]) -> list[np.ndarray]:
    return [WORLD.token_logprobs(words)[:-1] for words in sequences]


def test_next_token_probabilities_sum_to_one_at_every_prefix():
    document = " ".join(WORLD.sentences[i] for i in (0, 150, -1)).split()
    for length in range(len(document) + 1):
        prefix = document[:length]
        total = sum(
            math.exp(WORLD.token_logprobs([*prefix, word])[length]) for word in WORLD.vocabulary
        )
        assert total + math.exp(WORLD.token_logprobs(prefix)[-1]) == pytest.approx(1, abs=1e-12)


def test_a_documents_probability_is_that_of_its_sentences_and_its_length():
    chosen = [5, 40, 5]
    words = " ".join(WORLD.sentences[i] for i in chosen).split()
    expected = np.log(WORLD.probabilities[chosen]).sum() + 2 * math.log(3 / 4) + math.log(1 / 4)
    assert WORLD.token_logprobs(words).sum() == pytest.approx(expected, rel=1e-12)


def test_what_the_grammar_does_not_allow_has_no_probability():
    logprobs = WORLD.token_logprobs("three plus four is paris . three".split())
    assert np.isfinite(logprobs[:4]).all() and np.isneginf(logprobs[4:]).all()
    assert np.isneginf(WORLD.token_logprobs("three plus four".split())[-1])
    assert np.isneginf(WORLD.token_logprobs([]))


def test_entropy_is_the_mean_cost_of_sampled_text():
    documents = WORLD.sample_documents(8000, np.random.default_rng(0))
    costs = [-WORLD.token_logprobs(document.split()) for document in documents]
    tokens = sum(map(len, costs))
    assert sum(cost.sum() for cost in costs) / tokens == pytest.approx(
        WORLD.entropy_per_token, rel=0.01
    )
    assert np.mean([document.split().count(".") for document in documents]) == pytest.approx(
        4, rel=0.03
    )


def test_a_document_of_one_sentence_always_ends_there():
    world = World.create({"people": 8, "mean_sentences": 1}, seed=0)
    assert all(
        document.split().count(".") == 1
        for document in world.sample_documents(50, np.random.default_rng(1))
    )
    logprobs = world.token_logprobs((world.sentences[0] + " " + world.sentences[0]).split())
    assert np.isneginf(logprobs[len(world.sentences[0].split())])


def test_people_are_spoken_of_by_zipfs_law():
    shares = WORLD.facts.groupby("rank").probability.sum()
    assert shares[1] / shares[4] == pytest.approx(4)
    assert WORLD.facts.probability.sum() == pytest.approx(0.44)
    flat = World.create({"people": 12, "zipf_exponent": 0}, seed=3).facts.probability
    assert flat.to_numpy() == pytest.approx(flat[0])


@pytest.mark.parametrize("people", [8, 60, 1000])
def test_every_person_has_one_name_and_four_facts_however_many_there_are(people):
    world = World.create({"people": people}, seed=1)
    assert world.facts.person.nunique() == people and len(world.facts) == 4 * people
    other = {word for sentence in world.sentences[: -4 * people] for word in sentence.split()}
    other |= {word for values in world.values.values() for word in values}
    assert not set(world.facts.person) & other
    assert set(world.facts.prefix + " " + world.facts.value + " .") == set(
        world.sentences[-4 * people :]
    )


def test_every_question_has_one_right_choice_and_it_is_the_only_one_the_grammar_allows():
    for name, questions in WORLD.benchmarks().items():
        for question in questions:
            assert (
                len(set(question["choices"]))
                == len(question["choices"])
                == (2 if name == "coreference" else 4)
            )
            assert all(
                " " not in choice and choice in WORLD.vocabulary for choice in question["choices"]
            )
            prefix = question["question"].split()
            allowed = [
                np.isfinite(WORLD.token_logprobs([*prefix, choice])[len(prefix)])
                for choice in question["choices"]
            ]
            assert [i for i, fits in enumerate(allowed) if fits] == [question["answer"]]


def test_questions_cover_all_facts_with_a_few_set_aside_as_examples_and_answers_in_all_places():
    for name, questions in WORLD.benchmarks().items():
        assert sum(question["split"] == "dev" for question in questions) == 8
        places = np.bincount([question["answer"] for question in questions])
        assert len(places) == len(questions[0]["choices"]) and places.min() > 0, name
    asked = {
        (question["person"], question["attribute"]) for question in WORLD.benchmarks()["knowledge"]
    }
    assert asked == set(zip(WORLD.facts.person, WORLD.facts.attribute, strict=True))


def test_sums_are_right():
    numbers = {
        question["question"].split()[0]: None for question in WORLD.benchmarks()["arithmetic"]
    }
    value = {word: number for number, word in enumerate(numbers)}
    for question in WORLD.benchmarks()["arithmetic"]:
        a, _, b, _ = question["question"].split()
        right = question["choices"][question["answer"]]
        assert right not in value or value[right] == value[a] + value[b]


def test_a_world_comes_back_from_json_bit_for_bit_and_a_seed_makes_the_same_one():
    back = World.from_json(json.loads(json.dumps(WORLD.to_json())))
    again = World.create(SMALL | {"zipf_exponent": 1.0}, seed=3)
    for other in (back, again):
        assert other.to_json() == WORLD.to_json()
        assert np.array_equal(
            other.token_logprobs("three plus four".split()),
            WORLD.token_logprobs("three plus four".split()),
        )
    assert World.create({"people": 12}, seed=4).sentences != WORLD.sentences


def test_the_truth_as_a_model_states_every_fact_as_often_as_it_should():
    table, summary = fact_distribution(WORLD, truth, sentences=500)
    assert table.model_probability.to_numpy() == pytest.approx(WORLD.facts.probability.to_numpy())
    assert table.known.all() and summary["known"] == 1 and summary["false_mass"] == 0
    assert summary["true_mass"] == pytest.approx(0.44) == summary["true_mass_truth"]
    assert summary["distinct_facts"] == pytest.approx(summary["distinct_facts_truth"])
    stated = [band["distinct_facts_truth"] for band in summary["bands"]]
    assert [band["facts"] for band in summary["bands"]] == [12] * 4 and stated == sorted(
        stated, reverse=True
    )
    json.dumps(summary, allow_nan=False)


def test_a_model_that_forgets_a_fact_and_states_a_wrong_one_is_caught():
    fact = WORLD.facts.iloc[0]
    wrong = next(value for value in WORLD.values[fact.attribute] if value != fact.value)
    swap = {fact.value: wrong, wrong: fact.value}

    def model(sequences):
        lying = [
            [swap.get(word, word) if words[0] == fact.person else word for word in words]
            for words in sequences
        ]
        return truth(lying)

    table, summary = fact_distribution(WORLD, model)
    row = table.iloc[0]
    assert (
        not row.known
        and row.model_probability == 0
        and row.false_probability == pytest.approx(fact.probability)
    )
    assert summary["false_mass"] > 0 and summary["true_mass"] < summary["true_mass_truth"]


def test_a_model_without_a_preference_knows_nothing():
    table, summary = fact_distribution(
        WORLD, lambda sequences: [np.full(len(words), -3.0) for words in sequences]
    )
    assert summary["known"] == 0
    row = table[table.attribute == "colour"].iloc[0]
    assert row.model_probability == pytest.approx(
        math.exp(-12)
    ) and row.false_probability == pytest.approx(9 * math.exp(-12))


def test_rarefaction_agrees_with_drawing():
    q, rng = np.array([0.5, 0.1, 0.01, 0.0]), np.random.default_rng(0)
    drawn = [len(set(rng.choice(5, 30, p=[*q, 0.39])) - {4}) for _ in range(4000)]
    assert expected_distinct_facts(q, 30) == pytest.approx(np.mean(drawn), abs=0.03)
    assert expected_distinct_facts(np.array([1.0]), 1) == 1
    assert expected_distinct_facts(np.array([1e-12]), 10) == pytest.approx(1e-11)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mean_sentences": 0.5}, "mean_sentences: 0.5 is out of range; allowed: 1 to inf"),
        ({"objects": 17}, "objects: 17 is out of range; allowed: 2 to 16"),
        ({"exceptions": 0.6}, "exceptions: 0.6 is out of range; allowed: 0 to 0.5"),
        ({"shares": {"social": 0}}, "shares.social: 0 is out of range; allowed: 0.001 to inf"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        World.create(setting, seed=0)


def test_the_likelihood_of_every_prefix_is_the_mass_of_the_sentences_that_begin_with_it():
    rng = np.random.default_rng(0)
    split = [sentence.split() for sentence in WORLD.sentences]
    mass = WORLD.probabilities.tolist()
    for index in rng.choice(len(split), 25, replace=False).tolist():
        logprobs = WORLD.token_logprobs(split[index])
        for length in range(1, len(split[index]) + 1):
            begins = math.fsum(
                p
                for words, p in zip(split, mass, strict=True)
                if words[:length] == split[index][:length]
            )
            assert logprobs[:length].sum() == pytest.approx(math.log(begins), abs=1e-9)


def test_the_largest_world_has_distinct_sentences_and_each_word_in_one_part_of_speech():
    world = World.create(
        {"people": 500, "numbers": 50, "objects": 16, "roles": 10, "exceptions": 0.5}, seed=2
    )
    assert len(set(world.sentences)) == len(world.sentences) == 2000 + 2500 + 1024 + 1600
    assert math.fsum(world.probabilities) == pytest.approx(1, abs=1e-12)
    parts = [
        world.facts.person.unique().tolist(),
        *world.values.values(),
        *(THINGS, HOLDERS, GIVERS, TAKERS, list(EVENTS), list(SIZES), NUMBERS),
        [feeling for pair in EVENTS.values() for feeling in pair],
    ]
    words = [word for part in parts for word in part]
    assert len(set(words)) == len(words) and all(word.isalpha() for word in words)


def test_every_benchmark_has_hundreds_of_questions_on_each_half_by_default():
    for name, questions in World.create({}, seed=1).benchmarks().items():
        asked = sum(question["split"] == "test" for question in questions)
        half = selecting_half(100, name, np.arange(asked))
        assert min(half.sum(), (~half).sum()) >= 200, name


def answers(world: World, benchmark: str) -> dict[str, str]:
    return {
        question["question"]: question["choices"][question["answer"]]
        for question in world.benchmarks()[benchmark]
    }


@pytest.mark.parametrize("benchmark", ["coreference", "social"])
def test_exceptions_break_the_rule_for_a_share_of_the_pairs_and_change_nothing_else(benchmark):
    settings = SMALL | {"shares": OLD_SHARES}
    rule, broken = (
        answers(World.create(settings | {"exceptions": share}, seed=3), benchmark)
        for share in (0, 0.25)
    )
    assert rule.keys() == broken.keys()

    def pair(question: str) -> tuple[str, str]:
        words = question.split()
        return (words[1], words[-3]) if benchmark == "coreference" else (words[-2], words[2])

    cells = {pair(question) for question in rule}
    breaking = {pair(question) for question in rule if rule[question] != broken[question]}
    per_kind = Counter(kind for _, kind in breaking)  # adjective or event
    things = len({thing for thing, _ in cells})
    assert per_kind == {kind: round(0.25 * things) for kind in {kind for _, kind in cells}}
    changed = {question for question in rule if rule[question] != broken[question]}
    assert changed == {question for question in rule if pair(question) in breaking}
    for question in changed:  # the exception is the other of the rule's two candidates
        words = question.split()
        candidates = (words[1], words[7]) if benchmark == "coreference" else EVENTS[words[2]]
        assert {rule[question], broken[question]} == set(candidates)


def test_exceptions_and_shares_leave_facts_and_sums_as_they_are():
    worlds = [World.create(OLD | change, seed=3) for change in ({}, {"exceptions": 0.5})]
    assert worlds[0].facts.equals(worlds[1].facts)
    assert answers(worlds[0], "arithmetic") == answers(worlds[1], "arithmetic")
    assert len(worlds[0].sentences) == len(worlds[1].sentences)


def test_a_kinds_share_of_the_sentences_is_its_weight_over_all_weights():
    shares = {"knowledge": 1, "arithmetic": 1, "coreference": 4, "social": 2}
    world = World.create(SMALL | {"shares": shares}, seed=0)
    mass = {
        name: math.fsum(
            p
            for sentence, p in zip(world.sentences, world.probabilities, strict=True)
            if any(sentence.startswith(question["question"]) for question in questions)
        )
        for name, questions in world.benchmarks().items()
    }
    assert mass == pytest.approx({name: share / 8 for name, share in shares.items()})
    assert world.facts.probability.sum() == pytest.approx(1 / 8)


def test_the_absent_values_of_the_keys_give_the_world_of_earlier_versions_bit_for_bit():
    for settings, seed, digest in (
        ({"people": 12}, 3, "4fe08a958036092442dfdf28421bb6cc00570751683628ad3e2b29616b395bd5"),
        (
            {"people": 48, "mean_sentences": 6},
            7,
            "3f70e1fdfa60f0245000281c5d23fb9c3154cee83265bd6b061c0ecb3bc55bf9",
        ),
    ):
        spec = whole({"kind": "microworld", "zipf_exponent": 1.0, "mean_sentences": 4}, CORPUS)
        world = World.create(spec | settings, seed).to_json()
        text = json.dumps(world, sort_keys=True).encode()
        assert hashlib.sha256(text).hexdigest() == digest
