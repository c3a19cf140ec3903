"""Study B's figures, recomputed from the losses of blocks: perplexity, aggregates, D_opt, bands."""

from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy, gaussian_kde

from pollination.analysis import ecosystems
from pollination.plan.plan import Plan
from tests.audit import made
from tests.audit.made import (
    CSV,
    EXACT,
    LONG,
    RESAMPLED,
    ROUNDS,
    equally,
    losses,
    mu,
    perplexities,
)

SHARED = dict.fromkeys([f"figure_b{n}" for n in (*range(3, 9), *range(13, 22))], ROUNDS)
ROUNDS_OF = SHARED | {"figure_b9": LONG, "figure_b10": LONG}


@pytest.fixture(scope="module")
def drawn(study_b):
    return cache(lambda target: made.draw(study_b, target))


def entries(plan: Plan, target: str) -> dict[str, dict[str, list[str]]]:
    return plan.config["figures"]["paper"][target]


def diversity(plan: Plan, names: list[str]) -> float:
    """Equation 1 with equal weights; members of one model, corpus and segment are one kind."""
    settings = plan.config["experiments"][names[0].split(":")[0]]
    pool, kinds = plan.config["founders"][settings["founders"]], Counter()
    for m in range(settings["population"]):
        model, corpus = (
            value if isinstance(value, str) else value[m]
            for value in (pool["model"], pool["corpus"])
        )
        kinds[model, corpus, pool["segments"][m] if isinstance(pool["segments"], list) else m] += 1
    shares = np.array(list(kinds.values())) / kinds.total()
    return round(float(np.exp(-(shares * np.log(shares)).sum())), 6)


def panel_of(rows: pd.DataFrame, title: str) -> pd.DataFrame:
    """The rows of the panel whose title begins with the entry's title."""
    return rows[[text == title or text.startswith(f"{title}, ") for text in rows.title]]


def replicates(plan: Plan, names: list[str], rounds: int) -> list[list[list[np.ndarray]]]:
    """Replicate -> test corpus -> member -> (T, B)."""
    found = []
    for name in names:
        every = [perplexities(plan, name, t) for t in range(rounds)]
        of_corpus: dict[str, list[np.ndarray]] = {}
        for (corpus, _), member in zip(
            losses(plan, name, 0), zip(*every, strict=True), strict=True
        ):
            of_corpus.setdefault(corpus, []).append(np.stack(member))
        found.append(list(of_corpus.values()))
    return found


def bootstrap(plan: Plan, entry: dict[str, list[str]], rounds: int, draws: int = 1500):
    """(draws, ecosystems, T): mu_T of resampled blocks, replicates and members, one by one.

    Members are drawn within their test corpus, and the corpora count equally.
    """
    rng, found = np.random.default_rng(11), []
    every = [replicates(plan, names, rounds) for names in entry.values()]
    for _ in range(draws):
        blocks: dict[int, np.ndarray] = {}  # all models read the same blocks
        means = []
        for runs in every:
            chosen = [runs[i] for i in rng.integers(0, len(runs), len(runs))]
            of_runs = []
            for corpora in chosen:
                of_corpora = []
                for members in corpora:
                    values = []
                    for m in rng.integers(0, len(members), len(members)):
                        size = members[m].shape[1]
                        blocks.setdefault(size, rng.integers(0, size, size))
                        values.append(members[m][:, blocks[size]].mean(axis=1))
                    of_corpora.append(np.mean(values, axis=0))
                of_runs.append(np.mean(of_corpora, axis=0))
            means.append(np.mean(of_runs, axis=0))
        found.append(np.cumsum(means, axis=1) / np.arange(1, rounds + 1))
    return np.array(found)


def of_names(plan: Plan, names: list[str], rounds: int, split: str = "test") -> np.ndarray:
    return np.mean([mu(plan, name, rounds, split) for name in names], axis=0)


def test_effective_number_of_models():
    """Equation 1 against scipy; equal shares give M (equation 2)."""
    shares = [0.5, 0.3, 0.2]
    assert ecosystems.hill_shannon(shares) == pytest.approx(np.exp(entropy(shares)), rel=EXACT)
    for models in range(1, 65):
        assert ecosystems.diversity(range(models)) == models  # exp(log(8)) is 7.999999999999998
    assert ecosystems.diversity("aab") == pytest.approx(np.exp(entropy([2, 1])), rel=EXACT)


