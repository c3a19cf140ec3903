"""Fingerprints: the definition item by item, statistics against brute force and closed forms,
influence against its null, odd input.
"""

import json
import logging
from collections import Counter as Count
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import yaml
from nltk.tokenize import NLTKWordTokenizer
from wordfreq import word_frequency

from pollination.analysis.fingerprint import counting, features, inheritance, overlap, tables
from pollination.analysis.fingerprint import influence as directed
from pollination.analysis.fingerprint.results import read_results
from pollination.core import artifacts
from pollination.core.settings import definition, with_defaults
from pollination.figures.fingerprint import families, influence, similarity, tree
from pollination.figures.fingerprint import inheritance as inheritance_figure
from pollination.plan import standalone
from pollination.plan.config.catalogue import match, read_catalogue, slug
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from pollination.plan.plan import Plan
from pollination.plan.standalone import fingerprint_files
from tests.conftest import ROOT, planned, shared, snakemake, study_a

LOG = logging.getLogger("test")
DEFINITION = with_defaults({}, definition("count"))
COMPARISON = with_defaults({"resamples": 200, "permutations": 99}, definition("compare"))
LISTS = ("top_repetitive_words", "zero_frequency_words", "top_bigrams", "top_trigrams")


def fingerprint(rows: list[tuple], **settings) -> dict[str, dict]:
    counter = counting.Counter(
        DEFINITION | {"min_characters": 1} | settings, counting.snowball_stopwords()
    )
    for row in rows:
        counter.add(*row)
    return {found["model_name"]: found for found in counter.fingerprints()}


def names(entries: list[dict]) -> list[str]:
    return [entry.get("word", entry.get("ngram")) for entry in entries]


# --- the definition


def test_a_small_corpus_by_hand():
    rows = [
        (
            "m",
            "p1",
            "The Café’s shimmering lantern; shimmering lantern, shimmering lantern! Qzxwv qzxwv",
        ),
        (
            "m",
            "p2",
            (
                "A shimmering lantern. SHIMMERING lantern? lantern 12 shimmering3 lantern qzxwv "
                "qzxwv qzxwv qzxwv"
            ),
        ),
        ("m", "p1", "once once once once once once once"),  # seven times, but in one prompt only
        ("m", "p3", "window window window"),
        ("m", "p4", "window window"),  # five times in two prompts: not more than five
        ("m", "p5", None),
        ("m", "p6", ""),
    ]
    found = fingerprint(rows)["m"]
    assert {key: found[key] for key in ("outputs", "dropped", "prompts", "words_written")} == {
        "outputs": 5,
        "dropped": 2,
        "prompts": 4,
        "words_written": 11 + 12 + 7 + 3 + 2,
    }
    words = {entry["word"]: entry for entry in found["top_repetitive_words"]}
    assert {word: entry["count"] for word, entry in words.items()} == {
        "shimmering": 6,
        "lantern": 7,
    }
    assert words["lantern"]["score"] == pytest.approx(
        7 / 19 / word_frequency("lantern", "en")
    )  # of 19 surviving words, six unknown
    assert names(found["top_repetitive_words"]) == ["shimmering", "lantern"]
    assert [(entry["word"], entry["count"]) for entry in found["zero_frequency_words"]] == [
        ("qzxwv", 6)
    ]
    assert [(entry["ngram"], entry["frequency"]) for entry in found["top_bigrams"]] == [
        ("shimmering lantern", 6),
        ("lantern shimmering", 4),
        ("qzxwv qzxwv", 4),
        ("window window", 3),
        ("lantern qzxwv", 2),
    ]
    assert [(entry["ngram"], entry["frequency"]) for entry in found["top_trigrams"]] == [
        ("lantern shimmering lantern", 4),
        ("shimmering lantern shimmering", 3),
        ("lantern qzxwv qzxwv", 2),
        ("shimmering lantern qzxwv", 2),
    ]


def by_definition(rows: list[tuple], settings: dict) -> dict:
    """One model's fingerprint without a thought for speed: the whole text tokenised, sets of
    prompts.
    """
    stop = {
        piece
        for word in counting.snowball_stopwords()
        for piece in counting.normalise(word).split()
    }
    words, ngrams, prompts = Count(), {2: Count(), 3: Count()}, {}
    for _, prompt, text in rows:
        text = counting.normalise(text)
        tokens = [t for t in NLTKWordTokenizer().tokenize(text) if t.isalpha() and t not in stop]
        items = [w for w in text.split() if len(w) >= settings["min_letters"]]
        words.update(items)
        for n in (2, 3):
            grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            ngrams[n].update(grams)
            items += grams
        for item in items:
            prompts.setdefault(item, set()).add(prompt)

    def recurring(counts):
        return {i: c for i, c in counts.items() if len(prompts[i]) >= settings["min_prompts"]}

    def first(scored, top):
        texts = {i: i if isinstance(i, str) else " ".join(i) for i in scored}
        return sorted(scored, key=lambda i: (-scored[i], texts[i]))[:top]

    kept = {w: c for w, c in recurring(words).items() if c >= settings["min_count"]}
    scores = {
        w: c / sum(kept.values()) / f for w, c in kept.items() if (f := word_frequency(w, "en"))
    }
    grams = [
        [" ".join(g) for g in first(recurring(ngrams[n]), settings[key])]
        for n, key in ((2, "bigrams"), (3, "trigrams"))
    ]
    return {
        "words": first(scores, settings["words"]),
        "scores": scores,
        "bigrams": grams[0],
        "trigrams": grams[1],
    }


