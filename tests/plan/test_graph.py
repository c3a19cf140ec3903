"""The interaction graph: who reads whom, and which files and jobs follow from it."""

from collections import Counter

import pytest

from pollination.core.settings import definition, lean
from pollination.plan import lineage
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.graph import draw, graph_of
from pollination.plan.inputs import child_inputs, soup_inputs, soup_shares, training
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from pollination.plan.pruning import prunable_text, text_pruning_inputs
from pollination.plan.synthetic import all_shards, mixture, mixture_inputs, synthetic_text, writers
from tests.conftest import study_a

KEYS = definition("graph")["properties"]


def rows(writers: int, generation: int = 1, seed: int = 1, **settings) -> list[dict]:
    """Return the shares of each place, rounded."""
    graph = {key: node.get("default") for key, node in KEYS.items()} | settings
    drawn = draw(graph, seed, writers, generation)
    return [
        {rank: round(share, 3) for rank, share in drawn.of(child).items()}
        for child in range(writers)
    ]


def plan(text: str = "graph", **settings) -> Plan:
    raw = study_a()
    raw["defaults"]["mutate"] = {}
    experiment = {"population": 4, "generations": 3, "weights": "fresh", "text": text}
    raw["experiments"] = {"e": experiment | settings}
    return Plan(resolve(raw), "r")


def of_rule(rule: str, **settings) -> Plan:
    return plan(graph={"rule": rule} | settings)


def test_rules_read_whom_they_say():
    assert rows(4, rule="ring") == [{0: 0.5, 3: 0.5}, *({m - 1: 0.5, m: 0.5} for m in (1, 2, 3))]
    assert rows(3, rule="star", hub=1) == [
        {0: 0.5, 1: 0.5},
        {0: 0.333, 1: 0.333, 2: 0.333},
        {1: 0.5, 2: 0.5},
    ]
    assert set(rows(6, rule="nearest", neighbours=3)[0]) == {0, 1, 4, 5}
    assert rows(3, rule="mixed") == [{0: 0.333, 1: 0.333, 2: 0.333}] * 3
    assert rows(2, rule="shares", shares=[[1, 0], [0.25, 0.75]]) == [{0: 1}, {0: 0.25, 1: 0.75}]
    assert rows(1, rule="ring") == rows(1, rule="mixed") == [{0: 1}]


def test_own_is_the_share_of_the_own_writer_and_others_share_the_rest():
    assert rows(3, rule="mixed", own=0.5) == [
        {m: 0.5 if m == child else 0.25 for m in range(3)} for child in range(3)
    ]
    assert rows(3, rule="ring", own=0) == [{2: 1}, {0: 1}, {1: 1}]
    assert rows(3, rule="mixed", own=1) == [{0: 1}, {1: 1}, {2: 1}]


def test_text_migrates_between_islands_every_few_generations():
    settings = {"rule": "islands", "islands": 2, "every": 3, "migration": 0.2}
    alone = [{0: 0.333, 1: 0.333, 2: 0.333}] * 3 + [{3: 0.5, 4: 0.5}] * 2
    assert rows(5, 1, **settings) == rows(5, 2, **settings) == alone
    moved = rows(5, 3, **settings)
    assert moved[0] == {0: 0.267, 1: 0.267, 2: 0.267, 3: 0.1, 4: 0.1}
    assert moved[4] == {0: 0.067, 1: 0.067, 2: 0.067, 3: 0.4, 4: 0.4}


def test_a_small_world_is_a_rewired_ring():
    none, every = (rows(40, rule="small_world", neighbours=4, rewiring=p) for p in (0, 1))
    assert none == rows(40, rule="nearest", neighbours=4)
    assert all(len(row) == 5 and place in row for place, row in enumerate(every))
    some = rows(40, rule="small_world", neighbours=4, rewiring=0.25)
    kept = sum(len(some[m].keys() & none[m].keys()) - 1 for m in range(40))
    assert 0.6 < kept / 160 < 0.9
    assert rows(40, seed=2, rule="small_world", rewiring=1) != rows(
        40, seed=3, rule="small_world", rewiring=1
    )


def test_a_graph_is_fixed_or_drawn_anew_in_each_generation():
    settings = {"rule": "ring", "own": 0}
    assert rows(9, 1, **settings) == rows(9, 2, **settings)
    first, second = (rows(9, g, draw="each_generation", **settings) for g in (1, 2))
    assert first != second and first == rows(9, 1, draw="each_generation", **settings)
    assert sorted(rank for row in first for rank in row) == list(range(9))  # still one ring
    assert rows(9, 1, seed=5, draw="each_generation", **settings) != first
    given = {"draw": "each_generation", "seed": 1} | settings
    drawn = plan(population=9, graph=given, replicates=[7])
    assert graph_of(drawn, "e", 1).rows == graph_of(drawn, "e.s7", 1).rows


