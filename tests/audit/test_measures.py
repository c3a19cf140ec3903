"""Measures of single models: perplexity, excess nats, disagreement, effective data quality."""

import hashlib
import json
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from transformers import LlamaConfig, LlamaForCausalLM

from pollination.analysis import regimes
from pollination.core.statistics import bootstrap_mean_interval
from pollination.data import segments
from pollination.evaluation import disagreement, perplexity, quality
from pollination.evaluation.grammar import Grammar
from pollination.plan import measuring
from pollination.plan.inputs import founder_inputs
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


def residual(values: np.ndarray, given: pd.DataFrame, strata: pd.Series) -> np.ndarray:
    """Ranks of values less their regression on ranks of `given` and on an intercept per stratum."""
    x = np.column_stack([given.rank(), pd.get_dummies(strata).to_numpy(float)])
    ranks = stats.rankdata(values)
    return ranks - x @ np.linalg.lstsq(x, ranks, rcond=None)[0]


def partial(text: np.ndarray, table: pd.DataFrame, strata: pd.Series) -> float:
    given = table[["before", "loss_before"]]
    return float(
        np.corrcoef(residual(text, given, strata), residual(table.change, given, strata))[0, 1]
    )


@pytest.fixture(scope="module")
def trained() -> pd.DataFrame:
    """Three runs of two and of four members over four rounds; text has a weak effect."""
    rng, rows = np.random.default_rng(8), []
    for size, replicate, g in product((2, 4), range(3), range(1, 5)):
        for m in range(size):
            text, before, after = rng.normal(size=3)
            about = {"experiment": f"m{size}.s{replicate}", "generation": g, "member": m}
            about |= {"text": text, "before": before, "loss_before": before + 0.3 * rng.normal()}
            rows.append(about | {"change": after - before + 0.3 * text})
    return pd.DataFrame(rows)


def test_quality_given_the_model(trained):
    """Rank correlation given the model before and the round; jackknife over runs (Fisher's z)."""
    found = regimes.regimes(trained, seed=1, resamples=20)

    def z(table: pd.DataFrame) -> float:
        return float(np.arctanh(partial(table.text.to_numpy(), table, table.generation)))

    assert found.partial == pytest.approx(np.tanh(z(trained)), rel=EXACT)
    runs = trained.experiment.unique()
    left = np.array([z(trained[trained.experiment != run]) for run in runs])
    stderr = np.sqrt((len(runs) - 1) / len(runs) * ((left - left.mean()) ** 2).sum())
    ends = np.tanh(stats.t.interval(0.95, len(runs) - 1, z(trained), stderr))
    assert (found.partial_low, found.partial_high) == pytest.approx(ends, rel=EXACT)
    raw = stats.spearmanr(trained.text - trained.before, trained.change).statistic
    assert found.rank_correlation == pytest.approx(raw, rel=EXACT)


def test_quality_within_a_round(trained):
    """The same within an experiment's round, and its null: texts of other runs and slots.

    A permutation is one for all rounds. Raw correlations with permuted texts are the coupling.
    """
    found = regimes.regimes(trained, seed=1, resamples=1000)
    strata = trained.experiment.str.split(".").str[0] + trained.generation.astype(str)
    text = trained.text.to_numpy()
    within = partial(text, trained, strata)
    assert found.within == pytest.approx(within, rel=EXACT)
    at = trained.reset_index().set_index(["experiment", "generation", "member"])["index"]
    rng, as_far, coupling, draws = np.random.default_rng(4), 0, [], 600
    for _ in range(draws):
        source = np.empty(len(trained), int)
        for size in (2, 4):
            runs = rng.permutation(3)
            for r in range(3):
                slots = rng.permutation(size)
                for g, m in product(range(1, 5), range(size)):
                    given = at[f"m{size}.s{runs[r]}", g, slots[m]]
                    source[at[f"m{size}.s{r}", g, m]] = given
        as_far += abs(partial(text[source], trained, strata)) >= abs(within)
        delta = text[source] - trained.before
        coupling.append(stats.spearmanr(delta, trained.change).statistic)
    share = as_far / draws
    near = 4 * ((share * (1 - share) + 1 / draws) * (1 / draws + 1 / 1000)) ** 0.5  # 4 errors
    assert near < RESAMPLED
    assert found.permutation_p == pytest.approx(share, abs=near)
    near = 4 * np.std(coupling) * (1 / draws + 1 / 1000) ** 0.5
    assert found.rank_correlation_null == pytest.approx(np.mean(coupling), abs=near)
    assert 0.3 < found.rank_correlation_null < found.rank_correlation
    low, high = np.quantile(coupling, [0.025, 0.975])
    ends = (found.rank_correlation_null_low, found.rank_correlation_null_high)
    assert ends == pytest.approx((low, high), abs=RESAMPLED * (high - low))


def test_blocks_that_a_founder_has_read(study_b, tmp_path):
    """n = N / M: member m reads part m of the shuffled blocks, and its segment is measured."""
    tokens = np.arange(50 * 4, dtype=np.uint16).reshape(50, 4)
    tokens.tofile(tmp_path / "train.bin")
    about = {"context_tokens": 4, "dtype": "uint16", "eos_id": 0, "blocks": 50, "tokens": 200}
    (tmp_path / "train.json").write_text(json.dumps(about), encoding="utf-8")
    parts = json.dumps([7, "slices"], separators=(",", ":"))
    seed = int(hashlib.sha256(parts.encode()).hexdigest()[:16], 16) // 2
    order = np.random.default_rng(seed).permutation(50)[:40]
    for members in (1, 2, 4):
        spec = {"pool": "p", "tokens": 160, "segments": "distinct", "num_segments": members}
        for m in range(members):
            path, numbers = tmp_path / "segment.bin", tmp_path / "segment.parquet"
            segments.cut(tmp_path / "train.bin", spec, m, 7, path, numbers)
            mine = order[m * 40 // members : (m + 1) * 40 // members]
            assert np.array_equal(np.fromfile(path, np.uint16).reshape(-1, 4), tokens[mine])
            assert pd.read_parquet(numbers).block.tolist() == mine.tolist()
    entry = {"corpus": "own", "split": "segment"}
    for place, pool in (("founders/opt4", "opt4"), ("opt_m4/gen2", "opt4")):
        path = measuring.measured_text(study_b, place, 3, entry)
        read = [one for paths in founder_inputs(study_b, pool, 3).values() for one in paths]
        assert path in read and path.endswith("segments/opt4/member3.bin")


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