def test_diversity_of_each_entry(study_b, drawn):
    for target in ("figure_b4", "figure_b15", "figure_b16", "figure_b17", "figure_b20"):
        every = list(entries(study_b, target).values())
        expected = {label: diversity(study_b, names) for e in every for label, names in e.items()}
        rows = drawn(target).dropna(subset="experiment").drop_duplicates("experiment")
        found = dict(zip(rows.experiment, rows.diversity, strict=True))
        assert {label: found[label] for label in expected} == pytest.approx(expected, rel=CSV)


PLAIN = ("figure_b4", "figure_b8", "figure_b10", "figure_b16", "figure_b17", "figure_b19")
PLAIN += ("figure_b20",)


@pytest.mark.parametrize("target", [*PLAIN, "figure_b21"])
def test_trajectories(study_b, drawn, target):
    """mu_t (equation 3), the combined standard deviation, and exp of the mean loss per token."""
    rows, rounds = drawn(target), ROUNDS_OF[target]
    rows = rows[rows.t.notna() & ~rows.title.str.endswith("segment")]
    for title, entry in entries(study_b, target).items():
        for label, names in entry.items():
            mine = panel_of(rows, title)
            mine = mine[(mine.experiment == label) & (mine.t >= 0)].sort_values("t")
            assert mine.t.tolist() == list(range(rounds))
            assert mine.mu.to_numpy() == pytest.approx(of_names(study_b, names, rounds), rel=CSV)
            for t, row in enumerate(mine.itertuples()):
                around = [
                    equally(
                        study_b,
                        name,
                        [np.mean((p - row.mu) ** 2) for p in perplexities(study_b, name, t)],
                    )
                    for name in names
                ]
                assert row.sd == pytest.approx(np.sqrt(np.mean(around)), rel=10 * CSV)
                assert row.token_perplexity == pytest.approx(token(study_b, names, t), rel=CSV)


def token(plan: Plan, names: list[str], t: int) -> float:
    """The mean over runs, corpora and members of exp(summed loss / summed tokens)."""
    found = []
    for name in names:
        every = [table for _, table in losses(plan, name, t)]
        each = [np.exp(table.nll.sum() / table.tokens.sum()) for table in every]
        found.append(equally(plan, name, each))
    return float(np.mean(found))


def test_trajectories_on_training_text(study_b, drawn):
    """Figure 21 c and d: the segment that the founder has read."""
    rows = drawn("figure_b21")
    rows = rows[rows.title.str.endswith("segment")]
    for title, entry in entries(study_b, "figure_b21").items():
        for label, names in entry.items():
            mine = panel_of(rows, title)
            mine = mine[mine.experiment == label].sort_values("t")
            expected = of_names(study_b, names, ROUNDS, "segment")
            assert mine.mu.to_numpy() == pytest.approx(expected, rel=CSV)


def test_base_models_before_the_first_round(study_b, drawn):
    """Figure 8, t = -1: the untouched model, each block by hand."""
    rows = drawn("figure_b8")
    for title, model in (("OPT-125m", "opt125m"), ("GPT2", "gpt2")):
        table = pd.read_parquet(f"{study_b.results}/base/{model}/member0/sequences.parquet")
        table = table[(table.corpus == "own") & (table.split == "test")]
        first = panel_of(rows, title).query("t == -1")
        assert first.mu.to_numpy() == pytest.approx(
            np.exp(table.nll / table.tokens).mean(), rel=CSV
        )
        assert len(first) == 4


OPTIMA = ("figure_b3", "figure_b5", "figure_b6", "figure_b7", "figure_b10", "figure_b14")


def ladder(plan: Plan, target: str) -> set[float]:
    """The diversities that every entry of a figure has."""
    every = entries(plan, target).values()
    return set.intersection(*({diversity(plan, n) for n in entry.values()} for entry in every))


def optimum_rows(plan: Plan, drawn, target: str) -> pd.DataFrame:
    rows = drawn(target)
    return rows[(rows.panel.isin(["a"]) | rows.panel.isin(["b"])) & rows.optimum.notna()]


