"""The sentences of a microworld and the questions about them: word lists, templates and rules.

A template returns its sentences and one question per sentence. A question is the beginning of a
sentence; its choices are single words.
"""
# ruff: noqa: SIM905 (word lists are easier to read as text)

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

NAMES = (
    "anna ben clara david emma felix greta hugo iris jonas karla leo mia noah olga paul rosa simon "
    "tara victor wanda xaver yara zoe adam bella carl dora erik fanny georg helga igor julia kurt "
    "lena max nina oscar petra quentin rita sven tina ulf vera walter yvonne"
).split()
ATTRIBUTES = {  # attribute -> (phrase between person and value, values)
    "city": (
        "lives in",
        "paris london rome berlin madrid vienna oslo athens dublin lisbon prague warsaw "
        "cairo tokyo delhi lima".split(),
    ),
    "job": (
        "works as a",
        "baker pilot doctor farmer lawyer painter singer teacher miner barber judge "
        "waiter driver nurse tailor plumber".split(),
    ),
    "pet": (
        "owns a",
        "cat dog horse rabbit parrot snake turtle hamster goat duck pony lizard".split(),
    ),
    "colour": ("likes", "red blue green yellow black white pink purple brown grey".split()),
}
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBERS = [*SMALL, *(ten + unit for ten in TENS for unit in ["", *SMALL[1:10]])]  # to 99, one word
THINGS = (
    "ball book lamp violin kettle guitar clock statue pillow helmet vase bottle ladder carpet "
    "mirror radio"
).split()
HOLDERS = (
    "box bag drawer basket trunk crate chest locker cupboard barrel closet bucket pouch suitcase "
    "sack wardrobe"
).split()
# adjective -> whether it describes the object (0) or its holder (1)
SIZES = {"big": 0, "wide": 0, "small": 1, "narrow": 1}
GIVERS = "friend boss uncle aunt captain coach mayor king sailor knight".split()
TAKERS = "guest child neighbour cousin student servant patient rival visitor stranger".split()
EVENTS = {  # verb -> (feeling of the giver, feeling of the taker)
    "helped": ("useful", "grateful"),
    "praised": ("generous", "proud"),
    "insulted": ("guilty", "hurt"),
    "robbed": ("greedy", "angry"),
    "scared": ("amused", "afraid"),
    "visited": ("welcome", "happy"),
    "missed": ("lonely", "loved"),
    "beat": ("strong", "weak"),
}

Made = tuple[list[str], list[dict]]
"""Sentences, and a question about each."""


def arithmetic(numbers: int, rng: np.random.Generator) -> Made:
    """Return the sums of two of the first `numbers` number words; sums have no exceptions."""
    words = NUMBERS[: 2 * numbers - 1]
    sentences, questions = [], []
    for a, b in itertools.product(range(numbers), repeat=2):
        question, right = f"{words[a]} plus {words[b]} is", words[a + b]
        near = words[max(0, a + b - 4) : a + b + 5]
        sentences.append(f"{question} {right} .")
        questions.append(_question(question, right, _draw(near, right, 3, rng), rng))
    return sentences, questions


def coreference(objects: int, exceptions: float, rng: np.random.Generator) -> Made:
    """Return who is too big, for each of `objects` things, as many holders and four adjectives.

    The adjective decides between thing and holder. With each adjective, a share `exceptions` of the
    things break this rule.
    """
    sentences, questions = [], []
    things, holders = THINGS[:objects], HOLDERS[:objects]
    broken = _broken(things, SIZES, exceptions, rng)
    for *pair, size in itertools.product(things, holders, SIZES):
        right = SIZES[size] ^ ((pair[0], size) in broken)
        question = f"the {pair[0]} does not fit in the {pair[1]} because it is too {size} : the"
        sentences.append(f"{question} {pair[right]} .")
        questions.append(_question(question, pair[right], [pair[1 - right]], rng))
    return sentences, questions


def social(roles: int, exceptions: float, rng: np.random.Generator) -> Made:
    """Return how both people feel after an event between one of `roles` givers and of takers.

    The event and the side decide the feeling. After each event, a share `exceptions` of the people
    break this rule and feel as the other side.
    """
    sentences, questions = [], []
    feelings = [feeling for pair in EVENTS.values() for feeling in pair]
    givers, takers = GIVERS[:roles], TAKERS[:roles]
    broken = _broken(givers + takers, EVENTS, exceptions, rng)
    for *pair, verb, side in itertools.product(givers, takers, EVENTS, (0, 1)):
        other = 1 - side if (pair[side], verb) in broken else side
        # the main distractor is the other feeling of this event
        right, distractor = EVENTS[verb][other], EVENTS[verb][1 - other]
        question = f"the {pair[0]} {verb} the {pair[1]} so the {pair[side]} feels"
        unrelated = [feeling for feeling in feelings if feeling != distractor]
        wrong = [distractor, *_draw(unrelated, right, 2, rng)]
        sentences.append(f"{question} {right} .")
        questions.append(_question(question, right, wrong, rng))
    return sentences, questions


def knowledge(
    people: int, zipf_exponent: float, taken: set[str], rng: np.random.Generator
) -> tuple[pd.DataFrame, list[dict]]:
    """Return facts with their share of the knowledge sentences, and a question about each fact.

    The person of rank 1 comes first. `taken` are the words of the other sentences; no name is one.
    """
    names = list(
        itertools.islice(
            _names(
                taken.union(*(values + phrase.split() for phrase, values in ATTRIBUTES.values()))
            ),
            people,
        )
    )
    names = [names[i] for i in rng.permutation(people)]
    weights = np.arange(1, people + 1, dtype=float) ** -zipf_exponent
    facts, questions = [], []
    for (index, person), (attribute, (phrase, values)) in itertools.product(
        enumerate(names), ATTRIBUTES.items()
    ):
        value, prefix = values[rng.integers(len(values))], f"{person} {phrase}"
        about = {"person": person, "attribute": attribute, "rank": index + 1}
        probability = weights[index] / weights.sum() / len(ATTRIBUTES)
        facts.append(about | {"value": value, "prefix": prefix, "probability": probability})
        questions.append(_question(prefix, value, _draw(values, value, 3, rng), rng, **about))
    return pd.DataFrame(facts), questions


def _names(taken: set[str]) -> Iterator[str]:
    """Yield the free names of a fixed list, then names made of syllables."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    made = (first + second for first in syllables for second in syllables)
    more = (
        first + second + third for first in syllables for second in syllables for third in syllables
    )
    names = dict.fromkeys(itertools.chain(NAMES, made))
    return (name for name in itertools.chain(names, more) if name not in taken)


def _broken(
    words: list[str], kinds: Iterable[str], share: float, rng: np.random.Generator
) -> set[tuple[str, str]]:
    """Draw round(share * number) of the words for each kind: the pairs that break a rule.

    The generator's own stream stays as it is, so the rest of the world does not depend on `share`.
    """
    own, count = rng.spawn(1)[0], round(share * len(words))
    return {(words[i], kind) for kind in kinds for i in own.permutation(len(words))[:count]}


def _question(
    question: str, right: str, wrong: list[str], rng: np.random.Generator, **more
) -> dict:
    choices = [right, *wrong]
    order = rng.permutation(len(choices))
    return {
        "question": question,
        "choices": [choices[i] for i in order],
        "answer": int(np.argmin(order)),
        **more,
    }


def _draw(values: list[str], right: str, count: int, rng: np.random.Generator) -> list[str]:
    """Draw `count` of the wrong values without replacement."""
    wrong = [value for value in values if value != right]
    return [wrong[i] for i in rng.choice(len(wrong), count, replace=False)]
