"""Find the folders and files of a run's members, and the model of each."""

from pollination.plan import operators
from pollination.plan.config.values import by_member, listed
from pollination.plan.plan import MEMBER_FILES, Plan


def k(plan: Plan, name: str) -> int:
    """Return the number of parents per generation: k with selection, else all slots."""
    experiment = plan.experiment(name)
    return experiment["select"]["k"] if selects(plan, name) else experiment["population"]


def selects(plan: Plan, name: str) -> bool:
    return operators.selects(plan.experiment(name))


def pool_name(plan: Plan, place: str) -> str:
    """Return the founder pool's name of a place: 'founders/{pool}' or '{experiment}/gen{g}'."""
    first, second = place.split("/")
    return second if first == "founders" else plan.experiment(first)["founders"]


def pool_of(plan: Plan, place: str) -> dict:
    """Return the entry of `founders` of a place."""
    return plan.config["founders"][pool_name(plan, place)]


def segment_file(plan: Plan, place: str, member: int, end: str = "bin") -> str:
    """Return a file of the human segment that the founder of a member's slot reads.

    `end`: bin (its blocks) or parquet (their numbers in the packed corpus).
    """
    return f"{plan.results}/segments/{pool_name(plan, place)}/member{member}.{end}"


def model_of(plan: Plan, place: str, member: int) -> str:
    """Return the model of a member; `base/{model}` is the untouched pretrained model."""
    if place.startswith("base/"):
        return place.split("/")[1]
    return by_member(pool_of(plan, place)["model"], member)


def corpus_of(plan: Plan, place: str, member: int) -> str:
    """Return the corpus of a member's founder; for an untouched model, that of its first pool."""
    if place.startswith("base/"):
        model = place.split("/")[1]
        place, member = next(
            (f"founders/{name}", listed(pool["model"]).index(model))
            for name, pool in plan.used_pools.items()
            if model in listed(pool["model"])
        )
    return by_member(pool_of(plan, place)["corpus"], member)


def kinds(plan: Plan, name: str) -> list[tuple]:
    """Return (model, corpus, number of the human segment) of each member, by slot.

    Members with the same three values are of one kind (analysis/ecosystems.py).
    """
    place, members = place_of(plan, name, 0), range(plan.experiment(name)["population"])
    segments = pool_of(plan, place)["segments"]
    numbers = {"distinct": members, "same": [0] * len(members)}.get(str(segments), segments)
    return [(model_of(plan, place, m), corpus_of(plan, place, m), numbers[m]) for m in members]


def place_of(plan: Plan, name: str, generation: int) -> str:
    """Return the folder of a generation's members; for generation 0, that of the founder pool."""
    founders = f"founders/{plan.experiment(name)['founders']}"
    return founders if generation == 0 else f"{name}/gen{generation}"


def member_folder(plan: Plan, name: str, generation: int, member: int) -> str:
    return f"{plan.results}/{place_of(plan, name, generation)}/member{member}"


def member_files(plan: Plan, name: str, generation: int, file: str) -> list[str]:
    """Return one file of every member of a generation, in slot order."""
    return [
        f"{member_folder(plan, name, generation, m)}/{file}"
        for m in range(plan.experiment(name)["population"])
    ]


def blueprint(plan: Plan, place: str, member: int) -> str:
    return f"{plan.results}/models/{model_of(plan, place, member)}"


def blueprint_files(plan: Plan, place: str, member: int) -> list[str]:
    return [f"{blueprint(plan, place, member)}/{file}" for file in MEMBER_FILES[1:]]


def model_setting(plan: Plan, place: str, member: int, key: str) -> int | str:
    """Return one key of a member's entry of `models`."""
    return plan.config["models"][model_of(plan, place, member)][key]


def model_files(plan: Plan, place: str, member: int) -> list[str]:
    """Return the files of a member or of an untouched pretrained model, weights first."""
    is_base = place.startswith("base/")
    folder = blueprint(plan, place, member) if is_base else f"{plan.results}/{place}/member{member}"
    return [f"{folder}/{file}" for file in MEMBER_FILES]


def pretrained_from(plan: Plan, model: str) -> list[str]:
    """Return the files of the founder that a model starts from; none if it starts from none."""
    source = plan.config["models"][model]["pretrained"]
    if not isinstance(source, dict):
        return []
    return model_files(plan, f"founders/{source['founders']}", 0)
