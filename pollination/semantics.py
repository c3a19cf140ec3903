"""How diverse texts are: spread of their embeddings, Vendi score, distinct n-grams, self-BLEU; and their map by t-SNE (docs/semantics.md).

M models, P prompts, D dimensions, N texts. Embeddings are unit vectors, distances 1 - cosine. Intervals speak of other prompts: they come from
the jackknife, which leaves out one prompt after the other. A bootstrap would draw a prompt twice, and call the copy a lack of diversity.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd

from pollination.degeneration import TOKEN
from pollination.seeds import derive_seed
from pollination.statistics import jackknife_interval

COLUMNS = ("group", "against", "generation", "scope", "measure", "models", "prompts", "value", "low", "high", "stderr")
SUBSETS = 20  # draws of k of N models, at most
NGRAMS = (1, 2, 3)


class Texts(NamedTuple):
    """What M models wrote to the same P prompts."""

    unit_MPD: np.ndarray
    tokens_MP: list[list[list[str]]]

    def of(self, models: Sequence[int]) -> "Texts":
        return Texts(self.unit_MPD[list(models)], [self.tokens_MP[m] for m in models])


def tokenize(text: str) -> list[str]:
    return TOKEN.findall(text.lower())


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Each vector at length 1; one of length 0 stays."""
    vectors_ND = np.asarray(vectors_ND, dtype=float)
    lengths = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
    return vectors_ND / np.where(lengths > 0, lengths, 1.0)


def spread(unit_ND: np.ndarray) -> float:
    """Mean distance of texts to their centroid."""
    return float(1 - (unit_ND @ unit(unit_ND.mean(axis=0))).mean())


def pairwise(unit_ND: np.ndarray) -> float:
    """Mean distance of two texts; its expectation does not depend on how many texts there are, as that of the spread does."""
    n = len(unit_ND)
    return float(1 - ((unit_ND.sum(axis=0) ** 2).sum() - (unit_ND**2).sum()) / (n * (n - 1)))


