"""Fingerprints (study A, section 4 and appendix B), recomputed from texts and from lists."""

import re
import unicodedata
from collections import Counter
from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from stop_words import get_stop_words
from wordfreq import word_frequency

from pollination.analysis.claims.judge import judge
from pollination.analysis.fingerprint import (
    counting,
    features,
    influence,
    inheritance,
    tables,
)
from pollination.analysis.run import Run
from pollination.core import statistics
from pollination.core.settings import definition, with_defaults
from pollination.figures import drawing, style
from pollination.plan.claims import claim_config
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from tests.audit import made
from tests.audit.made import CSV, EXACT, QUADRATURE, RESAMPLED, SAMPLED
from tests.conftest import ROOT, as_read

FAMILIES = {"ant": 4, "bee": 3, "cat": 3, "dog": 1}
LISTS = {"words": "top_repetitive_words", "bigrams": "top_bigrams", "trigrams": "top_trigrams"}
SETTINGS = with_defaults({"resamples": 1000, "permutations": 999}, definition("compare"))


def fingerprint(rng, name: str, family: str) -> dict:
    """Lists of a model: words that its family favours, words of all, and its own."""
    found: dict = {"model_name": name, "words_written": int(rng.integers(5_000, 50_000))}
    for kind, key in LISTS.items():
        of_all = [f"{kind} {i}" for i in range(30)]
        of_family = [f"{kind} {family} {i}" for i in range(12)]
        own = [f"{kind} {name} {i}" for i in range(rng.integers(3, 12))]
        chosen = [*rng.choice(of_all, 14, False), *rng.choice(of_family, 4, False), *own]
        word, number = ("word", "score") if kind == "words" else ("ngram", "frequency")
        found[key] = [{word: str(text), number: float(rng.integers(2, 90))} for text in chosen]
    return found


@pytest.fixture(scope="module")
def models() -> tuple[dict, dict]:
    rng, prints, catalogue = np.random.default_rng(4), {}, {}
    for family, size in FAMILIES.items():
        for i in range(size):
            name, month = f"{family}{i}", int(rng.integers(0, 12))
            prints[name] = fingerprint(rng, name, family)
            catalogue[name] = {"family": family, "month": month, "release": str(month)}
    return prints, catalogue


@pytest.fixture(scope="module")
def compared(models) -> tuple[pd.DataFrame, dict]:
    return tables.compare(*models, SETTINGS, seed=3)


