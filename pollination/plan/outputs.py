"""List the files that a run makes: members, scores, and whole generations."""

from pollination.plan import layout
from pollination.plan.inputs import parent_weights
from pollination.plan.layout import member_files
from pollination.plan.plan import EVALUATION_FILES, MEMBER_FILES, Plan
from pollination.plan.synthetic import all_shards


def trained(plan: Plan) -> list[str]:
    """Return the folders of all members of all experiments, shared founders once."""
    experiments = plan.config["experiments"].items()
    places = [
        (name, g, m)
        for name, e in experiments
        for g in range(e["generations"])
        for m in range(e["population"])
    ]
    return list(dict.fromkeys(layout.member_folder(plan, *place) for place in places))


def evaluations(plan: Plan, file: str) -> list[str]:
    """Return one evaluation file of every member and of every untouched pretrained model."""
    untouched = [f"{plan.results}/base/{model}/member0" for model in plan.bases]
    return [f"{folder}/{file}" for folder in trained(plan) + untouched]


def disagreements(plan: Plan) -> list[str]:
    """Return a file per generation of experiments with several members, if the config asks."""
    return [
        f"{plan.results}/{name}/gen{generation}/disagreement.json"
        for name, experiment in plan.config["experiments"].items()
        if plan.config["evaluate"]["disagreement"] and experiment["population"] > 1
        for generation in range(experiment["generations"])
    ]


def measured_beside(plan: Plan) -> list[str]:
    """Return the files of measures beside the members' scores."""
    quality = trained(plan) if plan.config["evaluate"]["quality"] else []
    return disagreements(plan) + [f"{folder}/quality.json" for folder in quality]


def generation_files(plan: Plan, name: str, generation: int) -> list[str]:
    """Return all files of a generation: members, scores, selection, inherited weights and text."""
    files = [
        path
        for file in MEMBER_FILES + EVALUATION_FILES
        for path in member_files(plan, name, generation, file)
    ]
    files += [
        path
        for path in disagreements(plan)
        if path.startswith(f"{plan.results}/{name}/gen{generation}/")
    ]
    if plan.config["evaluate"]["quality"]:
        files += member_files(plan, name, generation, "quality.json")
    if layout.selects(plan, name):
        files.append(f"{plan.results}/{name}/gen{generation}/selection.json")
    files += all_shards(plan, name, generation)
    return files + parent_weights(plan, name, generation)
