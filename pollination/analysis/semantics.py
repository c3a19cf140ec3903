"""Diversity of texts: spread, Vendi score, distinct n-grams, self-BLEU, and a t-SNE map.

docs/semantics.md explains the measures. Shapes: M models, P prompts, D dimensions, N texts.
Embeddings are unit vectors; a distance is 1 - cosine. Intervals describe the choice of prompts: the
jackknife leaves out each prompt in turn. A bootstrap would draw a prompt twice and count the copy
as a lack of diversity.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd

from pollination.core.seeds import derive_seed
from pollination.core.statistics import jackknife_interval
from pollination.data.words import tokenize

COLUMNS = (
    "group",
    "against",
    "generation",
    "scope",
    "measure",
    "models",
    "prompts",
    "value",
    "low",
    "high",
    "stderr",
)
SUBSETS = 20  # maximum number of draws of k of N models
NGRAMS = (1, 2, 3)


class Texts(NamedTuple):
    """Texts of M models for the same P prompts."""

    unit_MPD: np.ndarray
    tokens_MP: list[list[list[str]]]

    def of(self, models: Sequence[int]) -> "Texts":
        return Texts(self.unit_MPD[list(models)], [self.tokens_MP[m] for m in models])


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Return each vector scaled to length 1; a vector of length 0 stays."""
    vectors_ND = np.asarray(vectors_ND, dtype=float)
    lengths = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
    return vectors_ND / np.where(lengths > 0, lengths, 1.0)


def spread(unit_ND: np.ndarray) -> float:
    """Return the mean distance of texts to their centroid."""
    return float(1 - (unit_ND @ unit(unit_ND.mean(axis=0))).mean())


def pairwise(unit_ND: np.ndarray) -> float:
    """Return the mean distance of two texts; its expectation does not depend on N."""
    n = len(unit_ND)
    return float(1 - ((unit_ND.sum(axis=0) ** 2).sum() - (unit_ND**2).sum()) / (n * (n - 1)))


