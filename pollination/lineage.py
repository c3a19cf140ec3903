"""Who descends from whom: derived from the plan and the selections, for any model of any generation.

Child m of generation g takes its weights from rank m // k and its text from rank m % k of generation g - 1 (study A, appendix C);
`selection.json` says which slot held a rank. Without selection ranks are slots.
"""

from functools import cache

from pollination.selection import parent_of
from pollination.workflow import Plan


def ancestry(plan: Plan, experiment: str, generation: int, member: int) -> dict:
    """All ancestors of a model, by weights and by text, itself included.

    Returns {experiment, generation, member, nodes}; nodes from the youngest generation to the founders, each {generation, member, model,
    weights_from, mutated, text_from, shards, human}: weights_from is (generation, member) or None (a founder, or a fresh start);
    text_from the writers, a list of (generation, member); shards the synthetic text that it read; human the corpus of human text that
    it read, or None. Reads the selections of earlier generations; FileNotFoundError where one is not made yet.
    """

    @cache
    def slot(before: int, rank: int) -> int:
        return parent_of(f"{plan.results}/{experiment}/gen{before}/selection.json", rank) if plan.selects(experiment) else rank

    nodes, waiting = {}, [(generation, member)]
    while waiting:
        place = waiting.pop()
        if place not in nodes:
            nodes[place] = _node(plan, experiment, *place, slot)
            waiting += [parent for parent in (nodes[place]["weights_from"], *nodes[place]["text_from"]) if parent]
    ordered = [nodes[place] for place in sorted(nodes, key=lambda place: (-place[0], place[1]))]
    return {"experiment": experiment, "generation": generation, "member": member, "nodes": ordered}


def _node(plan: Plan, name: str, generation: int, member: int, slot) -> dict:
    experiment, k, before = plan.experiment(name), plan.k(name), generation - 1
    node = {"generation": generation, "member": member, "model": plan.member(name, generation, member), "weights_from": None}
    node |= {"mutated": False, "text_from": [], "shards": [], "human": None}
    if generation == 0:
        return node | {"human": plan.pool(plan.place(name, 0))["corpus"]}
    weights, text = experiment["weights"], experiment["text"]
    if weights != "fresh":
        places = {"founder": (0, member), "own": (before, member)}
        node["weights_from"] = places[weights] if weights in places else (before, slot(before, member // k))
        node["mutated"] = weights == "parent" and experiment["mutate"]["scale"] > 0
        node["mutated"] |= weights == "own" and experiment["mutate"]["scale"] > 0
    if text == "own":
        node["text_from"] = [(before, member)]
    else:
        ranks = range(k) if text == "pool" else [member % k]
        node["text_from"] = [(before, slot(before, rank)) for rank in ranks]
    node["shards"] = plan.all_shards(name, before) if text == "pool" else plan.text(name, generation, member)
    if experiment["human"]["fraction"] > 0:
        node["human"] = plan.pool(plan.place(name, generation))["corpus"]
    return node


def format_ancestry(tree: dict) -> str:
    """The ancestry as text, one model a line, the youngest first, and under each the text that it read."""
    name = lambda place: f"generation {place[0]}, member {place[1]}"  # noqa: E731
    lines = [f"Ancestors of {tree['experiment']}, {name((tree['generation'], tree['member']))}, by weights and by text:"]
    for node in tree["nodes"]:
        source = "initialised anew"
        if node["weights_from"]:
            source = f"weights from {name(node['weights_from'])}" + (", mutated" if node["mutated"] else "")
        elif node["generation"] == 0:
            source = "founder"
        writers = "; ".join(name(place) for place in node["text_from"])
        lines.append(f"{name((node['generation'], node['member']))}: {source}" + (f"; text from {writers}" if writers else ""))
        lines.append(f"    model {node['model']}")
        lines += [f"    read  {path}" for path in node["shards"]]
        if node["human"]:
            lines.append(f"    read  human text of corpus {node['human']}")
    return "\n".join(lines)
