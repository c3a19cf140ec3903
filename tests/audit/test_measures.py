"""Measures of single models: perplexity, excess nats, disagreement, effective data quality."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from transformers import LlamaConfig, LlamaForCausalLM

from pollination.core.statistics import bootstrap_mean_interval
from pollination.evaluation import disagreement, perplexity, quality
from pollination.evaluation.grammar import Grammar
from tests.audit.made import EXACT, FP32, RESAMPLED, SAMPLED


def tiny(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    settings = LlamaConfig(vocab_size=30, num_attention_heads=2, initializer_range=0.6, **sizes)
    return LlamaForCausalLM(settings).eval()


def probabilities(model, row: np.ndarray) -> np.ndarray:
    """(tokens - 1, V): a softmax of the logits in float64."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(row)[None]).logits[0, :-1].double().numpy()
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def rows(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 30, n) for n in (9, 12, 5, 7)]


def test_perplexity_of_sequences():
    """exp(mean nll): over tokens, and over the sequences as study B does."""
    model, texts = tiny(0), rows(1)
    frame = perplexity.perplexity(model, [row[1:-1] for row in texts], 2, eos_id=2)
    nll, tokens = [], []
    for row in texts:
        read = np.array([2, *row[1:-1], 2])
        p = probabilities(model, read)
        nll.append(-np.log(p[np.arange(len(p)), read[1:]]).sum())
        tokens.append(len(p))
    assert frame.tokens.tolist() == tokens
    assert frame.nll.to_numpy() == pytest.approx(nll, rel=FP32)
    found = perplexity.summarize(frame)
    each = np.array(nll) / tokens
    assert found["nll_per_token"] == pytest.approx(np.sum(nll) / np.sum(tokens), rel=FP32)
    assert found["perplexity"] == pytest.approx(np.exp(np.sum(nll) / np.sum(tokens)), rel=FP32)
    of_sequences = np.exp(each).mean()
    assert found["perplexity_of_sequences_mean"] == pytest.approx(of_sequences, rel=FP32)