def test_a_child_reads_shards_a_mixture_or_a_share_of_the_pool():
    p = plan(graph={"rule": "shares", "shares": [[1, 0, 0, 0], [0.5, 0.5, 0, 0]] * 2})
    assert child_inputs(p, "e", 2, 0)["text"] == ["r/e/gen1/synthetic0/shard0.parquet"]
    assert child_inputs(p, "e", 2, 1)["text"] == ["r/e/gen1/mix1/text.parquet"]
    assert mixture_inputs(p, "e", 1, 1) == all_shards(p, "e", 1)
    assert mixture(p, "e", 1, 1) == [0.5, 0.5]
    assert list(writers(p, "e", 1)) == [0, 1] and not writers(p, "e", 2)
    made = Counter(work.kind.rule for work in jobs(p))
    assert (made["generate_shard"], made["mix_text"], made["deal_pool"]) == (2 * 2, 2 * 2, 0)
    node = lineage.family(p, "e")[2, 1]
    assert node["text_from"] == [(1, 0), (1, 1)] and node["shards"] == all_shards(p, "e", 1)


@pytest.mark.parametrize(
    ("text", "settings", "rule", "own"),
    [
        ("own", {}, "mixed", 1),
        ("own", {}, "ring", 1),
        ("parent", {"select": {"task": "knowledge"}}, "star", 1),
        ("pool", {}, "mixed", None),
        ("pool", {"select": {"task": "knowledge"}}, "mixed", None),
        ("pool", {"human": {"accumulate": "all"}}, "mixed", None),
        ("own", {"human": {"accumulate": "fixed"}}, "mixed", 1),
    ],
)
def test_the_operators_of_text_are_graphs_with_the_same_plan(text, settings, rule, own):
    plain, graph = plan(text, **settings), plan(graph={"rule": rule, "own": own}, **settings)
    drawn = "interaction_graph.csv"  # the report of a graph has one figure more
    assert list(jobs(plain)) == [work for work in jobs(graph) if not work.output.endswith(drawn)]
    for g in (1, 2):
        for m in range(4):
            assert child_inputs(plain, "e", g, m) == child_inputs(graph, "e", g, m)
    if not settings:
        assert lineage.family(plain, "e") == lineage.family(graph, "e")


def test_a_finished_run_has_no_new_param():
    assert "graph" not in training(plan("own"), "e/gen1")
    assert "graph" not in lean(plan("own").config["experiments"]["e"], definition("experiment"))
    assert training(of_rule("ring"), "e/gen1") == training(of_rule("star"), "e/gen1")


def test_human_text_own_text_and_text_of_others_are_one_mixture():
    p = plan(graph={"rule": "mixed", "own": 0.3}, human={"fraction": 0.2}, population=2)
    assert mixture(p, "e", 0, 0) == pytest.approx([0.3 / 0.8, 0.5 / 0.8])
    assert mixture(p, "e", 0, 1) == pytest.approx([0.5 / 0.8, 0.3 / 0.8])
    same = [[0.3, 0.5], [0.5, 0.3]]
    q = plan(graph={"rule": "shares", "shares": same}, human={"fraction": 0.2}, population=2)
    assert mixture(q, "e", 0, 0) == pytest.approx(mixture(p, "e", 0, 0))
    assert "human" in child_inputs(p, "e", 1, 0)
    alone = plan(graph={"rule": "mixed", "own": 0.05}, human={"fraction": 0.95})
    assert mixture(alone, "e", 0, 1) == [1.0]  # 1 - 0.95 is more than 0.05


def test_accumulated_rounds_may_have_different_numbers_of_files():
    p = plan(
        graph={"rule": "islands", "islands": 4, "every": 2, "migration": 0.5},
        human={"accumulate": "all"},
    )
    assert synthetic_text(p, "e", 2, 1) == [
        "r/e/gen0/synthetic1/shard0.parquet",
        "r/e/gen1/mix1/text.parquet",
    ]


def test_mixtures_are_deleted_with_the_text_they_come_from():
    raw_keep = {"checkpoints": "all", "text": "none"}
    p = of_rule("ring")
    p = Plan(p.config | {"keep": raw_keep}, "r")
    assert prunable_text(p, "e", 0) == all_shards(p, "e", 0) + [
        f"r/e/gen0/mix{m}/text.parquet" for m in range(4)
    ]
    done = text_pruning_inputs(p, "e", 0)
    assert {f"r/e/gen0/mix{m}/run.json" for m in range(4)} <= set(done)


def test_with_selection_writers_are_ranks_and_children_share_them():
    p = plan(
        graph={"rule": "mixed", "own": 0.5}, population=6, select={"task": "knowledge", "k": 2}
    )
    assert mixture(p, "e", 0, 4) == mixture(p, "e", 0, 0) == [0.5, 0.5]
    ring = plan(
        graph={"rule": "ring", "own": 0}, population=6, select={"task": "knowledge", "k": 3}
    )
    assert child_inputs(ring, "e", 1, 4)["text"] == ["r/e/gen0/synthetic0/shard0.parquet"]


