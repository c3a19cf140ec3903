"""Derive the ancestors of any model from the plan and the selections.

Child m of generation g takes its weights from rank m // k and its text from rank m % k of
generation g - 1 (study A, appendix C). `selection.json` says which slot held a rank. Without
selection, ranks are slots.
"""

from functools import cache
from pathlib import Path

from pollination.core import artifacts
from pollination.plan import layout, synthetic
from pollination.plan.graph import graph_of, is_dealt, shares
from pollination.plan.layout import corpus_of, model_of, place_of
from pollination.plan.operators import Start, is_mutated, reads_human, text_of, weights_of
from pollination.plan.plan import Plan


def ancestry(plan: Plan, experiment: str, generation: int, member: int) -> dict:
    """Return all ancestors of a model, by weights and by text, including the model itself.

    The result is {experiment, generation, member, nodes}. The nodes go from the youngest generation
    to the founders. Each has these keys:

    - generation, member, model
    - weights_from: (generation, member), or None for a founder, new weights or a pretrained model;
      of a soup, the member with the largest share
    - averaged_with: the other members of a soup, a list of (generation, member)
    - pretrained: the pretrained model that it starts from, or None
    - mutated: whether the weights were mutated
    - text_from: the writers of its text, a list of (generation, member)
    - shards: the synthetic text that it read
    - human: the corpus of human text that it read, or None (also for a founder with `epochs: 0`)

    Raises FileNotFoundError if a selection of an earlier generation does not exist yet.
    """

    slot, nodes, waiting = slots(plan, experiment), {}, [(generation, member)]
    while waiting:
        place = waiting.pop()
        if place not in nodes:
            nodes[place] = _node(plan, experiment, *place, slot)
            waiting += givers(nodes[place]) + nodes[place]["text_from"]
    ordered = [nodes[place] for place in sorted(nodes, key=lambda place: (-place[0], place[1]))]
    return {"experiment": experiment, "generation": generation, "member": member, "nodes": ordered}


def givers(node: dict) -> list[tuple[int, int]]:
    """Return the members whose weights a model started from; several for a soup."""
    return [node["weights_from"], *node["averaged_with"]] if node["weights_from"] else []


def family(plan: Plan, experiment: str) -> dict[tuple[int, int], dict]:
    """Return {(generation, member): node} of an experiment, with nodes as in `ancestry`."""
    slot, one = slots(plan, experiment), plan.experiment(experiment)
    return {
        (g, m): _node(plan, experiment, g, m, slot)
        for g in range(one["generations"])
        for m in range(one["population"])
    }


def slots(plan: Plan, experiment: str):
    """Return a function (generation, rank) -> the slot that held the rank."""

    @cache
    def slot(generation: int, rank: int) -> int:
        return (
            parent_of(f"{plan.results}/{experiment}/gen{generation}/selection.json", rank)
            if layout.selects(plan, experiment)
            else rank
        )

    return slot


def _node(plan: Plan, name: str, generation: int, member: int, slot) -> dict:
    experiment, k, before = plan.experiment(name), layout.k(plan, name), generation - 1
    node = {
        "generation": generation,
        "member": member,
        "model": layout.member_folder(plan, name, generation, member),
        "weights_from": None,
        "averaged_with": [],
    }
    node |= {"pretrained": None, "mutated": False, "text_from": [], "shards": [], "human": None}
    place = place_of(plan, name, generation)
    weights, text = weights_of(experiment), text_of(experiment)
    model = model_of(plan, place, member)
    if generation == 0 or weights.start is Start.MODEL:
        node["pretrained"] = model if plan.config["models"][model]["pretrained"] else None
    if generation == 0:
        # The config of a figure has this key only if it is 0 (plan/excerpts.py).
        pool = plan.config["founders"][experiment["founders"]]
        reads = pool.get("train", {"epochs": 1})["epochs"] > 0
        return node | {"human": corpus_of(plan, place, member) if reads else None}
    origin = weights.origin(member, k)
    if weights.start is Start.FOUNDER:
        node["weights_from"] = (0, origin)
    elif weights.start is Start.SLOT:
        node["weights_from"] = (before, origin)
    elif weights.start is Start.RANK:
        node["weights_from"] = (before, slot(before, origin))
    elif weights.is_soup:
        parts = graph_of(plan, name, generation, "soup").of(member)
        ranks = sorted(parts, key=lambda rank: (-parts[rank], rank))
        first, *others = [(before, slot(before, rank)) for rank in ranks]
        node |= {"weights_from": first, "averaged_with": others}
    node["mutated"] = is_mutated(experiment)
    if not text.is_human:
        accumulates = experiment["human"]["accumulate"] != "none"
        rounds = range(generation) if accumulates else [before]
        node["text_from"] = (
            []
            if experiment["text_of"]
            else [(g, slot(g, rank)) for g in rounds for rank in shares(plan, name, g + 1, member)]
        )
        node["shards"] = [
            path
            for g in rounds
            for path in (
                synthetic.pooled(plan, name, g)
                if is_dealt(plan, name, g + 1)
                else synthetic.written_for(plan, name, g + 1, member)
            )
        ]
    if reads_human(experiment):
        node["human"] = corpus_of(plan, place, member)
    return node


def format_ancestry(tree: dict) -> str:
    """Format the ancestry: one line per model, youngest first, then the text that it read.

    Files in `tree["deleted"]` are marked as deleted on purpose (config key `keep`).
    """
    deleted = set(tree.get("deleted", ()))

    def file(path: str) -> str:
        gone = path in deleted or f"{path}/model.safetensors" in deleted
        return path + (" (deleted on purpose: config key keep)" if gone else "")

    def name(place: tuple[int, int]) -> str:
        return f"generation {place[0]}, member {place[1]}"

    by_weights, nodes = (
        set(),
        {(node["generation"], node["member"]): node for node in tree["nodes"]},
    )
    youngest = (tree["generation"], tree["member"])
    waiting = [youngest]
    while waiting:
        place = waiting.pop()
        by_weights.add(place)
        waiting += givers(nodes[place])
    lines = [
        (
            f"Ancestors of {tree['experiment']}, {name((tree['generation'], tree['member']))}, by "
            "weights and by text"
        )
    ]
    lines[0] += (
        f" ({len(by_weights) - 1} by weights, marked *; {len(nodes) - len(by_weights)} more by "
        "text):"
    )
    for place, node in nodes.items():
        source = "newly initialised"
        if node["weights_from"]:
            source = f"weights from {name(node['weights_from'])}" + (
                ", mutated" if node["mutated"] else ""
            )
            if node["averaged_with"]:
                source += f", averaged with {'; '.join(map(name, node['averaged_with']))}"
        elif node["pretrained"]:
            source = f"pretrained model {node['pretrained']}"
        elif node["generation"] == 0:
            source = "founder"
        writers = "; ".join(name(place) for place in node["text_from"])
        mark = "*" if place in by_weights and place != youngest else " "
        lines.append(
            f"{mark} {name(place)}: {source}" + (f"; text from {writers}" if writers else "")
        )
        lines.append(f"      model {file(node['model'])}")
        lines += [f"      read  {file(path)}" for path in node["shards"]]
        if node["human"]:
            lines.append(f"      read  human text of corpus {node['human']}")
        elif node["generation"] == 0:
            lines.append("      read  no text (epochs: 0)")
    return "\n".join(lines)


def parent_of(selection: str | Path, rank: int) -> int:
    """Return the slot that holds a rank."""
    return artifacts.read_json(selection)["parents"][rank]
