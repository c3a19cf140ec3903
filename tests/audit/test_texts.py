"""Texts of study A: figure 7, tables 3 to 5, figure 10, degenerate text, semantic diversity."""

import math
import re
from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.manifold import trustworthiness

from pollination.analysis import degeneration, semantics
from pollination.analysis.run import Run
from pollination.figures import drawing
from tests.audit import made
from tests.audit.made import CSV, EXACT, GENERATIONS, correct

SHOWN = {"figure_a7": "fantasy", "table_a3": "spring"}
SHOWN |= dict.fromkeys(("table_a4", "table_a5"), "mathematics")


@pytest.mark.parametrize("target", SHOWN)
def test_one_prompt_over_generations(study_a, target):
    """The best member of each generation and the first line; table 5 continues table 4."""
    rows = made.draw(study_a, target)
    cut = math.ceil(0.6 * GENERATIONS)
    shown = {"table_a4": range(cut), "table_a5": range(cut, GENERATIONS)}
    generations = list(shown.get(target, range(GENERATIONS)))
    assert sorted(rows.generation.unique()) == generations
    for g in generations:
        best = int(correct(study_a, "mmlu", g, "mmlu", "selecting").mean(axis=1).argmax())
        for role, name, m in (("population", "mmlu", best), ("line", "line.s42", 0)):
            texts = pd.read_parquet(made.folder(study_a, name, g, m) / "samples.parquet")
            expected = texts[texts.prompt_id == SHOWN[target]].completion.iloc[0]
            here = rows[(rows.generation == g) & (rows.role == role)]
            assert here.completion.tolist() == [expected] and here.member.tolist() == [m]


def marked(text: str) -> dict[str, float]:
    """Shares of the made texts: their loop, and their one word that English does not have."""
    loop, word = text.find(made.LOOP), text.find(made.NONSENSE)
    found = {
        "repetition": len(made.LOOP) if loop >= 0 else 0,
        "unknown": len(made.NONSENSE) if word >= 0 else 0,
    }
    return {kind: size / len(text) for kind, size in found.items()}


def test_underlined_text(study_a):
    """The underlined characters of the made texts, and each kind by the rule of its page."""
    for target in SHOWN:
        for row in made.draw(study_a, target).itertuples():
            expected = marked(row.completion)
            assert row.repetition == pytest.approx(expected["repetition"], rel=CSV)
            assert row.unknown == pytest.approx(expected["unknown"], rel=CSV)
            assert row.any == pytest.approx(sum(expected.values()), rel=CSV)
    known = frozenset({"see", "the", "of", "a", "river", "list"})
    cases = {
        "see http://a.example/x1 of the river": ("url", r"http\S+"),
        "the river the river the river of a list": ("repetition", r"the river the river the river"),
        "a list of 1, 2, 3, 4, 5, 6, 7": ("enumeration", r"1.*7"),
        "see the brillig of a river": ("unknown", r"brillig"),
    }
    for text, (kind, pattern) in cases.items():
        span = re.search(pattern, text).span()
        found = degeneration.find(text, known)
        assert [(s.start, s.end, s.kind) for s in found] == [(*span, kind)], text


def test_degenerate_text_over_generations(study_a, tmp_path):
    """The mean share over members and prompts, with a t-interval over prompts."""
    drawing("degeneration").draw(Run(study_a), tmp_path / "d")
    csv = pd.read_csv(tmp_path / "d.csv").set_index(["role", "generation", "kind"])
    for g in range(GENERATIONS):
        members = [("mmlu", m) for m in range(16)]
        lines = [("line.s42", 0)] if g == 0 else [(f"line.s{s}", 0) for s in (42, 123, 456)]
        for role, models in (("population", members), ("line", lines)):
            texts = pd.concat(
                pd.read_parquet(made.folder(study_a, name, g, m) / "samples.parquet")
                for name, m in models
            )
            for kind in ("repetition", "unknown"):
                share = texts.completion.map(lambda text, kind=kind: marked(text)[kind])
                each = share.groupby(texts.prompt_id).mean().to_numpy()
                row = csv.loc[(role, g, kind)]
                assert row.value == pytest.approx(each.mean(), rel=CSV)
                low, high = stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))
                ends = (max(low, 0), min(high, 1))
                assert (row.low, row.high) == pytest.approx(ends, rel=10 * CSV, abs=1e-7)


# --- figure 10 and the measures of diversity