def vendi(unit_ND: np.ndarray) -> float:
    """Vendi score (Friedman and Dieng 2023): exp of the entropy of the eigenvalues of K / N, K the cosine kernel. 1: all alike; N: nothing in common."""
    n, d = unit_ND.shape
    kernel = (unit_ND @ unit_ND.T if n <= d else unit_ND.T @ unit_ND) / n  # both have the same eigenvalues but for zeros
    values = np.linalg.eigvalsh(kernel)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def ngrams(tokens: Sequence[str], n: int) -> list[tuple]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams as a share of all n-grams of the texts together (Li et al. 2016); NaN where there are none."""
    found = [gram for tokens in texts for gram in ngrams(tokens, n)]
    return len(set(found)) / len(found) if found else float("nan")


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Mean BLEU-4 of each text with the others as references (Zhu et al. 2018), smoothed by method 1 of NLTK; shorter texts than 4 tokens by as
    many orders as they have. Texts of nothing are left out; NaN where fewer than two are left. 1: all alike."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    texts, smooth = [text for text in texts if text], SmoothingFunction().method1
    if len(texts) < 2:
        return float("nan")
    scores = [sentence_bleu(texts[:i] + texts[i + 1 :], text, smoothing_function=smooth, auto_reweigh=True) for i, text in enumerate(texts)]
    return float(np.mean(scores))


def within_prompts(texts: Texts) -> dict[str, np.ndarray]:
    """Measure -> a value a prompt: how far M >= 2 models differ in what they make of it."""
    prompts = range(texts.unit_MPD.shape[1])
    found = {measure.__name__: np.array([measure(texts.unit_MPD[:, p]) for p in prompts]) for measure in (spread, pairwise, vendi)}
    said = [[tokens_P[p] for tokens_P in texts.tokens_MP] for p in prompts]
    found["self_bleu"] = np.array([self_bleu(some) for some in said])
    return found | {f"distinct_{n}": np.array([distinct(some, n) for some in said]) for n in NGRAMS}


def over_prompts(texts: Texts) -> dict[str, tuple[float, np.ndarray]]:
    """Measure -> (value, values without each prompt), of all texts together: between (distance of texts to different prompts), vendi, distinct_n.
    Of two prompts one is no sample to measure without the other: NaN."""
    models, prompts, _ = texts.unit_MPD.shape
    alone_PD = texts.unit_MPD.sum(axis=0)
    dots_PP = alone_PD @ alone_PD.T / models**2
    np.fill_diagonal(dots_PP, 0.0)
    whole, rows = dots_PP.sum(), dots_PP.sum(axis=1)
    left = 1 - (whole - 2 * rows) / max(1, (prompts - 1) * (prompts - 2))
    found = {"between": (float(1 - whole / (prompts * (prompts - 1))), left)}
    without = [np.delete(np.arange(prompts), p) for p in range(prompts)]
    flat = lambda chosen: texts.unit_MPD[:, chosen].reshape(models * len(chosen), -1)  # noqa: E731
    found["vendi"] = (vendi(flat(np.arange(prompts))), np.array([vendi(flat(chosen)) for chosen in without]))
    for n in NGRAMS:
        grams_P = [Counter(gram for tokens_P in texts.tokens_MP for gram in ngrams(tokens_P[p], n)) for p in range(prompts)]
        where, total = Counter(gram for grams in grams_P for gram in grams), sum(map(Counter.total, grams_P))
        share = lambda kinds, grams: kinds / grams if grams else float("nan")  # noqa: E731
        own = [sum(where[gram] == 1 for gram in grams) for grams in grams_P]  # that no other prompt has
        left = np.array([share(len(where) - mine, total - grams.total()) for mine, grams in zip(own, grams_P, strict=True)])
        found[f"distinct_{n}"] = (share(len(where), total), left)
    return found if prompts > 2 else {measure: (value, np.full(prompts, np.nan)) for measure, (value, _) in found.items()}


def subsets(size: int, k: int, seed: int) -> list[tuple[int, ...]]:
    """All choices of k of `size` models, or SUBSETS different ones drawn."""
    if comb(size, k) <= SUBSETS:
        return list(combinations(range(size), k))
    generator, chosen = np.random.default_rng(seed), {}
    while len(chosen) < SUBSETS:
        chosen[tuple(sorted(generator.choice(size, k, replace=False).tolist()))] = None
    return list(chosen)


def measures(texts: Texts, counts: Sequence[int], seed: int) -> dict[tuple[str, str, int], tuple[float, np.ndarray]]:
    """(scope, measure, models) -> (value, values without each prompt). Scopes: `model`, what one model says to all prompts (the mean over models);
    `prompt`, what k models say to one prompt (the mean over prompts); `all`, what k models say to all. A count below M is the mean over
    subsets; one above M is left out."""
    size = len(texts.unit_MPD)
    alone = [over_prompts(texts.of([m])) for m in range(size)]
    found = {("model", measure, 1): _mean([one[measure] for one in alone]) for measure in alone[0]}
    for k in sorted({count for count in counts if 2 <= count <= size}):
        chosen = [texts.of(some) for some in subsets(size, k, derive_seed(seed, "models", size, k))]
        inside, together = [within_prompts(some) for some in chosen], [over_prompts(some) for some in chosen]
        for measure in inside[0]:
            found["prompt", measure, k] = _jackknifed(np.mean([one[measure] for one in inside], axis=0))
        found |= {("all", measure, k): _mean([one[measure] for one in together]) for measure in together[0]}
    return found


def _mean(parts: list[tuple[float, np.ndarray]]) -> tuple[float, np.ndarray]:
    """The mean over models, subsets or replicates; those that have no value are left out."""
    mean = lambda values: np.ma.masked_invalid(values).mean(axis=0)  # noqa: E731
    value = mean([value for value, _ in parts])
    return float("nan") if value is np.ma.masked else float(value), mean([left for _, left in parts]).filled(np.nan)


def _jackknifed(values_P: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of values and their means without each one; without a prompt that has no value nothing changes."""
    known = ~np.isnan(values_P)
    if known.sum() < 2:
        return float(values_P[known].sum()) if known.any() else float("nan"), np.full(len(values_P), np.nan)
    value = float(values_P[known].mean())
    return value, np.where(known, (values_P[known].sum() - values_P) / (known.sum() - 1), value)