@pytest.mark.parametrize("target", OPTIMA)
def test_optimal_diversity(study_b, drawn, target):
    """Equations 4 and 5: D_opt(T) is the smallest running mean over the common diversities."""
    rows, rounds = drawn(target), ROUNDS_OF[target]
    rows = rows[rows.optimum.isin([True, "True"])]
    common = ladder(study_b, target)
    for title, entry in entries(study_b, target).items():
        level = {diversity(study_b, names): names for names in entry.values()}
        level = {d: level[d] for d in sorted(level) if d in common}
        mus = np.array([of_names(study_b, names, rounds) for names in level.values()])
        running = np.cumsum(mus, axis=1) / np.arange(1, rounds + 1)
        mine = rows[rows.label == title].sort_values("T")
        assert mine["T"].tolist() == list(range(1, rounds + 1))
        best = running.argmin(axis=0)
        assert mine.diversity.tolist() == pytest.approx([list(level)[i] for i in best], rel=CSV)
        assert mine.mu.to_numpy() == pytest.approx(running.min(axis=0), rel=CSV)
        rises = (np.diff(best) >= 0).all()  # equation 6
        assert set(mine.monotone.astype(str)) == {str(bool(rises))}


def test_certainty_of_the_optimum(study_b, drawn):
    """Figure 3: intervals of mu_T, the probability that D is best, that D_opt never falls."""
    rows = drawn("figure_b3")
    for title, entry in entries(study_b, "figure_b3").items():
        found = bootstrap(study_b, entry, ROUNDS)
        best = found.argmin(axis=1)
        mine = rows[rows.label == title]
        for d, names in enumerate(entry.values()):
            for T in range(ROUNDS):
                row = mine[(mine["T"] == T + 1) & (mine.diversity == diversity(study_b, names))]
                low, high = np.quantile(found[:, d, T], [0.025, 0.975])
                near = RESAMPLED * (high - low)
                assert row.low.iloc[0] == pytest.approx(low, abs=near)
                assert row.high.iloc[0] == pytest.approx(high, abs=near)
                share = (best[:, T] == d).mean()
                assert row.probability.iloc[0] == pytest.approx(share, abs=RESAMPLED)
        never_falls = (np.diff(best, axis=1) >= 0).all(axis=1).mean()
        assert mine.monotone_probability.iloc[0] == pytest.approx(never_falls, abs=RESAMPLED)
        rises = (best[:, -1] > best[:, 0]).mean()
        assert mine.rises_probability.iloc[0] == pytest.approx(rises, abs=RESAMPLED)


@pytest.mark.parametrize("target", ["figure_b4", "figure_b5", "figure_b14"])
def test_aggregated_perplexity(study_b, drawn, target):
    """Equation 4 over all rounds, and its interval."""
    rows = drawn(target)
    rows = rows[(rows.title == "aggregated perplexity") & rows["T"].notna()]
    for title, entry in entries(study_b, target).items():
        found = bootstrap(study_b, entry, ROUNDS, 800)[:, :, -1] if target == "figure_b4" else None
        for d, names in enumerate(entry.values()):
            one = rows[(rows.label == title) & (rows.diversity == diversity(study_b, names))]
            expected = of_names(study_b, names, ROUNDS).mean()
            assert one.mu.tolist() == pytest.approx([expected], rel=CSV)
            if found is not None:
                ends = np.quantile(found[:, d], [0.025, 0.975])
                near = RESAMPLED * np.ptp(ends)
                assert [one.low.iloc[0], one.high.iloc[0]] == pytest.approx(ends, abs=near)


LEVELS = [("figure_b5", "c", 1), ("figure_b5", "d", 16), ("figure_b14", "c", 1)]
LEVELS += [("figure_b14", "d", 16), ("figure_b7", "b", 1), ("figure_b7", "c", 16)]
LEVELS += [("figure_b6", panel, d) for panel, d in zip("bcde", (1, 2, 4, 16), strict=True)]


@pytest.mark.parametrize(("target", "panel", "level"), LEVELS)
def test_one_level_of_all_entries(study_b, drawn, target, panel, level):
    rows = drawn(target)
    rows = rows[rows.panel == panel]
    assert set(rows.diversity) == {level}
    for title, entry in entries(study_b, target).items():
        (names,) = [names for names in entry.values() if diversity(study_b, names) == level]
        mine = rows[rows.entry == title].sort_values("t")
        assert mine.mu.to_numpy() == pytest.approx(of_names(study_b, names, ROUNDS), rel=CSV)