def test_map_of_completions(study_a):
    """One point per model and prompt of each generation; the map keeps the neighbours."""
    rows = made.draw(study_a, "figure_a10")
    table = pd.read_parquet(f"{study_a.results}/semantics/tfidf.embeddings.parquet")
    table = table[table.experiment == "winogrande"]
    assert len(rows) == len(table) and set(rows.generation) == set(range(GENERATIONS))
    key = ["generation", "member", "prompt_id"]
    both = rows.merge(table, on=key, validate="one_to_one")
    vectors = np.stack(both.embedding)
    kept = trustworthiness(vectors, both[["x", "y"]].to_numpy(), n_neighbors=5, metric="cosine")
    assert kept > 0.9


def vendi(unit: np.ndarray) -> float:
    values = np.linalg.svd(unit / np.sqrt(len(unit)), compute_uv=False) ** 2
    values = values[values > 1e-12]
    return float(np.exp(stats.entropy(values)))


def bleu(text: list[str], others: list[list[str]]) -> float:
    """BLEU-4 (Papineni 2002): clipped n-gram precision, 0.1 for no match, brevity penalty."""
    orders = min(4, len(text))
    logs = []
    for n in range(1, orders + 1):
        mine = Counter(zip(*(text[i:] for i in range(n)), strict=False))
        most: Counter = Counter()
        for other in others:
            most |= Counter(zip(*(other[i:] for i in range(n)), strict=False))
        hits = (mine & most).total()
        logs.append(math.log(Fraction(hits, mine.total()) or 0.1 / mine.total()))
    closest = min((len(o) for o in others), key=lambda size: (abs(size - len(text)), size))
    short = 1 if len(text) > closest else math.exp(1 - closest / len(text))
    return short * math.exp(sum(logs) / orders)


def test_measures_of_diversity():
    """Spread, mean cosine distance, Vendi score, distinct n-grams, self-BLEU."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 7)) + 1
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centre = unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0))
    assert semantics.spread(unit) == pytest.approx(np.mean(1 - unit @ centre), rel=EXACT)
    assert semantics.pairwise(unit) == pytest.approx(pdist(vectors, "cosine").mean(), rel=EXACT)
    assert semantics.vendi(unit) == pytest.approx(vendi(unit), rel=EXACT)
    texts = [rng.choice(list("abcdef"), n).tolist() for n in (9, 7, 8, 5)]
    for n in (1, 2, 3):
        grams = ["".join(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
        assert semantics.distinct(texts, n) == pytest.approx(
            len(set(grams)) / len(grams), rel=EXACT
        )
    expected = [bleu(text, texts[:i] + texts[i + 1 :]) for i, text in enumerate(texts)]
    assert semantics.self_bleu(texts) == pytest.approx(np.mean(expected), rel=EXACT)


def test_diversity_of_a_population(study_a):
    """Scopes prompt, all and model of one generation, with the jackknife over prompts."""
    table = pd.read_parquet(f"{study_a.results}/semantics/tfidf.embeddings.parquet")
    group = {"group": "winogrande", "experiments": ["winogrande"], "population": 4}
    rows = semantics.compare(table[table.experiment == "winogrande"], [group], seed=1)
    rows = rows[rows.against == ""].set_index(["generation", "scope", "measure", "models"])
    for g in range(GENERATIONS):
        here = table[(table.experiment == "winogrande") & (table.generation == g)]
        prompts = sorted(here.prompt_id.unique())
        vectors = np.array(
            [
                [np.stack(part[part.prompt_id == p].embedding)[0] for p in prompts]
                for _, part in here.groupby("member")
            ]
        )
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        pairs = np.array([pdist(vectors[:, p], "cosine").mean() for p in range(3)])
        check(rows.loc[(g, "prompt", "pairwise", 4)], pairs.mean(), pairs)
        each = np.array([vendi(unit[:, p]) for p in range(3)])
        check(rows.loc[(g, "prompt", "vendi", 4)], each.mean(), each)
        whole = vendi(unit.reshape(12, -1))
        assert rows.loc[(g, "all", "vendi", 4)].value == pytest.approx(whole, rel=EXACT)
        between = [
            1 - unit[m, p] @ unit[n, q]
            for m in range(4)
            for n in range(4)
            for p, q in combinations(range(3), 2)
        ]
        found = rows.loc[(g, "all", "between", 4)].value
        assert found == pytest.approx(np.mean(between), rel=EXACT)
        alone = [pdist(vectors[m], "cosine").mean() for m in range(4)]
        found = rows.loc[(g, "model", "between", 1)].value
        assert found == pytest.approx(np.mean(alone), rel=EXACT)


def check(row: pd.Series, value: float, each: np.ndarray) -> None:
    """The mean over prompts and its t-interval."""
    ends = stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))
    assert (row.value, row.low, row.high) == pytest.approx((value, *ends), rel=EXACT)
