"""List the samples that are embedded and compared (docs/semantics.md)."""

from pollination.plan.layout import place_of
from pollination.plan.paper import players_of
from pollination.plan.plan import Plan
from pollination.plan.semantics import semantics_setting, semantics_settings


def embedded(plan: Plan) -> list[str]:
    """Return the experiments whose samples are embedded.

    These are the experiments named in the config, else those with a role in the report. Those of
    study A's figure 10 are added.
    """
    if semantics_settings(plan) is None:
        return []
    roles = plan.config["figures"]
    ecosystems = [
        name for entry in roles["ecosystems"].values() for names in entry.values() for name in names
    ]
    mapped = players_of(plan, "figure_a10") if roles["paper"].get("figure_a10") else []
    return list(
        dict.fromkeys(
            [
                *(
                    semantics_setting(plan, "experiments")
                    or ecosystems
                    or roles["population"] + roles["line"]
                ),
                *mapped,
            ]
        )
    )


def embedded_places(plan: Plan) -> list[tuple[str, int, int, str]]:
    """Return (experiment, generation, member, model); the model is its folder within the run."""
    return [
        (name, g, m, f"{place_of(plan, name, g)}/member{m}")
        for name in embedded(plan)
        for g in range(plan.experiment(name)["generations"])
        for m in range(plan.experiment(name)["population"])
    ]


def embedded_models(plan: Plan) -> list[str]:
    return list(dict.fromkeys(model for *_, model in embedded_places(plan)))


def embedded_groups(plan: Plan) -> list[dict]:
    """Return {group, experiments, population} for each group of replicates."""
    groups: dict[str, list[str]] = {}
    for name in embedded(plan):
        groups.setdefault(name.split(".")[0], []).append(name)
    return [
        {
            "group": group,
            "experiments": names,
            "population": plan.experiment(names[0])["population"],
        }
        for group, names in groups.items()
    ]


def embedded_samples(plan: Plan) -> list[str]:
    return [f"{plan.results}/{model}/samples.parquet" for model in embedded_models(plan)]
