"""Find the artifacts that a figure reads, by their names in pollination/plan/figures.py."""

from collections.abc import Callable

from pollination.plan.layout import member_files, selects
from pollination.plan.plan import Plan
from pollination.plan.semantics import diversity_file, embeddings_file, vocabularies

Places = list[tuple[str, int]]  # (experiment, generation)


def _selections(plan: Plan, places: Places) -> list[str]:
    return [
        f"{plan.results}/{name}/gen{g}/selection.json" for name, g in places if selects(plan, name)
    ]


def _disagreements(plan: Plan, places: Places) -> list[str]:
    several = [(name, g) for name, g in places if plan.experiment(name)["population"] > 1]
    return [f"{plan.results}/{name}/gen{g}/disagreement.json" for name, g in several]


def _vocabularies(plan: Plan, places: Places) -> list[str]:
    return vocabularies(plan, [name for name, _ in places])


READS: dict[
    str, tuple[str, Callable[[Plan, Places], list[str]]]
] = {  # artifacts that are not files of each member -> name of the input, files
    "selection.json": ("selection", _selections),
    "disagreement.json": ("disagreement", _disagreements),
    "vocabulary": ("vocabulary", _vocabularies),
    "embeddings": ("embeddings", lambda plan, _: [embeddings_file(plan)]),
    "diversity": ("diversity", lambda plan, _: [diversity_file(plan)]),
}


def read_files(
    plan: Plan, reads: tuple[str, ...], places: Places, one_member: bool = False
) -> dict[str, list[str]]:
    """Return the artifacts of these generations that a figure reads, by name of the input.

    `one_member`: read only the first member of each generation.
    """
    inputs = {}
    for name in reads:
        if name in READS:
            key, files = READS[name]
            paths = files(plan, places)
        else:
            key, last = name.split(".")[0], 1 if one_member else None
            paths = [path for place in places for path in member_files(plan, *place, name)[:last]]
        inputs[key] = list(dict.fromkeys(paths))
    return inputs
