"""Fingerprints as matrices, models by features: Jaccard similarity, influence and its expectation.

Sizes and popularity alone give the expected influence. Shapes: M models, F features. A feature is a
word, a bigram or a trigram; equal text of another kind is another feature.
"""

from dataclasses import dataclass

import numpy as np

KINDS = {"words": "top_repetitive_words", "bigrams": "top_bigrams", "trigrams": "top_trigrams"}
JACCARD = (0.0, 1.0)  # least and largest Jaccard index


@dataclass(frozen=True)
class Features:
    """Fingerprints of M models.

    `weights` (M, F): salience of a feature in a model's fingerprint, 0 if absent. `kinds` (F,):
    index into KINDS.
    """

    models: list[str]
    weights: np.ndarray
    kinds: np.ndarray

    @property
    def present(self) -> np.ndarray:
        return self.weights > 0

    def of(self, kind: str) -> "Features":
        """Return the features of one kind, or of 'all'."""
        if kind == "all":
            chosen = np.ones(len(self.kinds), dtype=bool)
        else:
            chosen = self.kinds == list(KINDS).index(kind)
        return Features(self.models, self.weights[:, chosen], self.kinds[chosen])


def features(
    fingerprints: dict[str, dict], salience: str = "balanced", unknown_words: bool = False
) -> Features:
    """Return the matrices of model -> fingerprint.

    `salience` of a feature: its score or frequency ('raw'), its share of its kind in this
    fingerprint ('balanced': words, bigrams and trigrams have equal weight), or 1 ('uniform').
    """
    columns: dict[tuple[int, str], int] = {}
    entries = []  # model, column, weight
    for row, fingerprint in enumerate(fingerprints.values()):
        for kind, key in enumerate(KINDS.values()):
            weights = {
                entry.get("word", entry.get("ngram")): entry.get("score", entry.get("frequency"))
                for entry in fingerprint[key]
            }
            if kind == 0 and unknown_words:
                # as the toolkit scores words: against a frequency of 1e-12
                weights |= {
                    entry["word"]: entry["corpus_freq"] / 1e-12
                    for entry in fingerprint.get("zero_frequency_words", [])
                }
            total = sum(weights.values())
            for text, weight in weights.items():
                column = columns.setdefault((kind, text), len(columns))
                saliences = {"raw": weight, "balanced": weight / total, "uniform": 1.0}
                entries.append((row, column, saliences[salience]))
    matrix = np.zeros((len(fingerprints), len(columns)))
    if entries:
        rows, places, values = zip(*entries, strict=True)
        matrix[list(rows), list(places)] = values
    return Features(list(fingerprints), matrix, np.array([kind for kind, _ in columns], dtype=int))


def jaccard(present: np.ndarray) -> np.ndarray:
    """Return (M, M): shared features over features of either; NaN for two empty fingerprints."""
    present = present.astype(float)
    shared, sizes = present @ present.T, present.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return shared / (sizes[:, None] + sizes - shared)


def influence(weights: np.ndarray) -> np.ndarray:
    """Return (M, M): I(A -> B), A in rows, the share of A's salience on B's features (A, eq. 1)."""
    with np.errstate(invalid="ignore"):
        return weights @ (weights > 0).T / weights.sum(axis=1)[:, None]


def expected_influence(fingerprints: Features) -> np.ndarray:
    """Return (M, M): expected I(A -> B) if models had random features with the same margins.

    Each model keeps its number of features, and each feature its number of models. For each kind,
    P(B has f) = x_B y_f / (1 + x_B y_f), the maximum-entropy law with these margins (a bipartite
    configuration model). A has f, so the other models share one owner fewer; y_f is solved for
    that. Features differ only by their number of owners.
    """
    models = len(fingerprints.models)
    total = np.zeros((models, models))
    for kind in KINDS:
        part = fingerprints.of(kind)
        owners = part.present.sum(axis=0)  # (F,)
        if not len(owners):
            continue
        # (A, owners): A's salience by number of owners
        mass = np.stack([np.bincount(owners, row, minlength=models + 1) for row in part.weights])
        size = _model_factors(part.present.sum(axis=1), np.bincount(owners, minlength=models + 1))
        total += np.einsum("ao,oab->ab", mass[:, 1:], _chances(size))
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / fingerprints.weights.sum(axis=1)[:, None]


def _model_factors(
    sizes: np.ndarray, features_by_owners: np.ndarray, rounds: int = 2000
) -> np.ndarray:
    """Return x (M,) that fits the model sizes, by alternating between x and y.

    `features_by_owners`: how many features have 0, 1, ... M owners.
    """
    models = len(sizes)
    owners = np.arange(1, models)  # a feature of all models has no information about sizes
    counts, sizes = features_by_owners[1:models], sizes - features_by_owners[models]
    root = np.sqrt(max(1, sizes.sum()))
    x, y = np.maximum(sizes, 1e-9) / root, owners / root
    for _ in range(rounds):
        before = x
        x = sizes / np.maximum((counts * y / (1 + np.outer(x, y))).sum(axis=1), 1e-300)
        y = owners / np.maximum((x[:, None] / (1 + np.outer(x, y))).sum(axis=0), 1e-300)
        if np.allclose(x, before, rtol=1e-8, atol=0):
            break
    return x


def _chances(x: np.ndarray) -> np.ndarray:
    """Return (owners 1..M, A, B): the probability that B has a feature of A with that many owners.

    The other M - 1 models share owners - 1 of them.
    """
    models = len(x)
    different = ~np.eye(models, dtype=bool)
    target = np.arange(models)[:, None, None]  # owners - 1
    # log y, for every (owners, A)
    low, high = np.full((models, models, 1), -60.0), np.full((models, models, 1), 60.0)
    logs = np.log(np.maximum(x, 1e-300))
    for _ in range(60):
        middle = (low + high) / 2
        chance = np.where(different, 1 / (1 + np.exp(-np.clip(logs + middle, -700, 700))), 0.0)
        below = chance.sum(axis=2, keepdims=True) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return chance + np.eye(models)


def family_matrix(
    similarity: np.ndarray, families: list[str], normalise: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return (names, mean similarity of two different models by family, the same normalised).

    Each row is divided by its sum, maximum or diagonal. A family of one model has no similarity
    within: NaN, which sums and maxima leave out.
    """
    names = sorted(set(families))
    index = np.array([names.index(family) for family in families])
    different = ~np.eye(len(families), dtype=bool)
    means = np.full((len(names), len(names)), np.nan)
    for a in range(len(names)):
        for b in range(len(names)):
            pairs = different & (index == a)[:, None] & (index == b)
            if pairs.any():
                means[a, b] = similarity[pairs].mean()
    scale = {
        "sum": np.nansum(means, axis=1),
        "maximum": np.nanmax(means, axis=1),
        "diagonal": np.diag(means),
    }[normalise]
    with np.errstate(invalid="ignore", divide="ignore"):
        return names, means, means / scale[:, None]