def read_texts(table: pd.DataFrame) -> tuple[dict[str, Texts], list[str]]:
    """Model -> its texts to the prompts that all models share, and those prompts. ValueError where fewer than two are shared."""
    asked = [dict.fromkeys(part.prompt_id) for _, part in table.groupby("model", sort=False)]
    prompts = [prompt for prompt in asked[0] if all(prompt in other for other in asked)]
    if len(prompts) < 2:
        raise ValueError(
            f"evaluate.semantics: the {len(asked)} models share {len(prompts)} prompts, at least two are needed; name one corpus of prompts for all"
            " (evaluate.samples.corpus), or ask for more (evaluate.samples.prompts)"
        )
    found = {}
    for model, part in table.groupby("model", sort=False):
        part = part.drop_duplicates("prompt_id").set_index("prompt_id").loc[prompts]
        found[model] = Texts(unit(np.stack(part.embedding))[None], [[tokenize(text) for text in part.completion]])
    return found, prompts


def compare(table: pd.DataFrame, groups: list[dict], seed: int) -> pd.DataFrame:
    """All numbers of a run: COLUMNS, a row a group (against none, or another), generation, scope, measure and count of models.

    `table`: experiment, generation, member, model, prompt_id, completion, embedding. `groups`: {group, experiments, population}; experiments of one
    model are replicates of a single line and are pooled, as so many independent lines; other replicates are measured alone and averaged.
    Two counts of models are taken: all, and the least of any group that has two or more, so that groups compare at equal counts.
    """
    texts, prompts = read_texts(table)
    places = table.groupby(["experiment", "generation"], sort=False).model.unique()
    pools = {}
    for group in groups:
        for generation in sorted({g for name, g in places.index if name in group["experiments"]}):
            names = [list(places[name, generation]) for name in group["experiments"] if (name, generation) in places.index]
            pools[group["group"], generation] = [list(dict.fromkeys(sum(names, [])))] if group["population"] == 1 else names
    sizes = [len(models) for sets in pools.values() for models in sets if len(models) > 1]
    equal = min(sizes, default=1)
    found = {}
    for place, sets in pools.items():
        several = []
        for models in sets:
            joined = Texts(np.concatenate([texts[m].unit_MPD for m in models]), [texts[m].tokens_MP[0] for m in models])
            several.append(measures(joined, (len(models), equal), derive_seed(seed, "semantics")))
        found[place] = {key: _mean([one[key] for one in several]) for key in several[0]}
    lines = [group["group"] for group in groups if group["population"] == 1]
    rows = [_row(group, "", g, key, *value) for (group, g), some in found.items() for key, value in some.items()]
    for (group, g), some in found.items():
        for line in lines if group not in lines else ():
            other = found.get((line, g), {})
            for key in [key for key in some if key in other and len(some[key][1]) == len(other[key][1])]:
                rows.append(_row(group, line, g, key, some[key][0] - other[key][0], some[key][1] - other[key][1]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(group: str, against: str, generation: int, key: tuple, value: float, left: np.ndarray) -> dict:
    scope, measure, models = key
    row = {"group": group, "against": against, "generation": generation, "scope": scope, "measure": measure, "models": models}
    interval = jackknife_interval(value, left)
    return row | {"prompts": len(left), "value": interval.pop("mean")} | interval


def project(vectors_ND: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """(N, 2): the map of N texts by t-SNE on cosine distances (van der Maaten and Hinton 2008), from the first two principal components. The
    perplexity is lowered to (N - 1) / 3 where there are few texts; of fewer than four the components themselves are the map."""
    from sklearn.manifold import TSNE

    unit_ND = unit(vectors_ND)
    if len(unit_ND) < 4 or not np.ptp(unit_ND, axis=0).any():
        centred = unit_ND - unit_ND.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        flat = centred @ axes.T
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    unit_ND = np.pad(unit_ND, ((0, 0), (0, max(0, 2 - unit_ND.shape[1]))))
    found = TSNE(perplexity=min(perplexity, (len(unit_ND) - 1) / 3), init="pca", random_state=seed % 2**32, n_jobs=1)
    return found.fit_transform(unit_ND.astype(np.float32))
