"""Measure the distance of a text or a model from the grammar of a microworld (docs/quality.md).

Text and model become next-word distributions at the nodes of the grammar's trie, and so
distributions over its sentences. A node is a prefix of a sentence; an edge is a node with its next
word. Shapes: S sentences, E edges, V nodes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pollination.data.microworld import Score, World

DRAWS = 40  # samples of the truth that estimate a floor


@dataclass
class Counts:
    """Counts of next words in a text: allowed words `edges` (E,), forbidden ones `outside` (V,)."""

    edges: np.ndarray
    outside: np.ndarray

    def __add__(self, counts: "Counts") -> "Counts":
        return Counts(self.edges + counts.edges, self.outside + counts.outside)

    def __rmul__(self, factor: float) -> "Counts":
        return Counts(factor * self.edges, factor * self.outside)


class Grammar:
    """The trie of a world's sentences, as arrays."""

    def __init__(self, world: World) -> None:
        # node -> word -> edge; every sentence begins at node 0
        self.children: list[dict[str, int]] = [{}]
        self.p_S = world.probabilities
        # edge -> its next node, None at the end of a sentence
        self.to: list[int | None] = []
        node_E: list[int] = []
        path_S: list[int] = []
        self.starts: list[int] = []
        for sentence in world.sentences:
            self.starts.append(len(path_S))
            node: Any = 0  # None after the last word only
            words = sentence.split()
            for index, word in enumerate(words):
                if word not in self.children[node]:
                    self.children[node][word] = len(node_E)
                    node_E.append(node)
                    self.to.append(len(self.children) if index + 1 < len(words) else None)
                    if self.to[-1] is not None:
                        self.children.append({})
                edge = self.children[node][word]
                path_S.append(edge)
                node = self.to[edge]
        self.node_E = np.array(node_E)
        self.path = np.array(path_S)  # the edges of all sentences, concatenated
        self.lengths = np.diff([*self.starts, len(path_S)])
        mass_E = self._edges(self.p_S)
        self.mass_V = np.bincount(self.node_E, mass_E)  # probability that a sentence passes a node
        self.p_E = mass_E / self.mass_V[self.node_E]

    def _edges(self, sentences: np.ndarray) -> np.ndarray:
        """Return (E,): counts or probabilities of edges from those of sentences (S,)."""
        return np.bincount(self.path, np.repeat(sentences, self.lengths), len(self.node_E))

    def read(self, texts: Iterable[tuple[list[str], int, bool]], eos: str) -> Counts:
        """Count the next words at each node in `texts`.

        A text is (words, index of the first word that counts, whether it begins with a sentence).
        A forbidden word counts at its node; reading resumes after the next full stop or eos. The
        end of a text does not count, because the next word is unknown. An eos between sentences
        does not count either.
        """
        edges, outside = np.zeros(len(self.node_E)), np.zeros(len(self.children))
        for words, first, known in texts:
            node = 0 if known else None
            for index, word in enumerate(words):
                edge = self.children[node].get(word) if node is not None else None
                if word == eos:
                    if node and index >= first:
                        outside[node] += 1
                    node = 0
                elif edge is not None:
                    edges[edge] += index >= first
                    node = 0 if self.to[edge] is None else self.to[edge]
                else:
                    if node is not None and index >= first:
                        outside[node] += 1
                    node = 0 if word == "." else None
        return Counts(edges, outside)

    def of_text(self, counts: Counts) -> np.ndarray:
        """Return (E,): the share of each word at its node; NaN at nodes that no text reaches.

        The product of shares along a sentence estimates its probability without bias, even if texts
        are cut anywhere (the product-limit estimator, Kaplan & Meier 1958). Counts of whole
        sentences would miss long sentences.
        """
        total_V = np.bincount(self.node_E, counts.edges, len(self.children)) + counts.outside
        with np.errstate(invalid="ignore"):
            return counts.edges / total_V[self.node_E]

    def of_model(self, score: Score) -> np.ndarray:
        """Return (E,): a model's exact probability of each word at its node, after eos."""
        q_E = np.empty(len(self.node_E))
        word = {edge: word for children in self.children for word, edge in children.items()}
        sentences = [
            [word[edge] for edge in self.path[a : a + n]]
            for a, n in zip(self.starts, self.lengths, strict=True)
        ]
        q_E[self.path] = np.exp(np.concatenate([np.minimum(row, 0.0) for row in score(sentences)]))
        return q_E

    def distances(self, q_E: np.ndarray) -> dict[str, float]:
        """Return the total variation (0 to 1) of next-word distributions (E,) from the truth.

        sentences: between distributions over sentences. If every text that reached a node was cut
        there, its next words are unknown (NaN), and the truth replaces the estimate. next_token:
        between distributions over the next word, as a mean over nodes, weighted by the truth's
        probability of passing them; an unknown node counts as 1. outside: the probability of
        sentences that the grammar does not have.
        """
        known_E, q_E = np.nan_to_num(q_E), np.where(np.isnan(q_E), self.p_E, q_E)
        with np.errstate(divide="ignore"):
            q_S = np.exp(np.add.reduceat(np.log(q_E)[self.path], self.starts))
        outside = max(0.0, 1 - q_S.sum())
        count = len(self.children)
        on_edges_V = np.bincount(self.node_E, np.abs(known_E - self.p_E), count)
        differ_V = on_edges_V + 1 - np.bincount(self.node_E, known_E, count)
        return {
            "sentences": float((np.abs(q_S - self.p_S).sum() + outside) / 2),
            "next_token": float(differ_V @ self.mass_V / self.mass_V.sum() / 2),
            "outside": float(outside),
        }

    def floor(self, sentences: int, seed: int) -> dict[str, tuple[float, float]]:
        """Return (mean, standard deviation) of the distances of `sentences` true sentences."""
        rng, zero = np.random.default_rng(seed), np.zeros(len(self.children))
        drawn = rng.multinomial(sentences, self.p_S, DRAWS)
        draws = [
            self.distances(self.of_text(Counts(self._edges(counts), zero))) for counts in drawn
        ]
        values = {key: [draw[key] for draw in draws] for key in draws[0]}
        return {key: (float(np.mean(v)), float(np.std(v, ddof=1))) for key, v in values.items()}
