"""Where the members of a run lie, and what each of them is made of."""

from pollination.plan import operators
from pollination.plan.config.values import by_member, listed
from pollination.plan.plan import MEMBER_FILES, Plan


def k(plan: Plan, name: str) -> int:
    """Parents a generation: k with selection, else every slot."""
    experiment = plan.experiment(name)
    return experiment["select"]["k"] if selects(plan, name) else experiment["population"]


def selects(plan: Plan, name: str) -> bool:
    return operators.selects(plan.experiment(name))


def pool_of(plan: Plan, place: str) -> dict:
    """The founder pool behind a place: 'founders/{pool}' or '{experiment}/gen{g}'."""
    first, second = place.split("/")
    pool = second if first == "founders" else plan.experiment(first)["founders"]
    return plan.config["founders"][pool]


def model_of(plan: Plan, place: str, member: int) -> str:
    """The model of a member; `base/{model}` is the untouched pretrained model."""
    if place.startswith("base/"):
        return place.split("/")[1]
    return by_member(pool_of(plan, place)["model"], member)


def corpus_of(plan: Plan, place: str, member: int) -> str:
    """The corpus that a member's founder has read; for an untouched model, its first pool's."""
    if place.startswith("base/"):
        model = place.split("/")[1]
        place, member = next(
            (f"founders/{name}", listed(pool["model"]).index(model))
            for name, pool in plan.used_pools.items()
            if model in listed(pool["model"])
        )
    return by_member(pool_of(plan, place)["corpus"], member)


def kinds(plan: Plan, name: str) -> list[tuple]:
    """(model, corpus, number of the human segment) of each member, by slot.

    Members that share all three are one kind (analysis/ecosystems.py).
    """
    place, members = place_of(plan, name, 0), range(plan.experiment(name)["population"])
    segments = pool_of(plan, place)["segments"]
    numbers = {"distinct": members, "same": [0] * len(members)}.get(str(segments), segments)
    return [(model_of(plan, place, m), corpus_of(plan, place, m), numbers[m]) for m in members]


def place_of(plan: Plan, name: str, generation: int) -> str:
    """Where a generation's members lie; generation 0 is the founder pool itself."""
    founders = f"founders/{plan.experiment(name)['founders']}"
    return founders if generation == 0 else f"{name}/gen{generation}"


def member_folder(plan: Plan, name: str, generation: int, member: int) -> str:
    return f"{plan.results}/{place_of(plan, name, generation)}/member{member}"


def member_files(plan: Plan, name: str, generation: int, file: str) -> list[str]:
    """One file of every member of a generation, in slot order."""
    return [
        f"{member_folder(plan, name, generation, m)}/{file}"
        for m in range(plan.experiment(name)["population"])
    ]


def blueprint(plan: Plan, place: str, member: int) -> str:
    return f"{plan.results}/models/{model_of(plan, place, member)}"


def blueprint_files(plan: Plan, place: str, member: int) -> list[str]:
    return [f"{blueprint(plan, place, member)}/{file}" for file in MEMBER_FILES[1:]]


def model_setting(plan: Plan, place: str, member: int, key: str) -> int | str:
    """One key of the `models` entry that a member is made of."""
    return plan.config["models"][model_of(plan, place, member)][key]


def model_files(plan: Plan, place: str, member: int) -> list[str]:
    """The files of a member or of an untouched pretrained model, weights first."""
    is_base = place.startswith("base/")
    folder = blueprint(plan, place, member) if is_base else f"{plan.results}/{place}/member{member}"
    return [f"{folder}/{file}" for file in MEMBER_FILES]


def pretrained_from(plan: Plan, model: str) -> list[str]:
    """The founder that a model of this run starts from, if it is one."""
    source = plan.config["models"][model]["pretrained"]
    if not isinstance(source, dict):
        return []
    return model_files(plan, f"founders/{source['founders']}", 0)
