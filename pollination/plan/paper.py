"""List the files that the figures and tables of the two studies read and write."""

from pollination.core.settings import lean, schema
from pollination.plan import standalone
from pollination.plan.config.targets import ALL_ECOSYSTEMS, TARGETS
from pollination.plan.corpora import kind_of
from pollination.plan.excerpts import part_config, whole_config
from pollination.plan.figures import FIGURES, THEORY
from pollination.plan.layout import model_of, place_of
from pollination.plan.plan import Plan
from pollination.plan.reads import read_files
from pollination.plan.semantics import semantics_settings


def role_of(plan: Plan, target: str):
    """Return the role of a target, or None.

    It is populations {label: replicates}, ecosystems {title: {label: replicates}}, a list of
    prompts, or the name of a survey.
    """
    roles, needs = plan.config["figures"], TARGETS[target].needs
    if roles["paper"].get(target):
        given = roles["paper"][target]
        return (
            {title: names for one in given.values() for title, names in one.items()}
            if needs == "populations"
            else given
        )
    if needs == "survey":
        return next(iter(plan.config["fingerprint"]), None)
    if needs == "prompts":
        return [] if roles["population"] + roles["line"] else None
    if target == "figure_a6" and roles["population"] and plan.config["tasks"]:
        return {plan.experiment(roles["population"][0])["select"]["task"]: roles["population"]}
    if target == "figure_a10" and roles["population"]:
        return {roles["population"][0]: roles["population"]}
    return roles["ecosystems"] or None if target in ALL_ECOSYSTEMS else None


def why_missing(plan: Plan, target: str) -> str | None:
    """Return one line on what the config lacks for a target, or None."""
    one, role = TARGETS[target], role_of(plan, target)
    lacks = None
    if one.draws in THEORY:
        lacks = None if plan.config["theory"] else "the section `theory` is empty"
    elif not plan.config["experiments"] and one.needs != "survey":
        lacks = "there are no experiments"
    elif one.needs == "survey":
        lacks = None if role else "the section `fingerprint` is empty"
    elif one.needs and role is None:
        lacks = f"figures.paper.{target} is not set; allowed: {one.takes}"
    elif one.draws == "paper_populations" and not plan.config["tasks"]:
        lacks = "the section `tasks` is empty"
    elif one.draws == "paper_semantics" and not plan.config["evaluate"].get("semantics"):
        lacks = "evaluate.semantics is not set"
    elif "from_base" in one.panels and not models_of(plan, target) <= set(plan.bases):
        lacks = (
            "it needs pretrained models, but these are not pretrained: "
            f"{', '.join(sorted(models_of(plan, target) - set(plan.bases)))}"
        )
    elif "trajectories_on_text" in one.panels and (
        unread := [n for n in players_of(plan, target) if plan.experiment(n)["generations"] < 2]
    ):
        lacks = (
            f"{', '.join(unread)} has one generation, so it trains on no round's text; set "
            "generations to the number of rounds plus 1"
        )
    elif "base_on_text" in one.panels and not base_texts(plan, target):
        lacks = (
            "the pretrained model is not evaluated on a corpus of kind synthetic "
            "(evaluate.perplexity, generations: [-1])"
        )
    return f"{target} ({one.title}): {lacks}; the preset {one.preset} has it" if lacks else None


def target_files(plan: Plan, target: str) -> list[str]:
    """Return the files of a target. Raises ValueError if the config lacks its role."""
    if why := why_missing(plan, target):
        raise ValueError(why)
    one = TARGETS[target]
    if one.needs == "survey":
        return standalone.drawn_files(plan, [f"{one.draws}.{role_of(plan, target)}"])
    if one.draws in THEORY:
        return standalone.drawn_files(plan, [one.draws])
    return [f"{plan.results}/paper/{target}.{end}" for end in FIGURES[one.draws].endings]


def target_setting(plan: Plan, target: str, key: str) -> str | tuple[str, ...]:
    """Return one field of a target's entry."""
    return getattr(TARGETS[target], key)


def target_module(target: str) -> str:
    """Return the module of pollination/figures/ that draws a target."""
    return FIGURES[TARGETS[target].draws].module


