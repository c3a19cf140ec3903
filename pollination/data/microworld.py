"""A small world whose truth is known: a finite grammar that writes text, and its benchmarks.

A document is a sequence of independent sentences. After each sentence, the document ends with
probability 1 / mean_sentences. The grammar has finitely many sentences, so it is a table of
(sentence, probability). A trie over the table gives the exact log-probability of every token.
There are four kinds of sentence (sentences.py), each with a benchmark:

    knowledge     anna lives in paris .     people by Zipf's law, four attributes each
    arithmetic    three plus four is seven .
    coreference   the ball does not fit in the box because it is too big : the ball .
    social        the friend helped the guest so the guest feels grateful .

Coreference and social follow a rule that has exceptions. They keep a benchmark from being all or
nothing: a model learns the rule at once, and the exceptions one by one.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from pollination.core.settings import definition, with_defaults
from pollination.data.sentences import ATTRIBUTES, arithmetic, coreference, knowledge, social

NUMERIC = "people zipf_exponent numbers objects roles exceptions mean_sentences"
DEV_QUESTIONS = 8
BANDS = 4
SENTENCES = 10_000  # default length of the text in which distinct facts are counted

Score = Callable[[list[list[str]]], list[np.ndarray]]


@dataclass(frozen=True)
class World:
    """A grammar: sentences with probabilities, the facts that they state, and questions.

    `facts` has person, attribute, value, rank (of the person, 1 = mentioned most), prefix (the
    sentence up to its value) and probability (of the fact's sentence among all sentences).
    `values` maps an attribute to all its possible values.
    """

    mean_sentences: float
    sentences: list[str]
    probabilities: np.ndarray
    facts: pd.DataFrame
    values: dict[str, list[str]]
    questions: dict[str, list[dict]]

    @classmethod
    def create(cls, settings: dict, seed: int) -> "World":
        """Create a world from a config's entry of `corpora`; missing keys have their defaults.

        ValueError: a setting is out of range.
        """
        given = with_defaults(settings, definition("corpus"))
        _check(given)
        total = math.fsum(given["shares"].values())
        shares = {name: share / total for name, share in given["shares"].items()}
        rng = np.random.default_rng(seed)
        sentences, probabilities, questions = [], [], {}
        for name, template in (
            ("arithmetic", partial(arithmetic, given["numbers"])),
            ("coreference", partial(coreference, given["objects"], given["exceptions"])),
            ("social", partial(social, given["roles"], given["exceptions"])),
        ):
            made, questions[name] = template(rng)
            sentences += made
            probabilities += [shares[name] / len(made)] * len(made)
        taken = {word for sentence in sentences for word in sentence.split()}
        facts, questions["knowledge"] = knowledge(
            given["people"], given["zipf_exponent"], taken, rng
        )
        facts["probability"] *= shares["knowledge"]
        sentences += (facts.prefix + " " + facts.value + " .").tolist()
        probabilities += facts.probability.tolist()
        for asked in questions.values():
            dev = set(rng.permutation(len(asked))[: min(DEV_QUESTIONS, len(asked) // 2)].tolist())
            for index, question in enumerate(asked):
                question["split"] = "dev" if index in dev else "test"
        values = {attribute: values for attribute, (_, values) in ATTRIBUTES.items()}
        p = np.array(probabilities) / math.fsum(probabilities)
        return cls(given["mean_sentences"], sentences, p, facts, values, questions)

    def to_json(self) -> dict:
        """Return the world as plain values for `from_json`."""
        return {
            "mean_sentences": self.mean_sentences,
            "sentences": self.sentences,
            "probabilities": self.probabilities.tolist(),
            "facts": self.facts.to_dict("list"),
            "values": self.values,
            "questions": self.questions,
        }

    @classmethod
    def from_json(cls, value: dict) -> "World":
        """Return the world that `to_json` described, equal to the last bit."""
        tables = {
            "probabilities": np.array(value["probabilities"]),
            "facts": pd.DataFrame(value["facts"]),
        }
        return cls(**(value | tables))

    def benchmarks(self) -> dict[str, list[dict]]:
        """Map each benchmark to rows of question, choices, answer (index), split ("dev" or "test").

        The benchmarks are knowledge, arithmetic, coreference and social. A question is the
        beginning of a sentence. A choice is the single word that comes next. Knowledge asks for
        every fact once, also for rare people. Its rows also have person, attribute and rank.
        """
        return self.questions

    @cached_property
    def vocabulary(self) -> list[str]:
        """All words, sorted. Values that nobody has are included, because questions offer them."""
        stated = {word for sentence in self.sentences for word in sentence.split()}
        return sorted(stated.union(*self.values.values()))

    @property
    def entropy_per_token(self) -> float:
        """Entropy of a document in nats per token, with eos: a lower bound of any model's loss."""
        mean, p = self.mean_sentences, self.probabilities[self.probabilities > 0]
        end = 1 / mean
        decision = -(end * math.log(end) + (1 - end) * math.log1p(-end)) if mean > 1 else 0.0
        words = np.array([len(sentence.split()) for sentence in self.sentences])
        return (mean * (-(p @ np.log(p)) + decision)) / (mean * (self.probabilities @ words) + 1)

    def sample_documents(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draw `count` documents: words joined by single spaces, without eos."""
        lengths = rng.geometric(1 / self.mean_sentences, count)
        chosen = iter(rng.choice(len(self.sentences), lengths.sum(), p=self.probabilities).tolist())
        return [
            " ".join(self.sentences[i] for i in itertools.islice(chosen, length))
            for length in lengths.tolist()
        ]

    @cached_property
    def _trie(self) -> dict:
        """Word -> [log-probability given the words before, trie of next words (empty: the end)]."""
        root: dict = {}
        for sentence, probability in zip(self.sentences, self.probabilities.tolist(), strict=True):
            node = root
            for word in sentence.split():
                entry = node.setdefault(word, [0.0, {}])
                entry[0] += probability
                node = entry[1]
        pending = [(root, 1.0)]
        while pending:
            node, mass = pending.pop()
            for entry in node.values():
                pending.append((entry[1], entry[0]))
                entry[0] = math.log(entry[0] / mass) if entry[0] > 0 else -math.inf
        return root

    def token_logprobs(self, words: list[str]) -> np.ndarray:
        """Return the exact log-probability (nats) of each word, then of eos: (words + 1,).

        Each is conditional on the words before. It is -inf from the first word that the grammar
        does not allow, and for an eos inside a sentence or at the start.
        """
        logprobs = np.full(len(words) + 1, -math.inf)
        go_on = math.log1p(-1 / self.mean_sentences) if self.mean_sentences > 1 else -math.inf
        node, ended = self._trie, False
        for index, word in enumerate(words):
            if word not in node:
                return logprobs
            logprob, following = node[word]
            logprobs[index] = logprob + (go_on if ended else 0.0)
            ended = not following
            node = following or self._trie
        if ended:
            logprobs[-1] = -math.log(self.mean_sentences)
        return logprobs


def _check(settings: dict) -> None:
    """Refuse a setting outside the schema's range."""
    keys, kinds = definition("corpus")["properties"], definition("shares")["properties"]
    nodes = {key: (settings[key], keys[key]) for key in NUMERIC.split()}
    nodes |= {f"shares.{kind}": (settings["shares"][kind], kinds[kind]) for kind in kinds}
    for key, (value, node) in nodes.items():
        least, most = node["minimum"], node.get("maximum", math.inf)
        if not least <= value <= most:
            raise ValueError(f"{key}: {value!r} is out of range; allowed: {least} to {most}")


def expected_distinct_facts(probabilities: np.ndarray, sentences: int) -> float:
    """Return the mean number of distinct facts in n independent sentences: sum of 1 - (1 - q)^n.

    n is `sentences`. `probabilities` (F,) are q: the probability that a sentence states the fact.
    The sum is known as rarefaction.
    """
    q = np.clip(probabilities, 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return float(-np.expm1(sentences * np.log1p(-q)).sum())


def fact_distribution(
    world: World, score: Score, sentences: int = SENTENCES
) -> tuple[pd.DataFrame, dict]:
    """Compare the first sentence that a model writes with the truth, fact by fact.

    `score` takes word sequences. For each it returns the log-probabilities (nats) of its words,
    given eos and the words before.

    The table has one row per fact: person, attribute, value, rank, band (0 = the quarter of the
    people mentioned most ... 3 = least), truth_probability and model_probability (of the fact's
    sentence), false_probability (of the same sentence with any wrong value), known (the right value
    is the likeliest of the attribute's values). The summary covers all facts and each band: the
    mass of true and of false facts, the share of known facts, and the distinct facts expected in
    `sentences` such sentences. It gives them for the truth and for the model.
    """
    facts = world.facts
    options = [world.values[attribute] for attribute in facts.attribute]
    asked = [
        f"{prefix} {value} .".split()
        for prefix, values in zip(facts.prefix, options, strict=True)
        for value in values
    ]
    scored = iter(score(asked))
    rows = []
    for prefix, right, values in zip(facts.prefix, facts.value, options, strict=True):
        logprobs = [np.asarray(next(scored), dtype=float) for _ in values]
        stated = dict(zip(values, (math.exp(min(x.sum(), 0.0)) for x in logprobs), strict=True))
        said = dict(zip(values, (x[len(prefix.split())] for x in logprobs), strict=True))
        true, best_wrong = stated.pop(right), max(said[value] for value in values if value != right)
        rows.append((true, math.fsum(stated.values()), bool(said[right] > best_wrong)))
    table = facts[["person", "attribute", "value", "rank"]].copy()
    table["band"] = (facts["rank"] - 1) * BANDS // facts["rank"].max()
    table["truth_probability"] = facts.probability
    table[["model_probability", "false_probability"]] = [row[:2] for row in rows]
    table["known"] = [row[2] for row in rows]

    def summary(part: pd.DataFrame) -> dict:
        truth, model = part.truth_probability.to_numpy(), part.model_probability.to_numpy()
        return {
            "facts": len(part),
            "known": float(part.known.mean()),
            "true_mass": float(model.sum()),
            "true_mass_truth": float(truth.sum()),
            "false_mass": float(part.false_probability.sum()),
            "distinct_facts": expected_distinct_facts(model, sentences),
            "distinct_facts_truth": expected_distinct_facts(truth, sentences),
        }

    bands = [{"band": int(band)} | summary(part) for band, part in table.groupby("band")]
    return table, summary(table) | {"sentences": sentences, "bands": bands}