@pytest.fixture(scope="module")
def files(compared, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("survey")
    pairs, statistics = compared
    made.write(folder, "pairs.parquet", pairs)
    made.write_json(folder, "statistics.json", statistics | {"lag": "months"})
    return {"pairs": folder / "pairs.parquet", "statistics": folder / "statistics.json"}


def entries(prints: dict, kind: str) -> dict[str, dict[str, float]]:
    """Model -> feature -> salience, its share of its list; features of a kind are its own."""
    kinds = LISTS if kind == "all" else {kind: LISTS[kind]}
    found: dict[str, dict] = {}
    for name, one in prints.items():
        found[name] = {}
        for each, key in kinds.items():
            total = sum(e.get("score", e.get("frequency")) for e in one[key])
            for e in one[key]:
                share = e.get("score", e.get("frequency")) / total
                found[name][each, e.get("word", e.get("ngram"))] = share
    return found


# --- from texts to lists


def texts(seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    words = ["The", "lantern,", "window;", "shimmering", "qzxwvq", "don’t", "CAFÉ", "and"]
    words += ["river's", "old", "house-boat", "12", "a"]
    shares = np.array([8, 6, 5, 5, 4, 3, 3, 5, 2, 4, 3, 2, 5], dtype=float)
    return [
        (f"p{p}", " ".join(rng.choice(words, 60, p=shares / shares.sum())) + ".")
        for p in range(6)
        for _ in range(2)
    ]


def test_lists_of_a_text():
    """Appendix B.1: words of 4 letters in 2 prompts, over their English share; n-grams."""
    rows = texts(1)
    settings = with_defaults({"min_characters": 1}, definition("count"))
    counter = counting.Counter(settings, counting.snowball_stopwords())
    for prompt, text in rows:
        counter.add("m", prompt, text)
    (found,) = counter.fingerprints()

    def plain(text: str) -> list[str]:
        text = unicodedata.normalize("NFKC", text)
        return re.sub(r"[^\w]|[\d_]", " ", text).lower().split()

    stop = {piece for word in get_stop_words("en") for piece in plain(word)}
    counts, grams, prompts = Counter(), Counter(), {}
    for prompt, text in rows:
        items = [word for word in plain(text) if len(word) >= 4]
        counts.update(items)
        kept = [word for word in plain(text) if word not in stop]
        of_text = [tuple(kept[i : i + n]) for n in (2, 3) for i in range(len(kept) - n + 1)]
        grams.update(of_text)
        for item in [*items, *of_text]:
            prompts.setdefault(item, set()).add(prompt)
    counts = {w: c for w, c in counts.items() if c > 5 and len(prompts[w]) >= 2}
    total, english = sum(counts.values()), {w: word_frequency(w, "en") for w in counts}
    scores = {w: c / total / english[w] for w, c in counts.items() if english[w] > 0}
    assert {e["word"]: e["score"] for e in found[LISTS["words"]]} == pytest.approx(
        scores, rel=EXACT
    )
    ranked = sorted(scores, key=lambda w: (-scores[w], w))
    assert [e["word"] for e in found[LISTS["words"]]] == ranked
    unknown = {w: c / total for w, c in counts.items() if english[w] == 0}
    listed = {e["word"]: e["corpus_freq"] for e in found["zero_frequency_words"]}
    assert listed == pytest.approx(unknown, rel=EXACT) and "qzxwvq" in unknown
    for n, kind in ((2, "bigrams"), (3, "trigrams")):
        kept = {g: c for g, c in grams.items() if len(g) == n and len(prompts[g]) >= 2}
        best = sorted(kept, key=lambda g: (-kept[g], " ".join(g)))[:200]
        expected = [(" ".join(g), kept[g]) for g in best]
        assert [(e["ngram"], e["frequency"]) for e in found[LISTS[kind]]] == expected


# --- figure 3


def similarities(models, kind: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Jaccard by set operations: of pairs within a family, between families, and by pair."""
    prints, catalogue = models
    sets = {name: set(one) for name, one in entries(prints, kind).items()}
    by_pair = {
        (a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in permutations(sets, 2)
    }
    same = {pair: catalogue[pair[0]]["family"] == catalogue[pair[1]]["family"] for pair in by_pair}
    once = list(combinations(sets, 2))
    within = np.array([by_pair[pair] for pair in once if same[pair]])
    return within, np.array([by_pair[pair] for pair in once if not same[pair]]), by_pair


def kernels(values: np.ndarray, width: float, both: np.ndarray) -> tuple[np.ndarray, float]:
    """A normal density around each value (values, grid), and the step of the grid."""
    grid = np.linspace(both.min() - 6 * width, both.max() + 6 * width, 1001)
    heights = stats.norm.pdf((grid - values[:, None]) / width) / width
    return heights, grid[1] - grid[0]


def ovl(within: np.ndarray, cross: np.ndarray, width: float, both: np.ndarray) -> float:
    """Overlap of two kernel densities with one bandwidth, by the trapezoid rule (B.2)."""
    (a, step), (b, _) = (kernels(values, width, both) for values in (within, cross))
    return float(np.trapezoid(np.minimum(a.mean(axis=0), b.mean(axis=0)), dx=step))


def test_overlap_and_effect_size(models, compared):
    """OVL by kernel density and by histogram, and Cliff's delta from the Mann-Whitney U."""
    for kind in (*LISTS, "all"):
        within, cross, by_pair = similarities(models, kind)
        pairs, statistics = compared
        found = {(r.source, r.target): getattr(r, f"jaccard_{kind}") for r in pairs.itertuples()}
        assert found == pytest.approx(by_pair, rel=EXACT)
        both = np.concatenate([within, cross])
        width = both.std(ddof=1) * len(both) ** -0.2  # Scott
        rows = pd.DataFrame(statistics["overlap"])
        rows = rows[rows.kind == kind].drop_duplicates("statistic").set_index("statistic")
        kde = ovl(within, cross, width, both)
        assert rows.value["overlap_kde"] == pytest.approx(kde, rel=10 * CSV)
        counts = [
            np.histogram(v, 50, (both.min(), both.max()))[0] / len(v) for v in (within, cross)
        ]
        histogram = np.minimum(*counts).sum()
        assert rows.value["overlap_histogram"] == pytest.approx(histogram, rel=EXACT)
        u = stats.mannwhitneyu(cross, within).statistic
        delta = 2 * u / (len(within) * len(cross)) - 1
        assert rows.value["cliffs_delta"] == pytest.approx(delta, rel=EXACT)
        assert (rows.within_pairs.iloc[0], rows.cross_pairs.iloc[0]) == (len(within), len(cross))


def test_intervals_over_pairs_and_models(models, compared):
    """Percentile bootstrap with pairs drawn, as the paper does, and with models drawn."""
    prints, catalogue = models
    within, cross, by_pair = similarities(models, "all")
    both = np.concatenate([within, cross])
    width, rng = both.std(ddof=1) * len(both) ** -0.2, np.random.default_rng(8)
    names = list(prints)
    family = np.array([catalogue[name]["family"] for name in names])
    first, second = np.triu_indices(len(names), 1)
    values = np.array([by_pair[names[a], names[b]] for a, b in zip(first, second, strict=True)])
    same = family[first] == family[second]
    heights, step = kernels(values, width, both)
    sign, found = np.sign(values[:, None] - values), {"pairs": [], "models": []}
    parts = np.flatnonzero(same), np.flatnonzero(~same)
    for _ in range(1000):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        weight = times[first] * times[second]  # a drawn pair of two different models
        for unit, (w, c) in {
            "pairs": tuple(rng.choice(part, len(part)) for part in parts),
            "models": tuple(np.repeat(part, weight[part]) for part in parts),
        }.items():
            if len(w):
                low = np.minimum(heights[w].mean(axis=0), heights[c].mean(axis=0))
                found[unit].append([np.trapezoid(low, dx=step), sign[np.ix_(c, w)].mean()])
    rows = pd.DataFrame(compared[1]["overlap"])
    rows = rows[rows.kind == "all"].set_index(["statistic", "resampled"])
    for unit, draws in found.items():
        for column, name in enumerate(("overlap_kde", "cliffs_delta")):
            low, high = np.quantile(np.array(draws)[:, column], [0.025, 0.975])
            row, near = rows.loc[(name, unit)], RESAMPLED * (high - low)
            assert (row.low, row.high) == pytest.approx((low, high), abs=near)


def dominance(within: np.ndarray, cross: np.ndarray) -> float:
    """P(cross > within) - P(cross < within)."""
    return float(np.sign(cross[:, None] - within).mean())


def test_families_assigned_at_random(models, compared):
    prints, catalogue = models
    *_, by_pair = similarities(models, "all")
    names, rng = list(prints), np.random.default_rng(2)
    family = np.array([catalogue[name]["family"] for name in names])
    once = list(combinations(range(len(names)), 2))
    values = np.array([by_pair[names[a], names[b]] for a, b in once])

    def separation(labels: np.ndarray) -> float:
        same = np.array([labels[a] == labels[b] for a, b in once])
        return dominance(values[same], values[~same])

    real = separation(family)
    dealt = np.array([separation(rng.permutation(family)) for _ in range(999)])
    expected = (1 + (dealt <= real + EXACT).sum()) / 1000
    row = next(row for row in compared[1]["families_dealt_anew"] if row["kind"] == "all")
    assert row["cliffs_delta"] == pytest.approx(real, rel=EXACT)
    assert row["p_cliffs_delta"] == pytest.approx(expected, abs=RESAMPLED * 0.2)


def test_figure_of_similarities(compared, files, tmp_path):
    drawing("fingerprint_similarity").draw(files, tmp_path / "a3")
    csv = pd.read_csv(tmp_path / "a3.csv").set_index(["kind", "statistic", "resampled"])
    for row in compared[1]["overlap"]:
        shown = csv.loc[(row["kind"], row["statistic"], row["resampled"])]
        expected = [row[key] for key in ("value", "low", "high", "bca_low", "bca_high")]
        found = shown[["value", "low", "high", "bca_low", "bca_high"]].tolist()
        assert found == pytest.approx(expected, rel=CSV)


def test_densities_on_the_unit_interval():
    """Figures 3 and 6: no mass outside 0 to 1. Reflection is the heat equation between mirrors.

    Its solution is the cosine series 1 + 2 sum_k exp(-(k pi w)^2 / 2) cos(k pi x) cos(k pi y).
    """
    values, places = np.array([0.0, 0.02, 0.5, 0.97, 1.0]), np.linspace(0, 1, 2001)
    k = np.arange(1, 400)[:, None, None] * np.pi
    for width in (0.02, 0.1, 0.7):
        found = statistics.kernels(values, places, width, (0.0, 1.0))
        waves = np.exp(-((k * width) ** 2) / 2) * np.cos(k * values[:, None]) * np.cos(k * places)
        assert found == pytest.approx(1 + 2 * waves.sum(axis=0), rel=QUADRATURE, abs=QUADRATURE)
        assert np.trapezoid(found, places, axis=1) == pytest.approx(1, rel=1e-4)
    _, heights = style.density(values, (0.0, 1.0))
    width = values.std(ddof=1) * 5**-0.2
    waves = np.exp(-((k * width) ** 2) / 2) * np.cos(k * values[:, None])
    sums = (1 + 2 * (waves * np.cos(k * np.linspace(0, 1, 80))).sum(axis=0)).sum(axis=0)
    assert heights == pytest.approx(sums / sums.max(), rel=QUADRATURE)


# --- figure 4


def test_figure_of_families(models, files, tmp_path):
    """Mean similarity of two different models, and each row over its sum."""
    catalogue = models[1]
    *_, by_pair = similarities(models, "all")
    drawing("fingerprint_families").draw(files, tmp_path / "a4")
    csv = pd.read_csv(tmp_path / "a4.csv").set_index(["family", "other"])
    for a in FAMILIES:
        means = {}
        for b in FAMILIES:
            means[b] = [
                value
                for (i, j), value in by_pair.items()
                if catalogue[i]["family"] == a and catalogue[j]["family"] == b
            ]
        means = {b: np.mean(values) for b, values in means.items() if values}
        for b in FAMILIES:
            shown = csv.loc[(a, b)]
            assert shown.models == FAMILIES[a]
            if b not in means:  # one model has no other of its family
                assert np.isnan(shown["mean"])
                continue
            assert shown["mean"] == pytest.approx(means[b], rel=CSV)
            assert shown.normalised == pytest.approx(means[b] / sum(means.values()), rel=CSV)


# --- figure 5


def influences(prints: dict) -> dict[tuple[str, str], float]:
    """Equation 1: the share of A's salience on features that B has too."""
    weights = entries(prints, "all")
    return {
        (a, b): sum(w for f, w in weights[a].items() if f in weights[b]) / sum(weights[a].values())
        for a, b in permutations(weights, 2)
    }


def test_influence_of_each_pair(models, compared):
    expected, pairs = influences(models[0]), compared[0]
    found = {(r.source, r.target): r.influence for r in pairs.itertuples()}
    assert found == pytest.approx(expected, rel=EXACT)
    months = {name: row["month"] for name, row in models[1].items()}
    assert all(r.lag == months[r.target] - months[r.source] for r in pairs.itertuples())


def test_expected_influence():
    """The maximum-entropy law with given sizes and owners, solved with scipy on one kind.

    P(B has f) = 1 / (1 + exp(-a_B - b_f)), with sums equal to the sizes of models and to the owners
    of features. A has f, so the others share one owner fewer, with A's column left out.
    """
    rng = np.random.default_rng(1)
    present = rng.random((5, 40)) < rng.uniform(0.2, 0.8, (5, 1))
    present = present[:, present.any(axis=0)]
    weights = present * rng.uniform(1, 3, present.shape)
    kinds = np.zeros(present.shape[1], dtype=int)
    found = features.expected_influence(features.Features(list("abcde"), weights, kinds))
    owners, sizes = present.sum(axis=0), present.sum(axis=1)
    some = np.flatnonzero(owners < 5)

    def law(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(z[:5, None] + z[5:])))

    def residual(z: np.ndarray) -> np.ndarray:
        p = law(z)
        rows = p.sum(axis=1) - (sizes - (owners == 5).sum())
        return np.concatenate([rows, p.sum(axis=0) - owners[some]])

    fit = optimize.least_squares(residual, np.zeros(5 + len(some)), xtol=1e-14, ftol=1e-14)
    a = fit.x[:5]

    def chances(of_others: np.ndarray, left: int) -> np.ndarray:
        if left in (0, 4):
            return np.full(4, left / 4)

        def excess(b: float) -> float:
            return (1 / (1 + np.exp(-(of_others + b)))).sum() - left

        return 1 / (1 + np.exp(-(of_others + optimize.brentq(excess, -50, 50))))

    for i in range(5):
        others = [j for j in range(5) if j != i]
        expected = sum(
            weights[i, f] * chances(a[others], owners[f] - 1) for f in np.flatnonzero(present[i])
        )
        expected /= weights[i].sum()
        assert found[i, others] == pytest.approx(expected, rel=10 * QUADRATURE)


def signed(models) -> tuple[list, np.ndarray]:
    """Pairs (older, newer) of two families, and I(older -> newer) - I(newer -> older)."""
    prints, catalogue = models
    flow, pairs = influences(prints), []
    for a, b in permutations(prints, 2):
        apart = catalogue[a]["family"] != catalogue[b]["family"]
        if apart and catalogue[a]["month"] < catalogue[b]["month"]:
            pairs.append((a, b))
    return pairs, np.array([flow[a, b] - flow[b, a] for a, b in pairs])


def test_asymmetry_of_lags(models, compared):
    """The mean difference over pairs, its excess over the expectation, and its permutation p."""
    row = next(row for row in compared[1]["asymmetry"] if row["kind"] == "all")
    pairs, difference = signed(models)
    assert row["raw"] == pytest.approx(difference.mean(), rel=EXACT)
    expected = {(r.source, r.target): r.expected for r in compared[0].itertuples()}
    chance = np.mean([expected[a, b] - expected[b, a] for a, b in pairs])
    assert row["expected"] == pytest.approx(chance, rel=EXACT)
    assert row["excess"] == pytest.approx(difference.mean() - chance, rel=EXACT)
    prints, catalogue = models
    rng, dealt = np.random.default_rng(6), []
    months = np.array([catalogue[name]["month"] for name in prints])
    for _ in range(999):
        shuffled = dict(zip(prints, rng.permutation(months), strict=True))
        changed = {n: catalogue[n] | {"month": int(shuffled[n])} for n in prints}
        dealt.append(signed((prints, changed))[1].mean())
    p = (1 + (np.abs(dealt) >= abs(difference.mean())).sum()) / 1000
    assert row["p_raw"] == pytest.approx(p, abs=RESAMPLED / 2)


def test_figure_of_influence_by_lag(models, files, tmp_path):
    """Bins of fixed width: mean over pairs of two families, the synchronous ones left out."""
    prints, catalogue = models
    drawing("fingerprint_influence").draw(files, tmp_path / "a5")
    csv = pd.read_csv(tmp_path / "a5.csv")
    bins, flow, width = csv[csv.what == "bin"], influences(prints), SETTINGS["bin_months"]
    for row in bins.itertuples():
        assert row.last - row.first == width - 1
        inside = [
            (a, b)
            for a, b in flow
            if catalogue[a]["family"] != catalogue[b]["family"]
            and row.first <= catalogue[b]["month"] - catalogue[a]["month"] <= row.last
        ]
        assert row.pairs == len(inside)
        assert row.mean == pytest.approx(np.mean([flow[pair] for pair in inside]), rel=CSV)
    lags = {catalogue[b]["month"] - catalogue[a]["month"] for a, b in flow}
    assert 0 in lags and not ((bins["first"] <= 0) & (bins["last"] >= 0)).any()


def test_bands_of_influence_by_lag(models):
    """Models are drawn; a pair counts as often as both of its models."""
    prints, catalogue = models
    names, flow = list(prints), influences(prints)
    observed = np.array([[flow.get((a, b), 1.0) for b in names] for a in names])
    months = np.array([catalogue[name]["month"] for name in names])
    family = [catalogue[name]["family"] for name in names]
    rows = influence.by_lag(observed, observed, months, family, 6, seed=1, resamples=20_000)
    times = np.random.default_rng(2).multinomial(len(names), [1 / len(names)] * len(names), 20_000)
    for row in rows:
        inside = [
            (i, j)
            for i, j in permutations(range(len(names)), 2)
            if family[i] != family[j] and row["first"] <= months[j] - months[i] <= row["last"]
        ]
        weight = np.array([times[:, i] * times[:, j] for i, j in inside]).T
        some = weight.sum(axis=1) > 0
        values = np.array([observed[pair] for pair in inside])
        draws = (weight @ values)[some] / weight.sum(axis=1)[some]
        low, high = np.quantile(draws, [0.025, 0.975])
        near = RESAMPLED * (high - low) + EXACT
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=near)


# --- claims on fingerprints


@pytest.fixture(scope="module")
def claims(compared, tmp_path_factory) -> dict[str, dict]:
    raw = {"run": "survey", "fingerprint": {"survey": {"kind": "results", "path": "x.json"}}}
    raw["fingerprint"]["survey"] |= {"models": str(ROOT / "config/paper/models.csv")}
    results = tmp_path_factory.mktemp("claims")
    plan = Plan(resolve(raw), str(results))
    made.write(results, "fingerprint/survey/pairs.parquet", compared[0])
    made.write_json(results, "fingerprint/survey/statistics.json", compared[1])
    rows = judge(Run(Plan(as_read(claim_config(plan)), plan.results)))
    return {row["id"]: row for row in rows}


def test_claims_on_overlap(models, claims, compared):
    within, cross, _ = similarities(models, "all")
    both = np.concatenate([within, cross])
    width = both.std(ddof=1) * len(both) ** -0.2
    kde, delta = ovl(within, cross, width, both), dominance(within, cross)
    assert claims["ovl"]["estimate"] == pytest.approx(kde - 0.313, rel=10 * CSV, abs=CSV)
    assert claims["delta"]["estimate"] == pytest.approx(-delta, rel=EXACT)
    assert claims["delta_moderate"]["estimate"] == pytest.approx(delta + 0.572, rel=EXACT)
    rows = pd.DataFrame(compared[1]["overlap"]).set_index(["kind", "statistic", "resampled"])
    row = rows.loc[("all", "cliffs_delta", "models")]
    found = claims["delta"]["low"], claims["delta"]["high"]
    assert found == pytest.approx((-row.high, -row.low), abs=RESAMPLED * 0.1)


def test_claims_on_lags(models, claims, compared):
    """The jackknife leaves out each model; a t-interval with one degree less than models."""
    pairs, raw = signed(models)
    expected = {(r.source, r.target): r.expected for r in compared[0].itertuples()}
    excess = raw - [expected[a, b] - expected[b, a] for a, b in pairs]
    names = sorted({name for pair in pairs for name in pair})
    n = len(names)
    kept = np.array([[name not in pair for pair in pairs] for name in names])
    for claim, difference in (("lag_asymmetry", raw), ("lag_excess", excess)):
        left = np.array([difference[without].mean() for without in kept])
        stderr = np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
        row = claims[claim]
        assert row["estimate"] == pytest.approx(difference.mean(), rel=EXACT)
        ends = stats.t.interval(0.95, n - 1, difference.mean(), stderr)
        near = 0.1 * RESAMPLED * np.ptp(ends)
        assert (row["low"], row["high"]) == pytest.approx(ends, abs=near)


# --- inheritance from known parents


def test_inheritance_of_fingerprints():
    """Effects of text and weights: a regression with a level per child and per member."""
    rng, rows, families = np.random.default_rng(5), [], []
    before = [f"m{i}" for i in range(6)]
    for c, (i, j) in enumerate((i, j) for i in range(3) for j in range(3)):
        family = {"experiment": "e", "generation": 1, "child": f"c{c}", "before": before}
        family |= {"weights_from": [before[i]], "text_from": [before[j]], "parents": before[:3]}
        families.append(family)
        for member in before:
            value = 0.2 + 0.1 * (member == before[j]) + 0.03 * (member == before[i])
            rows.append(
                {
                    "source": member,
                    "target": f"c{c}",
                    "influence": value + 0.02 * rng.standard_normal(),
                    "expected": 0.1,
                    "jaccard_all": 0.1,
                }
            )
    pairs = pd.DataFrame(rows)
    table = inheritance.trace(families, pairs)
    found = {row["effect"]: row for row in inheritance.effects(table, seed=1, permutations=99)}
    text, weights = (
        np.array(
            [row.source == families[int(row.target[1:])][key][0] for row in pairs.itertuples()]
        )
        for key in ("text_from", "weights_from")
    )
    design = np.column_stack(
        [text, weights, pd.get_dummies(pairs.target), pd.get_dummies(pairs.source)]
    ).astype(float)
    beta = np.linalg.lstsq(design, pairs.influence.to_numpy(), rcond=None)[0]
    assert found["text"]["value"] == pytest.approx(beta[0], rel=1e-6)
    assert found["weights"]["value"] == pytest.approx(beta[1], rel=1e-6)
    # all shuffles of the text's parents among the three children with equal weights
    held = design[:, [1, *range(2, design.shape[1])]]
    left = np.eye(len(pairs)) - held @ np.linalg.pinv(held)
    slopes = []
    for order in product(permutations(range(3)), repeat=3):
        given = [families[3 * i + order[i][j]]["text_from"][0] for i in range(3) for j in range(3)]
        x = left @ np.array([r.source == given[int(r.target[1:])] for r in pairs.itertuples()])
        slopes.append(x @ pairs.influence.to_numpy() / (x @ x) if x @ x > EXACT else 0.0)
    share = (np.abs(slopes) >= abs(beta[0]) - EXACT).mean()
    larger = round(100 * found["text"]["p"]) - 1
    assert stats.binomtest(larger, 99, share).pvalue > SAMPLED
    relations = table.relation.value_counts().to_dict()
    assert relations["weights and text"] == 3 and relations["text"] == relations["weights"] == 6
    assert relations["no parent"] == 27