def test_random_text_as_by_the_definition_and_in_any_order():
    rng = np.random.default_rng(0)
    stock = np.array(
        [
            "the",
            "a",
            "cannot",
            "gonna",
            "we've",
            "élan",
            "naïve",
            "river",
            "stone",
            "whisper",
            "shadow",
            "don’t",
            "x",
            "ab",
            "night-sky",
            "elara",
            "möbius",
            "of",
            "and",
            "7th",
            "voice",
        ]
    )
    rows = [("m", f"p{rng.integers(9)}", " ".join(rng.choice(stock, 60)) + ".") for _ in range(40)]
    settings = DEFINITION | {"words": 8, "bigrams": 30, "trigrams": 25}
    expected, found = (
        by_definition(rows, settings),
        fingerprint(rows, words=8, bigrams=30, trigrams=25)["m"],
    )
    assert names(found["top_repetitive_words"]) == expected["words"]
    assert [e["score"] for e in found["top_repetitive_words"]] == pytest.approx(
        [expected["scores"][w] for w in expected["words"]]
    )
    assert (
        names(found["top_bigrams"]) == expected["bigrams"]
        and names(found["top_trigrams"]) == expected["trigrams"]
    )
    mixed = [("n", "p0", "stone river stone"), *rows[::-1]]
    again = fingerprint(mixed, words=8, bigrams=30, trigrams=25)["m"]
    assert {key: again[key] for key in LISTS} == {key: found[key] for key in LISTS}


def test_stopwords_of_ones_own(tmp_path):
    (tmp_path / "stop.txt").write_text("silver\n")
    (tmp_path / "x.jsonl").write_text(
        "".join(
            json.dumps({"model": "m", "prompt_id": i, "output": "the silver lantern"}) + "\n"
            for i in range(2)
        )
    )
    settings = DEFINITION | {"min_characters": 1}
    for stopwords, expected in (
        (tmp_path / "stop.txt", ["the lantern"]),
        (None, ["silver lantern"]),
    ):
        found = tables.count_part("outputs", [tmp_path / "x.jsonl"], [], settings, stopwords, LOG)
        assert names(found[0]["top_bigrams"]) == expected


def test_only_the_first_words_of_each_output_count_where_asked():
    rows = [("m", f"p{i}", "lantern " * 3 + "shadow " * 9) for i in range(4)]
    found = fingerprint(rows, output_words=3)["m"]
    assert found["words_written"] == 12 and names(found["top_repetitive_words"]) == ["lantern"]