def test_excess_nats():
    """(sum of nll - sum of the truth's nll) / tokens, with a bootstrap over sequences."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 30, 50)
    truth, nll = tokens * rng.normal(1, 0.1, 50), tokens * rng.normal(1.3, 0.2, 50)
    frame = pd.DataFrame({"tokens": tokens, "nll": nll, "truth_nll": truth})
    found = perplexity.summarize(frame, seed=1)
    excess = (nll.sum() - truth.sum()) / tokens.sum()
    assert found["excess_nats_per_token"] == pytest.approx(excess, rel=EXACT)
    assert found["entropy_per_token"] == pytest.approx(truth.sum() / tokens.sum(), rel=EXACT)
    draws = rng.integers(0, 50, (4000, 50))
    ratio = (nll - truth)[draws].sum(axis=1) / tokens[draws].sum(axis=1)
    assert found["excess_nats_stderr"] == pytest.approx(ratio.std(), rel=RESAMPLED)
    ends = bootstrap_mean_interval(nll - truth, 2, 4000, weights=tokens)
    near = RESAMPLED * np.ptp(np.quantile(ratio, [0.025, 0.975]))
    expected = np.quantile(ratio, [0.025, 0.975])
    assert (ends["low"], ends["high"]) == pytest.approx(expected, abs=near)


def test_disagreement_of_models():
    """Jensen-Shannon divergence of next-token predictions, by scipy; exp(JS) models differ."""
    models, texts = [tiny(seed) for seed in (1, 2, 3)], rows(5)
    frame, pairs = disagreement.disagreement(models, texts, 2)
    p = [np.array([probabilities(model, row) for model in models]) for row in texts]
    js = [
        stats.entropy(x.mean(axis=0), axis=-1) - stats.entropy(x, axis=-1).mean(axis=0) for x in p
    ]
    assert frame.js.to_numpy() == pytest.approx([row.mean() for row in js], rel=10 * FP32)
    for i, j in combinations(range(3), 2):
        each = np.concatenate([jensenshannon(x[i], x[j], axis=-1) ** 2 for x in p])
        assert pairs[i, j] == pairs[j, i] == pytest.approx(each.mean(), rel=10 * FP32)
    found = disagreement.summarize(frame, [0, 1, 2])
    assert found["js"] == pytest.approx(np.concatenate(js).mean(), rel=10 * FP32)
    assert found["effective_models"] == pytest.approx(np.exp(np.concatenate(js).mean()), rel=FP32)
    entropy = np.concatenate([stats.entropy(x, axis=-1).mean(axis=0) for x in p])
    assert found["entropy"] == pytest.approx(entropy.mean(), rel=FP32)


SENTENCES = {"a b .": 0.5, "a c .": 0.3, "d b .": 0.2}


class Table:
    """A grammar of three sentences."""

    def __init__(self) -> None:
        self.sentences = list(SENTENCES)
        self.probabilities = np.array(list(SENTENCES.values()))


def test_distance_of_a_text_from_its_grammar():
    """Total variation between sentences and between next words (study B, equation 7)."""
    grammar = Grammar(Table())
    written = [*["a b ."] * 5, *["a c ."] * 1, *["d b ."] * 4]
    counts = grammar.read([(" ".join(written).split(), 0, True)], "<eos>")
    found = grammar.distances(grammar.of_text(counts))
    share = {sentence: written.count(sentence) / len(written) for sentence in SENTENCES}
    tv = sum(abs(share[s] - p) for s, p in SENTENCES.items()) / 2
    assert found["sentences"] == pytest.approx(tv, rel=EXACT)
    # nodes: start (mass 1), a (0.8), d (0.2), and three before the full stop, which are certain
    start = (abs(0.6 - 0.8) + abs(0.4 - 0.2)) / 2
    after_a = (abs(5 / 6 - 5 / 8) + abs(1 / 6 - 3 / 8)) / 2
    expected = (start * 1 + after_a * 0.8) / 3  # a sentence passes three nodes
    assert found["next_token"] == pytest.approx(expected, rel=EXACT)
    cut = grammar.read([([*"ab.a"], 0, True), ([*"xb."], 0, True)], "<eos>")
    found = grammar.distances(grammar.of_text(cut))
    assert found["outside"] == pytest.approx(1 / 3, rel=EXACT)  # one of three begins with x


def test_distance_of_bigrams():
    """The proxy: total variation of shares of adjacent tokens within rows."""
    a, b = [[1, 2, 1, 2], [2, 2]], [[1, 2, 3]]
    p = {(1, 2): 2 / 4, (2, 1): 1 / 4, (2, 2): 1 / 4}
    q = {(1, 2): 1 / 2, (2, 3): 1 / 2}
    expected = sum(abs(p.get(k, 0) - q.get(k, 0)) for k in {*p, *q}) / 2
    found = quality.total_variation(quality.bigrams(a, None), quality.bigrams(b, None))
    assert found == pytest.approx(expected, rel=EXACT)
    first = quality.bigrams(a, 3)
    assert sorted(first.values()) == pytest.approx([0.5, 0.5], rel=EXACT)


@pytest.mark.parametrize("count", [8, 40])
def test_floor_of_a_finite_sample(count):
    """The mean distance of true texts with as many sentences, by drawing sentences."""
    grammar, rng = Grammar(Table()), np.random.default_rng(1)
    mean, sd = grammar.floor(count, seed=2)["sentences"]
    p = Table().probabilities
    draws = np.abs(rng.multinomial(count, p, 4000) / count - p).sum(axis=1) / 2
    z = (mean - draws.mean()) / (draws.std() / 40**0.5)  # the floor draws 40 texts
    assert 2 * stats.norm.sf(abs(z)) > SAMPLED
    assert 2 * stats.chi2.sf(39 * max(sd, draws.std()) ** 2 / draws.var(), 39) > SAMPLED
