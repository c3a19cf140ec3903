"""List the synthetic text that members write and that children read."""

from collections.abc import Sequence

from pollination.plan import layout
from pollination.plan.graph import graph_of, is_dealt, is_mixed, shares
from pollination.plan.operators import text_of
from pollination.plan.plan import Plan


def synthetic_text(plan: Plan, name: str, generation: int, member: int) -> list[str]:
    """Return the synthetic text that a child reads.

    The previous generation wrote it; with `accumulate`, all earlier generations did.
    """
    experiment = plan.experiment(name)
    if text_of(experiment).is_human:
        return []
    if experiment["human"]["accumulate"] != "none" and generation > 1:
        return synthetic_text(plan, name, generation - 1, member) + round_text(
            plan, name, generation, member
        )
    return round_text(plan, name, generation, member)


def round_text(plan: Plan, name: str, generation: int, member: int) -> list[str]:
    """Return the part of a child's text that the previous generation wrote."""
    folder = f"{plan.results}/{name}/gen{generation - 1}"
    if is_dealt(plan, name, generation):
        return [f"{folder}/deal{member}/text.parquet"]
    if is_mixed(plan, name, generation, member):
        return [f"{folder}/mix{member}/text.parquet"]
    return written_for(plan, name, generation, member)


def written_for(plan: Plan, name: str, generation: int, member: int) -> list[str]:
    """Return the shards of all writers that a child reads; jobs may deal or mix them first."""
    return [
        path
        for rank in shares(plan, name, generation, member)
        for path in shards(plan, name, generation - 1, rank)
    ]


def shards(plan: Plan, name: str, generation: int, rank: int) -> list[str]:
    count = plan.experiment(name)["generate"]["shards"]
    return [
        f"{plan.results}/{name}/gen{generation}/synthetic{rank}/shard{s}.parquet"
        for s in range(count)
    ]


def all_shards(plan: Plan, name: str, generation: int) -> list[str]:
    """Return the shards of the writers of a generation."""
    return [
        path
        for rank in writers(plan, name, generation)
        for path in shards(plan, name, generation, rank)
    ]


def pooled(plan: Plan, name: str, generation: int) -> list[str]:
    """Return the text that is pooled and dealt: of the generation, or of another (text_of)."""
    source = plan.experiment(name)["text_of"] or name
    return [
        path
        for rank in range(layout.k(plan, source))
        for path in shards(plan, source, generation, rank)
    ]


def mixture_inputs(plan: Plan, name: str, generation: int, member: int) -> list[str]:
    """Return the text that a job mixes for a child of the next generation."""
    return written_for(plan, name, generation + 1, member)


def mixture(plan: Plan, name: str, generation: int, member: int) -> list[float]:
    """Return the share of each file of `mixture_inputs` in the child's text."""
    count = plan.experiment(name)["generate"]["shards"]
    parts = shares(plan, name, generation + 1, member).values()
    return [share for share in parts for _ in range(count)]


def writers(plan: Plan, name: str, generation: int) -> Sequence[int]:
    """Return the ranks that write text in a generation.

    These are the ranks whose text their children, another experiment or a corpus read.
    """
    own, everybody = plan.experiment(name), range(layout.k(plan, name))
    readers = [e for e in plan.config["experiments"].values() if e["text_of"] == name]
    if any(generation + 1 < reader["generations"] for reader in readers) or any(
        (corpus.get("experiment"), corpus.get("generation")) == (name, generation)
        for corpus in plan.config["corpora"].values()
    ):
        return everybody
    text = text_of(own)
    if text.is_human or own["text_of"] or generation + 1 >= own["generations"]:
        return ()
    return graph_of(plan, name, generation + 1).read if text.is_graph else everybody