def test_outputs_are_read_from_parquet_and_jsonl_alike_and_mistakes_have_one_line(tmp_path):
    rows = [("a", "1", "one"), ("b", "2", None)]
    table = pa.table(
        {"output": ["one", None], "model": ["a", "b"], "prompt_id": [1, 2], "more": [0, 0]}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    lines = [json.dumps({"model": m, "prompt_id": int(p), "output": o}) for m, p, o in rows]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n\n")
    assert (
        list(counting.read_outputs(tmp_path / "x.parquet"))
        == rows
        == list(counting.read_outputs(tmp_path / "x.jsonl"))
    )
    for text, complaint in (
        ('{"model": "a", "output": "x"}', "line 1 has no key 'prompt_id'"),
        ('{"model": "a", "prompt_id": null, "output": "x"}', "line 1: prompt_id is missing"),
        ('{"model": "a", "prompt_id": 1, "output": 5}', "line 1: output '5' is not text"),
        ("[1]", "line 1 is not a JSON object"),
        ("{broken", "line 1 is not valid JSON"),
    ):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(ValueError, match=complaint):
            list(counting.read_outputs(tmp_path / "bad.jsonl"))
    pq.write_table(table.drop_columns("output"), tmp_path / "bad.parquet")
    with pytest.raises(
        ValueError,
        match="column: 'output' is not a column of .*bad.parquet; allowed: model, prompt_id, more",
    ):
        list(counting.read_outputs(tmp_path / "bad.parquet"))


# --- lists of models, and the toolkit's results


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "model,family,release\na,x,2024-13\nb,x,2024-01",
            r"line 2: release '2024-13' of a is not a month; write it as YYYY-MM, e.g. 2025-03",
        ),
        ("model,family,release\na,x,2024-12\nb,,2024-01", r"line 3: no family for model 'b'"),
        ("model,family,release\na,x,2024-12\na,y,2024-01", r"line 3: model 'a' appears twice"),
        ("model,family,release\na,x,2024-12\nb,x,2024-01", r"2 models belong to one family, 'x'"),
        ("model,family,release\na,x,2024-12\nb,y,2024-01", r"every family has only one model"),
        (
            "name,family\na,x",
            r"line 2: no model for model '\?'; add it; needed columns: model, family, release",
        ),
        ("model,family,release\n", r"no models"),
    ],
)
def test_a_mistake_in_the_list_of_models_is_one_line(tmp_path, text, complaint):
    (tmp_path / "models.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_catalogue(tmp_path / "models.csv")
    assert len(str(caught.value).splitlines()) == 1
    raw = {
        "run": "x",
        "fingerprint": {
            "s": {
                "kind": "outputs",
                "models": str(tmp_path / "models.csv"),
                "path": str(tmp_path / "models.csv"),
            }
        },
    }
    with pytest.raises(ConfigError, match=complaint):
        check_files(resolve(raw))


def test_the_papers_models_are_27_with_64_and_287_pairs():
    catalogue = read_catalogue(ROOT / "config/paper/models.csv")
    sizes = Count(row["family"] for row in catalogue.values())
    within = sum(size * (size - 1) // 2 for size in sizes.values())
    assert (len(catalogue), len(sizes), within, 27 * 26 // 2 - within) == (27, 5, 64, 287)


def test_names_match_with_and_without_their_vendor():
    chosen, unknown, second = match(["v/a", "w/a", "b", "x/b", "v/c"], {"a": 0, "b": 0})
    assert chosen == {"a": "v/a", "b": "b"} and unknown == ["v/c"] and second == ["w/a", "x/b"]
    assert slug("vendor/model:free v2") == "vendor_model_free_v2"


def entry(word: str, **more) -> dict:
    return {
        "top_repetitive_words": [{"word": word, "score": 2.0}],
        "top_bigrams": [{"ngram": f"{word} b", "frequency": 3}],
        "top_trigrams": [],
    } | more


def test_results_of_the_toolkit_in_all_shapes(tmp_path, caplog):
    path = tmp_path / "results.json"
    for shape in (
        {"v/a": entry("x"), "b": entry("y")},
        [entry("x", model_name="v/a"), entry("y", model_name="b")],
    ):
        path.write_text(json.dumps(shape))
        assert [found["model_name"] for found in read_results(path, LOG)] == ["v/a", "b"]
    path.write_text(json.dumps(entry("x", model_name="alone")))
    assert read_results(path, LOG)[0]["top_repetitive_words"] == [{"word": "x", "score": 2.0}]
    odd = {
        "model_name": "b",
        "top_repetitive_words": [
            {"word": "x"},
            {"word": "y", "score": 1.0},
            "z",
            {"word": "y", "score": 9.0},
        ],
    }
    path.write_text(json.dumps([entry("x", model_name="a"), entry("other", model_name="a"), odd]))
    with caplog.at_level(logging.WARNING):
        first, second = read_results(path, LOG)
    assert names(first["top_repetitive_words"]) == ["x"] and second["top_repetitive_words"] == [
        {"word": "y", "score": 1.0}
    ]
    assert (
        second["top_bigrams"] == []
        and "appears twice" in caplog.text
        and "top_bigrams: the list is missing" in caplog.text
    )
    for bad, complaint in (
        ("[]", "no models"),
        ('["a"]', "a model is 'a'"),
        ("[{}]", "model 1 has no model_name"),
        ("{", "not valid JSON"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=complaint):
            read_results(path, LOG)


def test_models_that_do_not_fit_the_list_are_an_error_or_left_out(tmp_path, caplog):
    part = tmp_path / "part.json"
    artifacts.write_json(
        part,
        [entry(m, model_name=m) for m in "abcx"]
        + [{"model_name": "d", **{key: [] for key in LISTS}}],
    )
    catalogue = {
        m: {"family": "uuvvv"[i], "month": i, "release": "2024-01"} for i, m in enumerate("abcde")
    }
    for catalogued, complaint in (
        ("abcde", r"models not in list \(1\): x; correct this, or set mismatch: skip"),
        ("abcdex", r"in list but without outputs \(1\): e"),
    ):
        listed = catalogue | {"x": catalogue["e"]} if "x" in catalogued else catalogue
        with pytest.raises(ValueError, match=complaint):
            tables.gather([part], listed, "list", "error", LOG)
    with caplog.at_level(logging.WARNING):
        assert list(tables.gather([part], catalogue, "list", "skip", LOG)) == ["a", "b", "c"]
    assert "model d is left out, because it is without a word" in caplog.text
    with pytest.raises(ValueError, match="all 2 models belong to one family, 'u'"):
        tables.gather([part], {m: catalogue[m] for m in "ab"}, "list", "skip", LOG)
    with pytest.raises(ValueError, match="also in another file"):
        tables.gather([part, part], catalogue, "list", "skip", LOG)


# --- similarity and its statistics


def random_features(models: int = 9, size: int = 60, seed: int = 0) -> features.Features:
    rng = np.random.default_rng(seed)
    weights = rng.random((models, size)) * (
        rng.random((models, size)) < np.linspace(0.2, 0.7, models)[:, None]
    )
    return features.Features(
        [f"m{i}" for i in range(models)], weights, np.repeat([0, 1, 2], size // 3)
    )


def test_jaccard_and_influence_are_those_of_sets():
    found = random_features()
    sets = [set(np.nonzero(row)[0]) for row in found.weights]
    similarity, flow = features.jaccard(found.present), features.influence(found.weights)
    for a, b in product(range(9), repeat=2):
        assert similarity[a, b] == pytest.approx(len(sets[a] & sets[b]) / len(sets[a] | sets[b]))
        assert flow[a, b] == pytest.approx(
            sum(found.weights[a, f] for f in sets[a] & sets[b])
            / sum(found.weights[a, f] for f in sets[a])
        )
    one = {"a": entry("x"), "b": entry("x", top_bigrams=[{"ngram": "x", "frequency": 1}])}
    weights = {
        salience: features.features(one, salience).weights
        for salience in ("raw", "balanced", "uniform")
    }
    assert weights["raw"].tolist() == [
        [2, 3, 0],
        [2, 0, 1],
    ]  # the word x and the bigram 'x' are two features
    assert weights["balanced"].tolist() == weights["uniform"].tolist() == [[1, 1, 0], [1, 0, 1]]


def test_family_matrix_by_hand():
    similarity = np.array([[1, 0.8, 0.2], [0.8, 1, 0.4], [0.2, 0.4, 1]])
    found, means, rows = features.family_matrix(similarity, ["a", "a", "b"], "sum")
    assert found == ["a", "b"] and np.allclose(means, [[0.8, 0.3], [0.3, np.nan]], equal_nan=True)
    assert np.allclose(rows, [[0.8 / 1.1, 0.3 / 1.1], [1.0, np.nan]], equal_nan=True)
    assert features.family_matrix(similarity, ["a", "a", "b"], "maximum")[2][
        0
    ].tolist() == pytest.approx([1, 0.375])


def some_pairs(within: np.ndarray, cross: np.ndarray, **options) -> overlap.Groups:
    def blank(values):
        return np.zeros((len(values), 2), dtype=int)

    return overlap.Groups(within, cross, blank(within), blank(cross), 1, **options)


def measured(pairs: overlap.Groups) -> dict[str, float]:
    ones = [np.ones((1, len(values))) for values in (pairs.within, pairs.cross)]
    return {name: value[0] for name, value in overlap.statistics(pairs)(*ones).items()}


def test_overlap_and_delta_against_scipy_and_closed_forms():
    rng = np.random.default_rng(1)
    within, cross = (
        np.round(rng.normal(0.5, 0.1, 40), 2),
        np.round(rng.normal(0.4, 0.1, 90), 2),
    )  # rounded: ties
    found = measured(some_pairs(within, cross, bandwidth=0.03, bins=12))
    u = scipy.stats.mannwhitneyu(cross, within).statistic
    assert found["cliffs_delta"] == pytest.approx(2 * u / (40 * 90) - 1)
    edges = np.histogram_bin_edges(np.concatenate([within, cross]), 12)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (within, cross)]
    assert found["overlap_histogram"] == pytest.approx(np.minimum(*shares).sum())
    places = np.linspace(-0.2, 1.2, 4000)
    densities = [
        scipy.stats.gaussian_kde(values, 0.03 / values.std(ddof=1))(places)
        for values in (within, cross)
    ]
    assert found["overlap_kde"] == pytest.approx(
        np.minimum(*densities).sum() * (places[1] - places[0]), abs=1e-3
    )
    far, same = measured(some_pairs(within, within - 5)), measured(some_pairs(within, within))
    assert (
        far["cliffs_delta"] == pytest.approx(-1)
        and far["overlap_histogram"] == 0
        and same["overlap_kde"] == pytest.approx(1, abs=1e-3)
    )
    grid = scipy.stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    normals = measured(
        some_pairs(grid, grid - 1.0, bandwidth=0.05)
    )  # two unit normals a standard deviation apart overlap by 2 Phi(-1/2)
    assert normals["overlap_kde"] == pytest.approx(2 * scipy.stats.norm.cdf(-0.5), abs=0.01)


def test_similarities_have_no_overlap_beyond_0_and_1():
    """All pairs at 1 against all at 0, of a bandwidth of 0.25: reflected densities overlap by
    2 (1 - (2 Phi(2) - 1)) + tails, and each has area 1 on [0, 1].
    """
    bounded = measured(
        some_pairs(np.ones(20), np.zeros(20), bandwidth=0.25, bins=10, bounds=(0.0, 1.0))
    )
    tail = scipy.stats.norm.cdf
    expected = 2 * 2 * (tail(-2) - tail(-4)) + 2 * 2 * (tail(-4) - tail(-6))
    assert bounded["overlap_kde"] == pytest.approx(expected, abs=1e-3)
    same = measured(some_pairs(np.ones(20), np.ones(20), bandwidth=0.25, bounds=(0.0, 1.0)))
    assert same["overlap_kde"] == pytest.approx(1, abs=1e-3)
    places = overlap.grid(some_pairs(np.ones(20), np.zeros(20), bounds=(0.0, 1.0)))
    assert places.min() > 0 and places.max() < 1


def test_bandwidth_rules():
    values = np.random.default_rng(2).normal(0, 2.0, 500)
    assert overlap.bandwidth(values, "scott") == pytest.approx(values.std(ddof=1) * 500**-0.2)
    assert overlap.bandwidth(values, "silverman") == pytest.approx(
        0.9 * min(values.std(ddof=1), scipy.stats.iqr(values) / 1.34) * 500**-0.2
    )
    assert overlap.bandwidth(values, 0.5) == 0.5 and overlap.bandwidth(np.ones(4), "scott") > 0


def test_bca_is_scipys():
    values = np.random.default_rng(3).exponential(1.0, 40)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=2000, rng=np.random.default_rng(4)
    )
    jackknife = np.array([np.delete(values, i).mean() for i in range(40)])
    found = overlap.bca(values.mean(), expected.bootstrap_distribution, jackknife)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=2e-3)


def blocks(models: int, families: int, effect: float, seed: int) -> tuple[np.ndarray, list[str]]:
    """Similarities with an effect of each model, so that pairs which share a model go together, and
    of family.
    """
    rng = np.random.default_rng(seed)
    names = [f"f{i % families}" for i in range(models)]
    own, noise = rng.normal(0, 0.05, models), rng.normal(0, 0.01, (models, models))
    same = np.array(names)[:, None] == np.array(names)
    return 0.3 + own[:, None] + own + (noise + noise.T) / 2 + effect * same, names


def test_intervals_hold_the_value_and_models_are_fewer_than_pairs():
    similarity, names = blocks(16, 4, 0.03, 5)
    rows = overlap.intervals(overlap.groups(similarity, names), seed=6, resamples=400)
    found = {(row["statistic"], row["resampled"]): row for row in rows}
    delta = {unit: found["cliffs_delta", unit] for unit in ("pairs", "models")}
    assert all(
        row["low"] < row["value"] < row["high"] and row["bca_low"] < row["value"] < row["bca_high"]
        for row in delta.values()
    )
    assert delta["models"]["high"] - delta["models"]["low"] > 1.3 * (
        delta["pairs"]["high"] - delta["pairs"]["low"]
    )
    assert delta["pairs"]["value"] == delta["models"]["value"] < 0
    pairs = np.sqrt(
        np.var(
            [
                overlap.intervals(overlap.groups(*blocks(12, 3, 0.0, s)), 1, 50)[2]["value"]
                for s in range(40)
            ]
        )
    )
    half = [
        (r["high"] - r["low"]) / 3.92
        for s in range(8)
        for r in overlap.intervals(overlap.groups(*blocks(12, 3, 0.0, s)), 1, 200)[5:6]
    ]
    assert np.mean(half) > 0.7 * pairs  # models resampled: as wide as new models would make it


def test_permuted_families_tell_structure_from_none():
    strong = overlap.permutation_test(*blocks(12, 3, 0.2, 7), seed=1, permutations=199)
    assert strong["p_cliffs_delta"] == strong["p_mean_difference"] == pytest.approx(1 / 200)
    ps = [
        overlap.permutation_test(*blocks(12, 3, 0.0, seed), seed=1, permutations=99)[
            "p_cliffs_delta"
        ]
        for seed in range(30)
    ]
    assert 0.3 < np.mean(ps) < 0.7
    similarity, names = blocks(12, 3, 0.1, 8)
    assert overlap.permutation_test(similarity, names, 1, 10)["cliffs_delta"] == pytest.approx(
        measured(overlap.groups(similarity, names))["cliffs_delta"]
    )


# --- influence


def test_expected_influence_keeps_margins_and_is_what_chance_gives():
    """Features dealt at random by odds of model and feature: influence is its expectation, pair by
    pair on average.
    """
    rng, models, size = np.random.default_rng(0), 8, 400
    x, y = np.exp(rng.normal(0, 0.8, models)), np.exp(rng.normal(-1, 1.2, size))
    chance = x[:, None] * y / (1 + x[:, None] * y)
    observed, expected = np.zeros((2, models, models))
    for _ in range(40):
        weights = (rng.random((models, size)) < chance) * (0.5 + y)
        found = features.Features(
            [str(i) for i in range(models)], weights, np.zeros(size, dtype=int)
        )
        flow, mean = features.influence(weights), features.expected_influence(found)
        assert mean.sum(axis=1) == pytest.approx(
            flow.sum(axis=1), rel=1e-6
        )  # what a source's salience finds in all others is kept
        observed, expected = observed + flow / 40, expected + mean / 40
    assert np.abs(observed - expected).max() < 0.02 < np.ptp(observed[~np.eye(models, dtype=bool)])


def world(
    seed: int, longer: float = 0.0, copied: float = 0.0, models: int = 14, top: int = 250
) -> tuple:
    """Models of four families that come out one after another, each with tastes of its own;
    `longer`: log growth of the text they write over time; `copied`: chance that a new model takes
    over a favourite of an earlier one of another family. No other influence exists.
    """
    rng, size = np.random.default_rng(seed), 3000
    base = 1 / np.arange(1, size + 1)
    english = base * np.exp(rng.normal(0, 1, size))
    families = [f"f{i % 4}" for i in range(models)]
    months = rng.permutation(models)
    tastes, written, found = rng.normal(0, 1, (models, size)), np.empty(models), {}
    for model in np.argsort(months):
        earlier = [
            other
            for other in range(models)
            if months[other] < months[model] and families[other] != families[model]
        ]
        for source in rng.permutation(earlier)[:3]:
            favourites = np.argsort(-tastes[source])[:150][rng.random(150) < copied]
            tastes[model, favourites] = np.maximum(
                tastes[model, favourites], tastes[source, favourites]
            )
    for model in range(models):
        share = base * np.exp(tastes[model])
        written[model] = int(15_000 * np.exp(longer * months[model] / models))
        counts = rng.multinomial(int(written[model]), share / share.sum())
        kept = np.nonzero(counts > 5)[0]
        score = counts[kept] / english[kept]
        best = np.argsort(-score)[:top]
        found[str(model)] = {key: [] for key in LISTS} | {
            "top_repetitive_words": [{"word": str(kept[i]), "score": float(score[i])} for i in best]
        }
    return features.features(found), months, families, written


def found_asymmetry(seed: int, **change) -> dict:
    held, months, families, written = world(seed, **change)
    flow = features.influence(held.weights), features.expected_influence(held)
    return directed.asymmetry(*flow, months, families, written, seed, 99)


def test_longer_outputs_of_later_models_make_no_influence_but_copying_does():
    longer = [found_asymmetry(seed, longer=2.0) for seed in range(20)]
    assert (
        np.mean([one["p_raw"] <= 0.05 for one in longer]) > 0.8
    )  # the raw asymmetry is fooled by text alone
    assert np.mean([one["raw"] for one in longer]) > 0.02
    assert np.mean([one["p_adjusted"] <= 0.05 for one in longer]) < 0.2  # for equal text it is not
    assert abs(np.mean([one["adjusted"] for one in longer])) < 0.3 * np.mean(
        [one["raw"] for one in longer]
    )
    later = [found_asymmetry(seed) for seed in range(20)]  # later dates alone
    for name in ("raw", "excess", "adjusted"):
        assert np.mean([one[f"p_{name}"] <= 0.05 for one in later]) < 0.2
    copied = [found_asymmetry(seed, copied=0.7) for seed in range(10)]
    assert np.mean([one["adjusted"] for one in copied]) > 0.01
    assert np.mean([one["p_excess"] <= 0.05 for one in copied]) > 0.4


def test_with_equal_weights_and_sizes_influence_has_no_direction():
    present = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=float)
    flow = features.influence(present)
    found = directed.asymmetry(flow, flow * 0, np.array([1, 5, 9]), ["a", "b", "c"], None, 0, 20)
    assert found["raw"] == 0 and found["p_raw"] == 1 and found["adjusted"] is None
    assert set(
        directed.asymmetry(flow, flow, np.array([3, 3, 3]), ["a", "b", "c"], None, 0, 20).values()
    ) == {None}


def test_bins_of_lag_hold_other_families_and_other_months_only():
    flow = np.arange(16.0).reshape(4, 4)
    rows = directed.by_lag(flow, flow / 2, np.array([0, 0, 2, 5]), ["a", "b", "a", "b"], 3, 0, 50)
    found = {(row["first"], row["last"]): row for row in rows}
    assert set(found) == {(-6, -4), (-3, -1), (1, 3), (4, 6)}
    assert (
        found[1, 3]["pairs"] == 2
        and found[1, 3]["mean"] == np.mean([flow[1, 2], flow[2, 3]])
        and found[1, 3]["lag"] == 2.5
    )
    assert found[-6, -4]["mean"] == flow[3, 0] and found[4, 6]["expected"] == flow[0, 3] / 2
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)


