"""Check and resolve `figures:`, which assigns experiments to the figures of the report."""

from itertools import product
from typing import Any

from pollination.plan.config.checks import reference
from pollination.plan.config.sweep import spread
from pollination.plan.config.targets import TARGETS
from pollination.plan.config.values import OWN, SEGMENT, listed, runs_of
from pollination.plan.corpora import joined_corpora
from pollination.plan.operators import are_lines


def resolve_roles(config: dict, named: dict, mistakes: list[str]) -> dict:
    """Return the roles with their experiments.

    - population, line: [replicate, ...]
    - controls: {label: [replicate, ...]}
    - ecosystems, comparisons: {title: {label: [replicate, ...]}}
    - paper: {target: the same, or prompts, or a survey}
    - text, distribution_text: with their defaults filled in

    A replicate is `NAME`, or `NAME:MEMBER` for one of its members. A role without experiments is an
    empty list or mapping. `named` are the experiments before replication. In a list, a swept
    experiment stands for all its variants.
    """
    runs = runs_of(config["experiments"])
    replicates = {name: runs[name] for name in named}
    sweeps = config.get("sweeps", {})
    sizes = {
        name: config["experiments"][names[0]]["population"] for name, names in replicates.items()
    }
    lines = [
        name for name, names in replicates.items() if are_lines(config["experiments"][names[0]])
    ]
    several = sorted((name for name, size in sizes.items() if size > 1), key=lines.__contains__)
    first = {"population": next(iter(several), None)}
    shown = config["figures"]["population"] or first["population"]
    first["line"] = next(
        (name for name, size in sizes.items() if name != shown and (size == 1 or name in lines)),
        None,
    )
    given = config["figures"]
    roles: dict[str, Any] = {}

    def players(key: str, name: str, alone: bool) -> list[str]:
        name, _, member = name.partition(":")
        if name in sweeps:
            mistakes.append(
                f"{key}: {name!r} is swept, so it is several experiments; name one of them: "
                f"{', '.join(sweeps[name]['variants'])}"
            )
            return []
        if not reference(mistakes, key, name, replicates, "experiments"):
            return []
        if member and not alone:
            mistakes.append(
                f"{key}: {name}:{member} names one member, which only figures.comparisons and "
                f"figures.paper allow; write {name}"
            )
        elif member and not (member.isdigit() and int(member) < sizes[name]):
            mistakes.append(
                f"{key}: {name}:{member} is not a member; allowed: members 0 to {sizes[name] - 1}"
            )
        return [f"{replicate}:{member}" if member else replicate for replicate in replicates[name]]

    def entry(
        key: str, chosen: list | dict | str, label: str, alone: bool = True
    ) -> dict[str, list[str]]:
        pairs = (
            {label: chosen}
            if isinstance(chosen, str)
            else chosen
            if isinstance(chosen, dict)
            else {name: name for name in spread(chosen, sweeps)}
        )
        return {label: players(key, name, alone) for label, name in pairs.items()}

    for role in ("population", "line"):
        chosen = given[role] or first[role]
        roles[role] = players(f"figures.{role}", chosen, alone=False) if chosen else []
    roles["controls"] = entry("figures.controls", given["controls"], "control", alone=False)
    for role in ("ecosystems", "comparisons"):
        roles[role] = {
            title: entry(f"figures.{role}.{title}", chosen, title, alone=role == "comparisons")
            for title, chosen in given[role].items()
        }
    roles["paper"] = {}
    for target, chosen in given["paper"].items():
        key, needs = f"figures.paper.{target}", TARGETS[target].needs if target in TARGETS else None
        if not reference(
            mistakes,
            key,
            target,
            {name: 0 for name, one in TARGETS.items() if one.needs},
            "the figures and tables that take a role",
        ):
            continue
        kind = {"prompts": (list,), "survey": (str,)}.get(needs or "", (list, dict))
        if not isinstance(chosen, kind):
            mistakes.append(
                f"{key}: {chosen!r} has the wrong type; allowed: {TARGETS[target].takes}"
            )
        elif needs == "survey":
            roles["paper"][target] = (
                chosen
                if reference(mistakes, key, chosen, config["fingerprint"], "fingerprint")
                else None
            )
        elif needs == "prompts":
            roles["paper"][target] = chosen
        elif isinstance(chosen, list):
            both = roles["ecosystems"] | roles["comparisons"]
            where = "figures.ecosystems and figures.comparisons"
            roles["paper"][target] = {
                title: both[title]
                for title in chosen
                if reference(mistakes, key, title, both, where)
            }
        else:
            roles["paper"][target] = {
                title: entry(f"{key}.{title}", names, title) for title, names in chosen.items()
            }
    texts = {f"{entry['corpus']}/{entry['split']}": 0 for entry in config["evaluate"]["perplexity"]}
    # Comparisons pair the blocks of all members, but each member has its own segment.
    shared = {text: 0 for text in texts if not text.endswith(f"/{SEGMENT}")}
    if not shared and (given["ecosystems"] or given["comparisons"]):
        what = "all entries measure segments" if texts else "the list is empty"
        mistakes.append(
            f"evaluate.perplexity: {what}, but figures.ecosystems and "
            "figures.comparisons show perplexity; add an entry, or remove these figures"
        )
    default = next(iter(shared), None)
    for key, allowed in (("text", shared), ("distribution_text", texts)):
        roles[key] = default = given[key] or default
        if given[key] in set(texts) - set(allowed):
            mistakes.append(
                f"figures.text: {given[key]!r} is another text for each member; name a text that "
                f"all members read; allowed: {', '.join(allowed) or '(none)'}"
            )
        elif given[key] is not None:
            reference(mistakes, f"figures.{key}", given[key], texts, "evaluate.perplexity")
    if not mistakes:
        _check_unions(config, roles, mistakes)
    return roles


