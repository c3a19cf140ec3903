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
    weights_from, pretrained, mutated, text_from, shards, human}: weights_from is (generation, member) or None (a founder, a fresh start, or the model `pretrained`);
    text_from the writers, a list of (generation, member); shards the synthetic text that it read; human the corpus of human text that
    it read, or None. Reads the selections of earlier generations; FileNotFoundError where one is not made yet.
    """

    slot, nodes, waiting = _slots(plan, experiment), {}, [(generation, member)]
    while waiting:
        place = waiting.pop()
        if place not in nodes:
            nodes[place] = _node(plan, experiment, *place, slot)
            waiting += [parent for parent in (nodes[place]["weights_from"], *nodes[place]["text_from"]) if parent]
    ordered = [nodes[place] for place in sorted(nodes, key=lambda place: (-place[0], place[1]))]
    return {"experiment": experiment, "generation": generation, "member": member, "nodes": ordered}


def family(plan: Plan, experiment: str) -> dict[tuple[int, int], dict]:
    """(generation, member) -> node, as in `ancestry`, of every model of an experiment."""
    slot, one = _slots(plan, experiment), plan.experiment(experiment)
    return {(g, m): _node(plan, experiment, g, m, slot) for g in range(one["generations"]) for m in range(one["population"])}


def _slots(plan: Plan, experiment: str):
    """(generation, rank) -> the slot that held it."""

    @cache
    def slot(generation: int, rank: int) -> int:
        return parent_of(f"{plan.results}/{experiment}/gen{generation}/selection.json", rank) if plan.selects(experiment) else rank

    return slot


def _node(plan: Plan, name: str, generation: int, member: int, slot) -> dict:
    experiment, k, before = plan.experiment(name), plan.k(name), generation - 1
    node = {"generation": generation, "member": member, "model": plan.member(name, generation, member), "weights_from": None}
    node |= {"pretrained": None, "mutated": False, "text_from": [], "shards": [], "human": None}
    place = plan.place(name, generation)
    weights, text, human = experiment["weights"], experiment["text"], experiment["human"]
    model = plan.model(place, member)
    if generation == 0 or weights == "base":
        node["pretrained"] = model if plan.config["models"][model]["pretrained"] else None
    if generation == 0:
        return node | {"human": plan.corpus(place, member)}
    if weights not in ("fresh", "base"):
        places = {"founder": (0, member), "own": (before, member)}
        node["weights_from"] = places[weights] if weights in places else (before, slot(before, member // k))
        node["mutated"] = weights == "parent" and experiment["mutate"]["scale"] > 0
        node["mutated"] |= weights == "own" and experiment["mutate"]["scale"] > 0
    if text != "human":
        ranks = {"own": [member], "parent": [member % k]}.get(text, range(k))
        rounds = range(generation) if human["accumulate"] != "none" else [before]
        node["text_from"] = [] if experiment["text_of"] else [(g, slot(g, rank)) for g in rounds for rank in ranks]
        node["shards"] = [
            path for g in rounds for path in (plan.pooled(name, g) if text == "pool" else plan.round_text(name, g + 1, member))
        ]
    if human["fraction"] > 0 or human["accumulate"] != "none" or text == "human":
        node["human"] = plan.corpus(place, member)
    return node


def format_ancestry(tree: dict) -> str:
    """The ancestry as text, one model a line, the youngest first, and under each the text that it read."""
    name = lambda place: f"generation {place[0]}, member {place[1]}"  # noqa: E731
    by_weights, nodes = set(), {(node["generation"], node["member"]): node for node in tree["nodes"]}
    place = (tree["generation"], tree["member"])
    while place:
        by_weights.add(place)
        place = nodes[place]["weights_from"]
    lines = [f"Ancestors of {tree['experiment']}, {name((tree['generation'], tree['member']))}, by weights and by text"]
    lines[0] += f" ({len(by_weights) - 1} by weights, marked *; {len(nodes) - len(by_weights)} more by text):"
    for place, node in nodes.items():
        source = "initialised anew"
        if node["weights_from"]:
            source = f"weights from {name(node['weights_from'])}" + (", mutated" if node["mutated"] else "")
        elif node["pretrained"]:
            source = f"pretrained model {node['pretrained']}"
        elif node["generation"] == 0:
            source = "founder"
        writers = "; ".join(name(place) for place in node["text_from"])
        mark = "*" if place in by_weights else " "
        lines.append(f"{mark} {name(place)}: {source}" + (f"; text from {writers}" if writers else ""))
        lines.append(f"      model {node['model']}")
        lines += [f"      read  {path}" for path in node["shards"]]
        if node["human"]:
            lines.append(f"      read  human text of corpus {node['human']}")
    return "\n".join(lines)