# --- populations


def test_text_that_was_read_is_told_from_weights_that_were_inherited(tmp_path):
    """N = 9, k = 3, two generations of children: I is made of who read whom, who a member is, and a
    little noise.
    """
    rng, families, pairs = np.random.default_rng(0), [], []
    artifacts.write_json(tmp_path / "selection.json", {"parents": [4, 0, 7]})
    for generation, slot in product((1, 2), range(9)):
        before = [f"g{generation - 1}m{m}" for m in range(9)]
        plan = {
            "experiment": "e",
            "generation": generation,
            "slot": slot,
            "child": f"g{generation}m{slot}",
            "before": before,
        }
        families.append(
            plan
            | {
                "selection": str(tmp_path / "selection.json"),
                "k": 3,
                "weights": "parent",
                "text": "parent",
            }
        )
        known = inheritance.parents(families[-1])
        assert known["text_from"] == [before[(4, 0, 7)[slot % 3]]] and known["weights_from"] == [
            before[(4, 0, 7)[slot // 3]]
        ]
        for m, member in enumerate(before):
            flow = (
                0.3 + 0.05 * (m == 4) + 0.1 * (member in known["text_from"]) + rng.normal(0, 0.02)
            )
            pairs.append(
                {
                    "source": member,
                    "target": plan["child"],
                    "influence": flow,
                    "expected": 0.3,
                    "jaccard_all": 0.2,
                }
            )
    rows = inheritance.trace([inheritance.parents(one) for one in families], pd.DataFrame(pairs))
    assert Count(rows.relation) == {
        "weights and text": 6,
        "text": 12,
        "weights": 12,
        "parent of others": 24,
        "no parent": 108,
    }
    found = {row["effect"]: row for row in inheritance.effects(rows, 1, 199)}
    assert found["text"]["value"] == pytest.approx(0.1, abs=0.02) and found["text"]["p"] <= 0.01
    assert abs(found["weights"]["value"]) < 0.02 and found["weights"]["p"] > 0.05
    for name in ("pairs", "inheritance"):
        artifacts.write_table(
            tmp_path / f"{name}.parquet",
            pd.DataFrame(pairs).assign(source_family="e", target_family="e", lag=1)
            if name == "pairs"
            else rows,
        )
    artifacts.write_json(tmp_path / "inheritance.json", list(found.values()))
    artifacts.write_json(
        tmp_path / "statistics.json",
        {
            "models": [
                {"model": f"g{g}m{m}", "release": f"generation {g}"}
                for g, m in product(range(3), range(9))
            ]
        },
    )
    given = {
        "pairs": tmp_path / "pairs.parquet",
        "statistics": tmp_path / "statistics.json",
        "inheritance": tmp_path / "inheritance.parquet",
    }
    inheritance_figure.draw(given, tmp_path / "drawn")
    drawn = pd.read_csv(tmp_path / "drawn.csv")
    assert drawn[(drawn.what == "effect") & (drawn.relation == "text")][
        "mean"
    ].item() == pytest.approx(found["text"]["value"], rel=1e-4)
    line = rows[rows.relation == "weights and text"].groupby("generation").head(1)
    assert (
        inheritance.effects(line, 1, 9) == []
    )  # one's own text and weights: nothing to tell apart


# --- through the figures


def draw_all(fingerprints: dict, catalogue: dict, folder: Path, **settings) -> dict:
    pairs, statistics = tables.compare(fingerprints, catalogue, COMPARISON | settings, seed=1)
    artifacts.write_table(folder / "pairs.parquet", pairs)
    artifacts.write_json(folder / "statistics.json", statistics | {"lag": "months"})
    given = {
        name: folder / f"{name}.{end}"
        for name, end in (("pairs", "parquet"), ("statistics", "json"))
    }
    for figure in (similarity, families, influence, tree):
        figure.draw(given, folder / figure.__name__)
        assert all(
            (folder / f"{figure.__name__}.{end}").stat().st_size > 0
            for end in ("svg", "png", "csv")
        )
    return statistics


@pytest.mark.slow
def test_the_smallest_survey_and_odd_fingerprints_are_drawn(tmp_path):
    """Three models of two families, all of one month; one with words alone, one with nothing in
    common with the others.
    """
    odd = {
        "a": entry("x"),
        "b": entry("y", top_bigrams=[]),
        "c": entry("x", top_bigrams=[{"ngram": "$_{x}^", "frequency": 1}]),
    }
    catalogue = {
        m: {"family": f, "month": 1, "release": "2024-01"}
        for m, f in zip("abc", "uuv", strict=True)
    }
    statistics = draw_all(odd, catalogue, tmp_path)
    assert statistics["influence_by_lag"] == [] and {
        row["raw"] for row in statistics["asymmetry"]
    } == {None}
    draw_all(
        odd,
        catalogue | {"c": {"family": "v", "month": 3, "release": "2024-03"}},
        tmp_path,
        normalise="diagonal",
        bandwidth=0.1,
    )


@pytest.mark.slow
def test_real_outputs_through_the_toolkits_shape(tmp_path):
    """Real outputs of 16 models as 32: each model's prompts are split in two, written as the
    toolkit writes, read and drawn.
    """
    folder = shared("data/deployed_outputs")
    catalogue, rows, seen = read_catalogue(folder / "models.csv"), [], Count()
    for model, prompt, output in counting.read_outputs(folder / "outputs.parquet"):
        seen[model] += 1
        if seen[model] <= 40:
            rows.append((f"vendor/{model}-{seen[model] % 2}", prompt, output))
    found = fingerprint(rows, min_characters=500)
    keys = ("top_repetitive_words", "top_bigrams", "top_trigrams")
    (tmp_path / "results.json").write_text(
        json.dumps({name: {key: one[key] for key in keys} for name, one in found.items()})
    )
    artifacts.write_json(tmp_path / "part.json", read_results(tmp_path / "results.json", LOG))
    halves = {f"{model}-{half}": row for model, row in catalogue.items() for half in (0, 1)}
    kept = tables.gather([tmp_path / "part.json"], halves, "models.csv", "error", LOG)
    statistics = draw_all(kept, halves, tmp_path)
    assert len(kept) == 32 and all(row["trigrams"] < 200 for row in statistics["models"])
    delta = next(
        row
        for row in statistics["overlap"]
        if row["kind"] == "all" and row["statistic"] == "cliffs_delta"
    )
    assert (
        delta["value"] < -0.6 and delta["high"] < 0
    )  # a family, and all the more a model's other half, is told from the others
    pairs = artifacts.read_table(tmp_path / "pairs.parquet").to_pandas()
    nearest = pairs.loc[pairs.groupby("source").jaccard_all.idxmax()]
    assert (nearest.source.str[:-2] == nearest.target.str[:-2]).mean() > 0.75


def test_a_survey_of_the_runs_own_members_is_planned():
    raw = study_a()
    plan = Plan(resolve(raw), "results/demo")
    models = standalone.surveyed(plan, "members")
    assert len(models) == 4 + 4 * 4 + 3 * 4 and models["founders/human/member0"] == {
        "family": "founders human",
        "month": 0,
        "release": "generation 0",
    }
    assert models["line.s42/gen3/member0"]["family"] == "line.s42"
    child = next(
        one
        for one in standalone.families(plan, "members")
        if one["child"] == "population/gen2/member3"
    )
    assert (
        child["selection"] == "results/demo/population/gen1/selection.json"
        and child["before"][0] == "population/gen1/member0"
    )
    assert fingerprint_files(plan)[-1] == "results/demo/report/fingerprint_inheritance.members.csv"


def test_fingerprints_run_alone_and_without_them_nothing_is_planned(tmp_path):
    folder = shared("data/deployed_outputs")
    survey = {
        "kind": "outputs",
        "models": str(folder / "models.csv"),
        "path": str(folder / "outputs.parquet"),
    }
    path = tmp_path / "survey.yaml"
    path.write_text(yaml.safe_dump({"run": "survey", "fingerprint": {"deployed": survey}}))
    jobs = planned(snakemake(tmp_path, "-n", configfile=path))
    assert {
        "count_fingerprints": 1,
        "compare_fingerprints": 1,
        "draw_fingerprint_tree": 1,
    }.items() <= jobs.items()
    assert (
        not {
            "trace_inheritance",
            "draw_fingerprint_inheritance",
            "simulate_recursion",
            "draw_accuracy",
        }
        & jobs.keys()
    )


@pytest.mark.parametrize(
    ("survey", "complaint"),
    [
        (
            {"kind": "outputs", "path": "x"},
            "fingerprint.s.models: the key is missing; add it, because a survey of kind outputs",
        ),
        ({"kind": "collect", "models": "x"}, "fingerprint.s.collect.prompts: the key is missing"),
        ({"kind": "population"}, "'population' needs experiments, but this config has none"),
        ({"kind": "population", "experiments": ["x"]}, "'x' is not in experiments"),
        (
            {"kind": "results", "models": "x", "path": "y", "compare": {"bandwidth": "scot"}},
            "allowed: scott, silverman or a number above 0",
        ),
        ({"kind": "result"}, "did you mean 'results'"),
    ],
)
def test_a_mistake_in_a_survey_is_named(survey, complaint):
    with pytest.raises(ConfigError) as caught:
        resolve({"run": "x", "fingerprint": {"s": survey}})
    assert complaint in str(caught.value)


def test_a_survey_names_experiments_with_all_replicates_or_single_ones():
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for named, runs in (
        (["population.s1"], ["population.s1"]),
        (["lines"], ["lines", "lines.s1", "lines.s2", "lines.s3", "lines.s4"]),
    ):
        raw["fingerprint"]["members"]["experiments"] = named
        assert resolve(raw)["fingerprint"]["members"]["experiments"] == runs
    raw["fingerprint"]["members"]["experiments"] = ["population.s9"]
    with pytest.raises(ConfigError, match="'population.s9' is not in experiments"):
        resolve(raw)
