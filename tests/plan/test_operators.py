"""The table of operators: who gives a child its weights and its text, and which values may stand
together.
"""

import pytest

from pollination.plan import lineage
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.inputs import child_inputs
from pollination.plan.jobs import jobs
from pollination.plan.operators import MUTATION, SELECTION, TEXTS, WEIGHTS, hands_on_weights
from pollination.plan.plan import Plan
from tests.conftest import study_a


def plan(weights: str, text: str, **settings) -> Plan | None:
    """An experiment of four members and three generations, or None where it is refused."""
    raw = study_a()
    if weights == "base":
        raw["models"]["tiny"] = {"pretrained": "somewhere"}
    experiment = {"population": 4, "generations": 3, "weights": weights, "text": text} | settings
    experiment |= {"graph": {"rule": "ring"}} if text == "graph" else {}
    experiment |= {"soup": {"rule": "ring"}} if weights == "soup" else {}
    raw["defaults"]["mutate"] = {}
    raw["experiments"] = {"e": experiment}
    try:
        return Plan(resolve(raw), "r")
    except ConfigError as refused:
        assert len(str(refused).splitlines()) == (
            2 if WEIGHTS[weights].needs_selection and TEXTS[text].needs_selection else 1
        )
        return None


@pytest.mark.parametrize("selects", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("text", TEXTS)
def test_each_pair_of_operators_is_planned_or_refused(tmp_path, weights, text, selects):
    p = plan(weights, text, select={"task": "knowledge"} if selects else {})
    needs = WEIGHTS[weights].needs_selection or TEXTS[text].needs_selection
    assert (p is None) == ((not selects and needs) or (selects and TEXTS[text].refuses_selection))
    if p is None:
        return
    given = child_inputs(p, "e", 2, 3)
    made = {work.output for work in jobs(p)}
    read = [path for path in given["weights"] + given["text"] if not path.startswith("r/models/")]
    assert set(read) <= made, "nothing is read that no job makes"
    written = ("/parent", "/soup")
    assert any(part in path for path in given["weights"] for part in written) == hands_on_weights(
        p.experiment("e")
    )
    assert ("segment" in given) == TEXTS[text].is_human


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_lineage_names_the_members_whose_files_a_child_reads(weights, text):
    """Without selection a rank is a slot, so the files say who gave what."""
    p = plan(weights, text)
    if p is None:
        return
    node = lineage.family(p, "e")[2, 3]
    given = child_inputs(p, "e", 2, 3)
    folders = {
        "r/founders/human/member3": (0, 3),
        "r/e/gen1/member3": (1, 3),
    }
    (start,) = given["weights"] or [None]
    expected = folders.get(start.removesuffix("/model.safetensors")) if start else None
    expected = (1, 2) if weights == "soup" else expected
    assert node["weights_from"] == expected
    assert node["averaged_with"] == ([(1, 3)] if weights == "soup" else [])
    writers = {"own": [(1, 3)], "pool": [(1, m) for m in range(4)], "graph": [(1, 2), (1, 3)]}
    writers = writers.get(text, [])
    assert node["text_from"] == writers and bool(node["shards"]) == bool(writers)


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_founder_that_is_taken_as_it_is_has_read_no_human_text(epochs):
    raw = study_a()
    raw["models"]["tiny"] = {"pretrained": "somewhere"}
    raw["founders"]["human"]["train"]["epochs"] = epochs
    nodes = lineage.family(Plan(resolve(raw), "r"), "line.s42")
    assert (nodes[0, 0]["human"], nodes[0, 0]["pretrained"]) == (
        "world" if epochs else None,
        "tiny",
    )


def test_only_weights_of_the_generation_before_are_mutated():
    for weights, entry in WEIGHTS.items():
        select = {"task": "knowledge"} if entry.needs_selection else {}
        p = plan(weights, "human", select=select, mutate={"scale": 0.1})
        assert (p is not None) == entry.can_mutate, weights  # refused, as it has no effect
        if p is not None:
            start = child_inputs(p, "e", 2, 3)["weights"]
            assert any("/gen1/parent" in path for path in start), weights


@pytest.mark.parametrize(
    ("rule", "settings", "measured", "words"),
    [
        ("once", {"weights": "fresh"}, True, "weights: 'fresh' breaks the lines"),
        ("once", {}, True, None),
        ("oracle", {}, False, "measures no held-out text of a microworld in generation 0"),
        ("oracle", {"generations": 1}, [{"generations": [0]}], None),
        ("oracle", {}, [{"generations": [0, 2]}], "microworld in generation 1"),
        ("oracle", {}, [{"split": "train"}], "microworld in generation 0"),
        ("oracle", {}, True, None),
    ],
)
def test_a_rule_finds_what_it_reads(rule, settings, measured, words):
    raw = study_a()
    entry = raw["evaluate"]["perplexity"][0]
    if measured is not True:
        raw["evaluate"]["perplexity"] = [entry | more for more in measured or []]
    raw["defaults"]["mutate"] = {}
    experiment = {"population": 4, "generations": 3, "weights": "parent", "text": "weights_parent"}
    raw["experiments"] = {
        "e": experiment | {"select": {"task": "knowledge", "rule": rule}} | settings
    }
    if words is None:
        assert Plan(resolve(raw), "r").experiment("e")["select"]["k"] == 2
        return
    with pytest.raises(ConfigError, match=words):
        resolve(raw)


def test_a_child_without_crossover_reads_the_text_of_the_parent_of_its_weights():
    p = plan("parent", "weights_parent", select={"task": "knowledge"})
    for slot in range(4):
        given = child_inputs(p, "e", 2, slot)
        assert [path.split("/")[3] for path in given["weights"]] == [f"parent{slot // 2}"]
        assert {path.split("/")[3] for path in given["text"]} == {f"synthetic{slot // 2}"}


def test_every_operator_says_what_it_does_in_one_line():
    for table in (WEIGHTS, TEXTS, SELECTION, MUTATION):
        for name, entry in table.items():
            assert entry.says and "\n" not in entry.says and not entry.says.endswith("."), name