def paper_targets(plan: Plan) -> list[str]:
    """Return the targets of this config.

    These are the targets with a named role, and the tables of the same study that need no role.
    """
    named = list(plan.config["figures"]["paper"])
    studies = {name[name.index("_") + 1] for name in named}
    free = [
        name
        for name, one in TARGETS.items()
        if one.needs is None and name[name.index("_") + 1] in studies
    ]
    return [name for name in TARGETS if name in named + free and not why_missing(plan, name)]


def paper_files(plan: Plan) -> list[str]:
    return [path for target in paper_targets(plan) for path in target_files(plan, target)]


def players_of(plan: Plan, target: str) -> list[str]:
    """Return the experiments that a target shows."""
    needs, role, roles = TARGETS[target].needs, role_of(plan, target), plan.config["figures"]
    line = roles["line"] if target != "figure_a10" else []
    if needs == "populations":
        return list(dict.fromkeys([name for names in role.values() for name in names] + line))
    if needs == "ecosystems":
        return list(
            dict.fromkeys(
                name.split(":")[0]
                for entry in role.values()
                for names in entry.values()
                for name in names
            )
        )
    return roles["population"][:1] + roles["line"][:1]


def base_texts(plan: Plan, target: str) -> dict[str, dict[int, str]]:
    """Return {experiment: {round: corpus}} of the texts that the target's experiments read.

    The corpus contains the text that the experiment wrote in that round. It is listed only if the
    untouched pretrained model is evaluated on it.
    """
    sources = list(
        dict.fromkeys(
            filter(None, (plan.experiment(name)["text_of"] for name in players_of(plan, target)))
        )
    )
    measured = {
        e["corpus"]
        for e in plan.config["evaluate"]["perplexity"]
        if e["generations"] is None or -1 in e["generations"]
    }
    found: dict[str, dict[int, str]] = {}
    for corpus, spec in plan.config["corpora"].items():
        if kind_of(plan, corpus).written and spec["experiment"] in sources and corpus in measured:
            found.setdefault(spec["experiment"], {})[spec["generation"]] = corpus
    return {name: dict(sorted(rounds.items())) for name, rounds in found.items()}


def models_of(plan: Plan, target: str) -> set[str]:
    """Return the models of a target's experiments."""
    return {
        model_of(plan, place_of(plan, name, 0), m)
        for name in players_of(plan, target)
        for m in range(plan.experiment(name)["population"])
    }


def target_inputs(plan: Plan, target: str) -> dict[str, list[str]]:
    """Return the artifacts that a target is drawn from, by kind."""
    one, players = TARGETS[target], players_of(plan, target)
    places = [(name, g) for name in players for g in range(plan.experiment(name)["generations"])]
    one_member = one.draws == "paper_tables"
    if one_member:
        places = [(name, g) for name, g in places if g == 0]
    inputs = read_files(plan, FIGURES[one.draws].reads, places, one_member)
    if {"from_base", "base_on_text"} & set(one.panels):
        untouched = sorted(models_of(plan, target) & set(plan.bases))
        inputs["base"] = [
            f"{plan.results}/base/{model}/member0/sequences.parquet" for model in untouched
        ]
    return inputs


def target_config(plan: Plan, target: str) -> dict:
    """Return the part of the config that a target needs; other changes do not redraw it."""
    return lean(_target_config(plan, target), schema())


def _target_config(plan: Plan, target: str) -> dict:
    one = TARGETS[target]
    if one.draws == "paper_tables":
        return whole_config(plan)
    needed = part_config(plan, players_of(plan, target))
    roles = plan.config["figures"]["paper"]
    role = {target: roles[target]} if target in roles else {}
    if one.draws == "paper_semantics":
        needed["evaluate"] = {"semantics": semantics_settings(plan)}
    if "base_on_text" in one.panels:
        needed["corpora"] = needed.get("corpora", {}) | {
            name: {
                key: plan.config["corpora"][name][key]
                for key in ("kind", "experiment", "generation")
            }
            for rounds in base_texts(plan, target).values()
            for name in rounds.values()
        }
        needed["evaluate"] = {
            "perplexity": [
                {"corpus": name, "generations": [-1]}
                for name, spec in needed["corpora"].items()
                if "experiment" in spec
            ]
        }
    return needed | {"figures": plan.config["figures"] | {"paper": role}}