def test_a_soup_averages_the_models_that_its_graph_names():
    p = plan("own", weights="soup", soup={"rule": "ring"})
    for m in (0, 3):
        path = f"r/e/gen1/soup{m}/model.safetensors"
        assert child_inputs(p, "e", 2, m)["weights"] == [path]
    assert soup_inputs(p, "e", 1, 0)["members"] == [
        f"r/e/gen1/member{m}/model.safetensors" for m in (0, 3)
    ]
    assert soup_shares(p, "e", 1, 0) == [(0, 0.5), (3, 0.5)]
    node = lineage.family(p, "e")[2, 0]
    assert (node["weights_from"], node["averaged_with"]) == ((1, 0), [(1, 3)])
    tree = lineage.ancestry(p, "e", 2, 0)
    assert {(n["generation"], n["member"]) for n in tree["nodes"]} == {
        *((2, 0), (1, 0), (1, 3), (0, 0), (0, 2), (0, 3)),
    }
    assert "averaged with" in lineage.format_ancestry(tree)


def test_children_with_equal_shares_have_one_soup_and_a_single_model_needs_none():
    mixed = plan("own", weights="soup", soup={"rule": "mixed"})
    assert Counter(work.kind.rule for work in jobs(mixed))["average_weights"] == 2
    single, own = (
        plan("own", weights="soup", soup={"rule": "mixed", "own": 1}),
        plan("own", weights="own"),
    )
    assert child_inputs(single, "e", 2, 1) == child_inputs(own, "e", 2, 1)
    assert list(jobs(single)) == list(jobs(own))
    ranks = plan(
        "parent", weights="soup", soup={"rule": "mixed"}, select={"task": "knowledge", "k": 2}
    )
    given = soup_inputs(ranks, "e", 0, 0)
    assert given["selection"] == ["r/e/gen0/selection.json"] and len(given["members"]) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text": "own", "weights": "soup"}, "soup: the key is missing, but .*weights is 'soup'"),
        ({"text": "own", "soup": {"rule": "ring"}}, "soup has no effect with weights: 'fresh'"),
        (
            {"text": "own", "weights": "soup", "soup": {"rule": "star", "hub": 9}},
            "soup.hub: 9 is too large for 4 writers",
        ),
        ({"graph": None}, "graph: the key is missing, but experiments.e.text is 'graph'"),
        ({"text": "own", "graph": {"rule": "ring"}}, "graph has no effect with text: 'own'"),
        ({"graph": {"rule": "ring", "hub": 1}}, "hub: 1 has no effect with rule: ring"),
        ({"graph": {"rule": "star", "hub": 4}}, "hub: 4 is too large for 4 writers"),
        ({"graph": {"rule": "nearest", "neighbours": 4}}, "allowed: at most 3"),
        ({"graph": {"rule": "islands", "islands": 5}}, "islands: 5 is too large"),
        (
            {"graph": {"rule": "islands", "islands": 4, "every": 2, "own": 0.5}},
            "but rank 0 reads nobody else",
        ),
        ({"graph": {"rule": "shares"}}, "shares: the key is missing"),
        ({"graph": {"rule": "ring", "shares": [[1]]}}, "has no effect with rule: ring"),
        ({"graph": {"rule": "shares", "shares": [[1]]}}, "allowed: 4 lists .* of 4"),
        (
            {"graph": {"rule": "shares", "shares": [[0.5, 0.4, 0, 0]] * 4}},
            "child 0 and human.fraction 0.0 sum to 0.9; they must sum to 1",
        ),
        (
            {"graph": {"rule": "mixed", "own": 0.9}, "human": {"fraction": 0.2}},
            "own: 0.9 and human.fraction 0.2 exceed 1",
        ),
        ({"graph": {"rule": "mixed"}, "human": {"fraction": 1}}, "has no text to share"),
        ({"graph": {"rule": "mixed"}, "text_of": "e"}, "needs text: pool"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_by_its_key(settings, words):
    with pytest.raises(ConfigError, match=words):
        plan(**settings)


@pytest.mark.parametrize(("rule", "files"), [("ring", 2), ("mixed", 5000)])
def test_the_limit_of_files_counts_the_writers_that_a_child_reads(rule, files):
    settings = {"population": 5000, "generations": 2, "graph": {"rule": rule}}
    if files == 2:
        assert len(mixture(plan(**settings), "e", 0, 0)) == files
        return
    with pytest.raises(ConfigError, match="text files to read"):
        plan(**settings)


def test_models_of_two_architectures_have_no_average():
    raw = study_a()
    raw["defaults"]["mutate"] = {}
    raw["models"]["other"] = dict(raw["models"]["tiny"])
    raw["founders"]["human"]["model"] = ["tiny", "other"]
    soup = {"population": 2, "weights": "soup", "soup": {"rule": "ring"}, "text": "own"}
    raw["experiments"] = {"e": soup}
    with pytest.raises(ConfigError, match="only models of one architecture can be averaged"):
        resolve(raw)
