"""Checks of experiments: operators that do not go together, and sizes that cannot be planned."""

import math

from pollination.plan.config.checks import reference
from pollination.plan.config.userfiles import check_form
from pollination.plan.config.values import listed
from pollination.plan.decoding import DECODINGS
from pollination.plan.operators import (
    SELECTION,
    TEXTS,
    WEIGHTS,
    is_mutated,
    selects,
    takes_best,
    text_of,
    weights_of,
)

RESERVED = (
    "base",
    "founders",
    "corpora",
    "models",
    "tokens",
    "tasks",
    "staged",
    "theory",
    "fingerprint",
    "semantics",
    "report",
    "logs",
    "benchmarks",
)
MAX_MODELS, MAX_READ = (
    50_000,
    2_000_000,
)  # of a run: its models, and the files of text that they read; planning more takes hours


def check_experiment(name: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """What the schema cannot say of one merged experiment; `select.k` is filled in."""
    key = f"experiments.{name}"
    if name in RESERVED:
        mistakes.append(f"{key}: {name!r} is a folder of every run; choose another name")
    pool = None
    if "founders" not in experiment:
        mistakes.append(
            f"{key}.founders: missing; name a pool of founders: {', '.join(config['founders'])}"
        )
    elif reference(
        mistakes, f"{key}.founders", experiment["founders"], config["founders"], "founders"
    ):
        pool = config["founders"][experiment["founders"]]
        check_members(key, experiment, pool, config, mistakes)
    prompts = experiment["generate"]["prompt_corpus"]
    if prompts is not None:
        reference(mistakes, f"{key}.generate.prompt_corpus", prompts, config["corpora"], "corpora")
    check_selection(key, experiment, config, mistakes)
    text = text_of(experiment)
    if experiment["text_of"] is not None and not text.dealt:
        dealt = " or ".join(name for name, entry in TEXTS.items() if entry.dealt)
        mistakes.append(
            f"{key}.text_of: only with text: {dealt}, not {experiment['text']!r}; set {key}.text: "
            f"{dealt}"
        )
    human = experiment["human"]
    if human["accumulate"] != "none" and (
        human["fraction"] > 0 or text.is_human or experiment["text_of"]
    ):
        written = [name for name, entry in TEXTS.items() if not entry.is_human]
        mistakes.append(
            f"{key}.human.accumulate: {human['accumulate']!r} goes with text "
            f"{', '.join(written[:-1])} or {written[-1]} of its own, and fraction: 0"
        )
    generate = experiment["generate"]
    if generate["tokens"] is not None and DECODINGS[generate["decoding"]].repeats:
        mistakes.append(
            f"{key}.generate.tokens: {generate['decoding']} decoding writes one completion a "
            "prompt; set tokens: null (one pass over the prompts)"
        )


def check_selection(key: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """Who become parents, and what children can then inherit; `select.k` is filled in."""
    select, n = experiment["select"], experiment["population"]
    weights, text = weights_of(experiment), text_of(experiment)
    rule = select["rule"]
    is_rule = check_form(f"{key}.select.rule", rule, SELECTION, "rule", mistakes)
    if not selects(experiment):
        for operator, entry in (("weights", weights), ("text", text)):
            if entry.needs_selection:
                mistakes.append(
                    f"{key}.{operator}: {experiment[operator]!r} needs selection; set "
                    f"{key}.select.task, or {operator}: own"
                )
        if is_rule and not takes_best(rule):
            mistakes.append(
                f"{key}.select.rule: {rule!r} chooses nobody, because there is no selection; set "
                f"{key}.select.task, or rule: truncation"
            )
    else:
        reference(
            mistakes, f"{key}.select.task", select["task"], config["tasks"] | {"none": 0}, "tasks"
        )
        select["k"] = math.isqrt(n) if select["k"] is None else select["k"]
        if text.refuses_selection:
            allowed = [name for name, entry in TEXTS.items() if not entry.refuses_selection]
            mistakes.append(
                f"{key}.text: {experiment['text']!r} with selection has no text to read, only "
                f"parents write; allowed: {', '.join(allowed)}, or select.task: none"
            )
        if is_mutated(experiment) and not weights.needs_selection:
            mistakes.append(
                f"{key}.weights: {experiment['weights']!r} with selection cannot be mutated, only "
                "parents are; set mutate.scale: 0, or weights: parent"
            )
        by_parent = weights.needs_selection or text.needs_selection
        if select["k"] > n:
            mistakes.append(
                f"{key}.select.k: {select['k']} parents cannot be chosen from population {n}; "
                f"allowed: 1 to {n}"
            )
        elif by_parent and select["k"] ** 2 != n:
            near = max(1, round(math.sqrt(n)))
            mistakes.append(
                f"{key}.population: {n} children cannot be all ordered pairs of k = {select['k']} "
                f"parents (k*k = {select['k'] ** 2});"
                f" allowed: a square, e.g. {near**2} or {(near + 1) ** 2}"
            )


def check_size(experiments: dict, mistakes: list[str]) -> None:
    """No more models and texts than can be planned; the mistake names the experiment that has most
    of them.
    """

    def models(name: str) -> int:
        return experiments[name]["population"] * experiments[name]["generations"]

    def read(name: str) -> int:
        experiment = experiments[name]
        writers = experiment["population"] if text_of(experiment).dealt else 1
        rounds = experiment["generations"] if experiment["human"]["accumulate"] != "none" else 1
        return models(name) * writers * rounds * experiment["generate"]["shards"]

    for count, most, what, keys in (
        (models, MAX_MODELS, "models", "population or generations"),
        (read, MAX_READ, "texts to read", "population, generations or generate.shards"),
    ):
        total = sum(map(count, experiments))
        if total > most:
            name = max(experiments, key=count)
            mistakes.append(
                f"experiments.{name}.population: {count(name):,} {what} in it and {total:,} in the "
                f"run cannot be planned; allowed: {most:,}; lower {keys}"
            )
            return


def check_members(
    key: str, experiment: dict, pool: dict, config: dict, mistakes: list[str]
) -> None:
    """Does the pool have what every member of an experiment needs?"""
    n = experiment["population"]
    for name in ("model", "corpus", "validation", "segments"):
        if isinstance(pool[name], list) and len(pool[name]) < n:
            where = f"founders.{experiment['founders']}.{name}"
            mistakes.append(
                f"{key}.population: {n}, but {where} lists {len(pool[name])} members; lower it or "
                "lengthen the list"
            )
    if pool["segments"] == "distinct" and pool["num_segments"] and pool["num_segments"] < n:
        mistakes.append(
            f"{key}.population: {n} members cannot have distinct segments of "
            f"{pool['num_segments']}; set founders.{experiment['founders']}.num_segments: {n}"
        )
    families = {model for model in listed(pool["model"])[:n] if model in config["models"]}
    pretrained = {bool(config["models"][model]["pretrained"]) for model in families}
    weights = weights_of(experiment)
    if weights.pretrained is not None and (not weights.pretrained) in pretrained:
        allowed = sorted(
            name
            for name, one in WEIGHTS.items()
            if one.pretrained in (None, not weights.pretrained)
        )
        why = "needs a" if weights.pretrained else "has no meaning with a"
        mistakes.append(
            f"{key}.weights: {experiment['weights']!r} {why} pretrained model; allowed: "
            f"{', '.join(allowed)}"
        )
    if weights.needs_selection and len(families) > 1:
        allowed = sorted(name for name, one in WEIGHTS.items() if not one.needs_selection)
        mistakes.append(
            f"{key}.weights: {experiment['weights']!r} with several models "
            f"({', '.join(sorted(families))}): a child's model would be known only after "
            f"selection; allowed: {', '.join(allowed)}"
        )


def check_text_of(config: dict, mistakes: list[str]) -> None:
    """Whose text is read: a replicate reads the replicate of the same seed, where there is one."""
    experiments = config["experiments"]
    for name, experiment in experiments.items():
        source = experiment["text_of"]
        if source is None:
            continue
        replicate = f"{source}.s{experiment['seed']}"
        source = experiment["text_of"] = replicate if replicate in experiments else source
        if reference(mistakes, f"experiments.{name}.text_of", source, experiments, "experiments"):
            writer = experiments[source]
            if source == name:
                mistakes.append(
                    f"experiments.{name}.text_of: {source!r} is the experiment itself; name "
                    "another, or leave it out"
                )
            elif writer["generations"] < experiment["generations"]:
                mistakes.append(
                    f"experiments.{name}.generations: {experiment['generations']} are more than "
                    f"the {writer['generations']} of {source!r}, whose text it reads"
                )