def _check_unions(config: dict, roles: dict, mistakes: list[str]) -> None:
    """Check that members on a union of corpora are measured on each corpus that it joins.

    Figures of ecosystems weight corpora equally. The text of the union cannot do that: a longer
    corpus has more blocks of it, and `max_tokens` can leave a later corpus out.
    """
    ecosystems = [roles["ecosystems"], roles["comparisons"]] + [
        role for target, role in roles["paper"].items() if TARGETS[target].needs == "ecosystems"
    ]
    players = dict.fromkeys(
        name.partition(":")[0]
        for role in ecosystems
        for entry in role.values()
        for names in entry.values()
        for name in names
    )
    texts = dict.fromkeys((roles["text"], roles["distribution_text"]))
    splits = [text.partition("/")[2] for text in texts if text and text.startswith(f"{OWN}/")]
    for name, split in product(players, [split for split in splits if split != SEGMENT]):
        experiment = config["experiments"][name]
        pool, every = experiment["founders"], set(range(experiment["generations"]))

        def measured(corpus: str, pool=pool, split=split, every=every) -> set[int]:
            return {
                g
                for one in config["evaluate"]["perplexity"]
                if (one["corpus"], one["split"]) == (corpus, split)
                and (one["founders"] is None or pool in one["founders"])
                for g in (every if one["generations"] is None else one["generations"])
            }

        wanted = every if roles["text"] == f"{OWN}/{split}" else measured(OWN)
        for union in dict.fromkeys(listed(config["founders"][pool]["corpus"])):
            for part in joined_corpora(config["corpora"], union):
                if missing := sorted(wanted - measured(part)):
                    where = "every generation" if set(missing) == every else _generations(missing)
                    mistakes.append(
                        f"evaluate.perplexity: {name} is shown on its own corpus {union}, which "
                        f"joins several, but it is not measured on {part}/{split} in {where}; "
                        f"add {{corpus: {part}, split: {split}, founders: [{pool}]}}"
                    )


def _generations(numbers: list[int]) -> str:
    return f"generation{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