def test_independent_runs(study_b, drawn):
    """Figure 9: mean and standard deviation over the blocks of each of the four runs."""
    rows = drawn("figure_b9")
    ((names,),) = (entry.values() for entry in entries(study_b, "figure_b9").values())
    assert len(names) == len({study_b.config["experiments"][n]["founders"] for n in names}) == 4
    each = np.array([mu(study_b, name, LONG) for name in names])
    for name in names:
        mine = rows[rows.experiment == name].sort_values("t")
        assert mine.mean_of_runs.to_numpy() == pytest.approx(each.mean(axis=0), rel=CSV)
        assert mine.sd_of_runs.to_numpy() == pytest.approx(each.std(axis=0, ddof=1), rel=10 * CSV)
        blocks = [perplexities(study_b, name, t)[0] for t in range(LONG)]
        assert mine.mu.to_numpy() == pytest.approx([b.mean() for b in blocks], rel=CSV)
        assert mine.sd.to_numpy() == pytest.approx([b.std() for b in blocks], rel=10 * CSV)


def test_distributions_of_blocks(study_b, drawn):
    """Figure 13: all members' blocks together, against scipy's kernel density (Scott's rule)."""
    rows = drawn("figure_b13")
    for title, entry in entries(study_b, "figure_b13").items():
        for label, names in entry.items():
            for t in (0, ROUNDS - 1):
                every = [perplexities(study_b, name, t, "segment") for name in names]
                mixed = np.log10(np.concatenate([p for found in every for p in found]))
                mine = rows[(rows.experiment == label) & (rows.t == t)]
                mine = mine[mine.title.str.startswith(title)].sort_values("perplexity")
                assert mine.mean_log10.iloc[0] == pytest.approx(mixed.mean(), rel=CSV)
                assert mine.sd_log10.iloc[0] == pytest.approx(mixed.std(), rel=10 * CSV)
                x, y = np.log10(mine.perplexity), mine.density
                assert np.trapezoid(y, x) == pytest.approx(1, abs=made.DENSITY)
                expected = gaussian_kde(mixed, "scott")(x)
                assert np.abs(y - expected).max() < made.DENSITY * expected.max()


def test_compared_ecosystems(study_b, drawn):
    """Figure 15: aggregates of each ecosystem of each entry; test corpora count equally."""
    rows = drawn("figure_b15")
    for title, entry in entries(study_b, "figure_b15").items():
        found = bootstrap(study_b, entry, ROUNDS, 800)[:, :, -1]
        for place, (label, names) in enumerate(entry.items()):
            one = rows[(rows.entry == title) & (rows.experiment == label)]
            expected = of_names(study_b, names, ROUNDS).mean()
            assert one["aggregate"].tolist() == pytest.approx([expected], rel=CSV)
            ends = np.quantile(found[:, place], [0.025, 0.975])
            near = RESAMPLED * np.ptp(ends)
            assert [one.low.iloc[0], one.high.iloc[0]] == pytest.approx(ends, abs=near)
            share = (found.argmin(axis=1) == place).mean()
            assert one.best_probability.iloc[0] == pytest.approx(share, abs=RESAMPLED)


def test_base_trained_on_the_text_of_a_round(study_b, drawn):
    """Figure 18 a: x = t shows the model that read the text of round t, generation t + 1."""
    rows = drawn("figure_b18")
    rows = rows[(rows.panel == "a") & rows.experiment.notna()]
    ((title, entry),) = entries(study_b, "figure_b18").items()
    for label, (name,) in entry.items():
        mine = rows[rows.experiment == label].set_index("t").mu
        written = mu(study_b, name, study_b.config["experiments"][name]["generations"])[1:]
        assert {t: value for t, value in mine.items() if t >= 0} == pytest.approx(
            dict(enumerate(written)), rel=CSV
        ), title


def test_base_on_the_text_of_a_round(study_b, drawn):
    """Figure 18 b: the untouched model's blocks of each round's text."""
    rows = drawn("figure_b18")
    rows = rows[(rows.panel == "b") & rows.source.notna()].set_index(["source", "t"])
    table = pd.read_parquet(f"{study_b.results}/base/opt125m/member0/sequences.parquet")
    for source, t in rows.index:
        part = table[table.corpus == f"wrote_{source.removeprefix('opt_')}_{t}"]
        each = np.exp(part.nll / part.tokens)
        row = rows.loc[(source, t)]
        assert row.mu == pytest.approx(each.mean(), rel=CSV)
        assert row.sd == pytest.approx(each.std(ddof=0), rel=10 * CSV)
        all_tokens = np.exp(part.nll.sum() / part.tokens.sum())
        assert row.token_perplexity == pytest.approx(all_tokens, rel=CSV)
    assert {source for source, _ in rows.index} == {"opt_m1", "opt_m16"}
    assert {t for _, t in rows.index} >= set(range(ROUNDS))