def vendi(unit_ND: np.ndarray) -> float:
    """Return the Vendi score (Friedman and Dieng 2023); 1: identical texts, N: unrelated texts.

    It is exp of the entropy of the eigenvalues of K / N, where K is the cosine kernel.
    """
    n, d = unit_ND.shape
    # both products have the same eigenvalues, except for zeros
    kernel = unit_ND @ unit_ND.T if n <= d else unit_ND.T @ unit_ND
    values = np.linalg.eigvalsh(kernel / n)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def ngrams(tokens: Sequence[str], n: int) -> list[tuple]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return the share of distinct n-grams (Li et al. 2016); NaN if there are no n-grams."""
    grams = [gram for tokens in texts for gram in ngrams(tokens, n)]
    return _share(len(set(grams)), len(grams))


def _share(kinds: int, grams: int) -> float:
    return kinds / grams if grams else float("nan")


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Return the mean BLEU-4 of each text against the others (Zhu et al. 2018); 1: identical.

    NLTK's method 1 smooths it. A text shorter than 4 tokens counts only the orders that it has.
    Empty texts are left out; NaN if fewer than two remain.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    texts, smooth = [text for text in texts if text], SmoothingFunction().method1
    if len(texts) < 2:
        return float("nan")
    scores = [
        sentence_bleu(
            texts[:i] + texts[i + 1 :], text, smoothing_function=smooth, auto_reweigh=True
        )
        for i, text in enumerate(texts)
    ]
    return float(np.mean(scores))


def within_prompts(texts: Texts) -> dict[str, np.ndarray]:
    """Return measure -> one value per prompt: how much the texts of M >= 2 models differ."""
    prompts = range(texts.unit_MPD.shape[1])
    values = {
        measure.__name__: np.array([measure(texts.unit_MPD[:, p]) for p in prompts])
        for measure in (spread, pairwise, vendi)
    }
    tokens_PM = [[tokens_P[p] for tokens_P in texts.tokens_MP] for p in prompts]
    values["self_bleu"] = np.array([self_bleu(tokens_M) for tokens_M in tokens_PM])
    for n in NGRAMS:
        values[f"distinct_{n}"] = np.array([distinct(tokens_M, n) for tokens_M in tokens_PM])
    return values


def over_prompts(texts: Texts) -> dict[str, tuple[float, np.ndarray]]:
    """Return measure -> (value, values without each prompt), over all texts together.

    The measures are between (the distance of texts to different prompts), vendi and distinct_n.
    With two prompts, the values without each are NaN, because one prompt is not a sample.
    """
    models, prompts, _ = texts.unit_MPD.shape
    alone_PD = texts.unit_MPD.sum(axis=0)
    dots_PP = alone_PD @ alone_PD.T / models**2
    np.fill_diagonal(dots_PP, 0.0)
    whole, rows = dots_PP.sum(), dots_PP.sum(axis=1)
    left = 1 - (whole - 2 * rows) / max(1, (prompts - 1) * (prompts - 2))
    values = {"between": (float(1 - whole / (prompts * (prompts - 1))), left)}

    def vendi_of(chosen: np.ndarray) -> float:
        return vendi(texts.unit_MPD[:, chosen].reshape(models * len(chosen), -1))

    every = np.arange(prompts)
    left = np.array([vendi_of(np.delete(every, p)) for p in every])
    values["vendi"] = vendi_of(every), left
    for n in NGRAMS:
        grams_P = [
            Counter(gram for tokens_P in texts.tokens_MP for gram in ngrams(tokens_P[p], n))
            for p in range(prompts)
        ]
        prompts_with = Counter(gram for grams in grams_P for gram in grams)
        kinds, total = len(prompts_with), sum(map(Counter.total, grams_P))
        # n-grams that no other prompt has
        own_P = [sum(prompts_with[gram] == 1 for gram in grams) for grams in grams_P]
        left = [
            _share(kinds - own, total - grams.total())
            for own, grams in zip(own_P, grams_P, strict=True)
        ]
        values[f"distinct_{n}"] = _share(kinds, total), np.array(left)
    if prompts > 2:
        return values
    return {measure: (value, np.full(prompts, np.nan)) for measure, (value, _) in values.items()}


def subsets(size: int, k: int, seed: int) -> list[tuple[int, ...]]:
    """Return all choices of k of `size` models, or SUBSETS different random choices."""
    if comb(size, k) <= SUBSETS:
        return list(combinations(range(size), k))
    generator = np.random.default_rng(seed)
    chosen: dict[tuple[int, ...], None] = {}
    while len(chosen) < SUBSETS:
        chosen[tuple(sorted(generator.choice(size, k, replace=False).tolist()))] = None
    return list(chosen)


def measures(
    texts: Texts, counts: Sequence[int], seed: int
) -> dict[tuple[str, str, int], tuple[float, np.ndarray]]:
    """Return (scope, measure, models) -> (value, values without each prompt).

    Scopes: `model`, the texts of one model for all prompts (mean over models); `prompt`, the texts
    of k models for one prompt (mean over prompts); `all`, the texts of k models for all prompts. A
    count below M gives the mean over subsets; a count above M is left out.
    """
    size = len(texts.unit_MPD)
    alone = [over_prompts(texts.of([m])) for m in range(size)]
    values = {("model", measure, 1): _mean_of(alone, measure) for measure in alone[0]}
    for k in sorted({count for count in counts if 2 <= count <= size}):
        drawn = subsets(size, k, derive_seed(seed, "models", size, k))
        chosen = [texts.of(models) for models in drawn]
        within = [within_prompts(subset) for subset in chosen]
        for measure in within[0]:
            mean_P = np.mean([subset[measure] for subset in within], axis=0)
            values["prompt", measure, k] = _jackknifed(mean_P)
        over = [over_prompts(subset) for subset in chosen]
        values |= {("all", measure, k): _mean_of(over, measure) for measure in over[0]}
    return values


def _mean_of(parts: list[dict], key: Hashable) -> tuple[float, np.ndarray]:
    """Return the mean of `key` over models, subsets or replicates; missing values are left out."""
    values, lefts = zip(*(part[key] for part in parts), strict=True)
    value = np.ma.masked_invalid(values).mean(axis=0)
    left = np.ma.masked_invalid(lefts).mean(axis=0).filled(np.nan)
    return float("nan") if value is np.ma.masked else float(value), left


def _jackknifed(values_P: np.ndarray) -> tuple[float, np.ndarray]:
    """Return (mean, means without each prompt); a prompt without a value changes nothing."""
    known = ~np.isnan(values_P)
    if known.sum() < 2:
        value = float(values_P[known].sum()) if known.any() else float("nan")
        return value, np.full(len(values_P), np.nan)
    value = float(values_P[known].mean())
    return value, np.where(known, (values_P[known].sum() - values_P) / (known.sum() - 1), value)


def read_texts(table: pd.DataFrame) -> tuple[dict[str, Texts], list[str]]:
    """Return (model -> its texts for the prompts that all models share, those prompts).

    ValueError: the models share fewer than two prompts.
    """
    asked = [dict.fromkeys(part.prompt_id) for _, part in table.groupby("model", sort=False)]
    prompts = [prompt for prompt in asked[0] if all(prompt in of_model for of_model in asked)]
    if len(prompts) < 2:
        raise ValueError(
            f"evaluate.semantics: the {len(asked)} models share {len(prompts)} prompts but need at "
            "least two; name one corpus of prompts for all (evaluate.samples.corpus), or raise "
            "evaluate.samples.num_prompts"
        )
    texts = {}
    for model, part in table.groupby("model", sort=False):
        part = part.drop_duplicates("prompt_id").set_index("prompt_id").loc[prompts]
        tokens_MP = [[tokenize(text) for text in part.completion]]
        texts[model] = Texts(unit(np.stack(part.embedding))[None], tokens_MP)
    return texts, prompts


def compare(table: pd.DataFrame, groups: list[dict], seed: int) -> pd.DataFrame:
    """Measure a run: COLUMNS, one row per group, generation, scope, measure and model count.

    A row describes a group alone, or against a line. `table`: experiment, generation, member,
    model, prompt_id, completion, embedding. `groups`: {group, experiments, population}. Experiments
    with a population of 1 are replicates of a single line; they are pooled as independent lines.
    Other replicates are measured one by one and averaged. Two counts of models are measured: all,
    and the smallest of any group with two or more, so that groups compare at equal counts.
    """
    texts, _ = read_texts(table)
    places = table.groupby(["experiment", "generation"], sort=False).model.unique()
    pools = {}
    for group in groups:
        for generation in sorted({g for name, g in places.index if name in group["experiments"]}):
            names = [
                list(places[name, generation])
                for name in group["experiments"]
                if (name, generation) in places.index
            ]
            if group["population"] == 1:
                names = [list(dict.fromkeys(sum(names, [])))]
            pools[group["group"], generation] = names
    sizes = [len(models) for sets in pools.values() for models in sets if len(models) > 1]
    equal = min(sizes, default=1)
    results = {}
    for place, sets in pools.items():
        replicates = []
        for models in sets:
            joined = Texts(
                np.concatenate([texts[m].unit_MPD for m in models]),
                [texts[m].tokens_MP[0] for m in models],
            )
            counts = (len(models), equal)
            replicates.append(measures(joined, counts, derive_seed(seed, "semantics")))
        results[place] = {key: _mean_of(replicates, key) for key in replicates[0]}
    lines = [group["group"] for group in groups if group["population"] == 1]
    rows = [
        _row(group, "", g, key, *value)
        for (group, g), values in results.items()
        for key, value in values.items()
    ]
    for (group, g), values in results.items():
        for line in lines if group not in lines else ():
            of_line = results.get((line, g), {})
            for key, (value, left) in values.items():
                if key in of_line and len(left) == len(of_line[key][1]):
                    difference = value - of_line[key][0], left - of_line[key][1]
                    rows.append(_row(group, line, g, key, *difference))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(
    group: str, against: str, generation: int, key: tuple, value: float, left: np.ndarray
) -> dict:
    scope, measure, models = key
    row = {
        "group": group,
        "against": against,
        "generation": generation,
        "scope": scope,
        "measure": measure,
        "models": models,
    }
    interval = jackknife_interval(value, left)
    return row | {"prompts": len(left), "value": interval.pop("mean")} | interval


def project(vectors_ND: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Return a map (N, 2) of N texts: t-SNE on cosine distances (van der Maaten, Hinton 2008).

    It starts from the first two principal components. The perplexity is at most (N - 1) / 3. With
    fewer than four texts, the components themselves are the map.
    """
    from sklearn.manifold import TSNE

    unit_ND = unit(vectors_ND)
    if len(unit_ND) < 4 or not np.ptp(unit_ND, axis=0).any():
        centred = unit_ND - unit_ND.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        flat = centred @ axes.T
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    unit_ND = np.pad(unit_ND, ((0, 0), (0, max(0, 2 - unit_ND.shape[1]))))
    tsne = TSNE(
        perplexity=min(perplexity, (len(unit_ND) - 1) / 3),
        init="pca",
        random_state=seed % 2**32,
        n_jobs=1,
    )
    return tsne.fit_transform(unit_ND.astype(np.float32))
