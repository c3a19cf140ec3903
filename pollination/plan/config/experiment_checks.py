"""Check experiments for operators that exclude each other and for excessive sizes."""

import math

from pollination.plan.config.checks import check_training, reference
from pollination.plan.config.graph_checks import check_graph, most_writers
from pollination.plan.config.userfiles import check_form
from pollination.plan.config.values import OWN, is_held_out, listed
from pollination.plan.corpora import CORPUS_KINDS
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
    "segments",
    "tasks",
    "staged",
    "theory",
    "fingerprint",
    "semantics",
    "report",
    "logs",
    "benchmarks",
)
# Limits of one run: its models, and the text files that they read. Planning more takes hours.
MAX_MODELS, MAX_READ = 50_000, 2_000_000
SHARD_TOKENS = 50_000_000  # a job needs about 33 bytes of memory per token, so 1.7 GB


def check_experiment(name: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """Check what the schema cannot express about a merged experiment; fill in `select.k`."""
    key = f"experiments.{name}"
    if name in RESERVED:
        mistakes.append(f"{key}: every run has a folder {name!r}; choose another name")
    for seed in experiment["replicates"]:
        if experiment["seeds"] or seed == experiment["seed"]:
            why = (
                f"excludes seeds: {experiment['seeds']}, whose runs share one founder pool; keep "
                "one of the two keys"
                if experiment["seeds"]
                else f"contains {seed}, the seed of {name} itself; list other seeds"
            )
            mistakes.append(f"{key}.replicates: {experiment['replicates']} {why}")
            break
    check_training(f"{key}.train", experiment["train"], mistakes)
    if not experiment["train"]["epochs"]:
        mistakes.append(f"{key}.train.epochs: 0 is for founders alone; set 1 or more")
    pool = None
    if "founders" not in experiment:
        mistakes.append(
            f"{key}.founders: the key is missing; name a founder pool; allowed: "
            f"{', '.join(config['founders'])}"
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
    check_graph(key, experiment, mistakes)
    text = text_of(experiment)
    if experiment["text_of"] is not None and not text.dealt:
        dealt = " or ".join(name for name, entry in TEXTS.items() if entry.dealt)
        mistakes.append(
            f"{key}.text_of: {experiment['text_of']!r} needs text: {dealt}, but {key}.text is "
            f"{experiment['text']!r}; set {key}.text: {dealt}, or remove text_of"
        )
    human = experiment["human"]
    if human["accumulate"] != "none" and (
        human["fraction"] > 0 or text.is_human or experiment["text_of"]
    ):
        written = [name for name, entry in TEXTS.items() if not entry.is_human]
        mistakes.append(
            f"{key}.human.accumulate: {human['accumulate']!r} needs text: "
            f"{', '.join(written[:-1])} or {written[-1]}, no text_of, and human.fraction: 0; "
            "change these keys, or set accumulate: none"
        )
    generate = experiment["generate"]
    if generate["tokens"] is not None and DECODINGS[generate["decoding"]].repeats:
        sampling = " or ".join(name for name, method in DECODINGS.items() if not method.repeats)
        mistakes.append(
            f"{key}.generate.tokens: {generate['tokens']} with decoding: {generate['decoding']}, "
            "which writes only one completion per prompt; set tokens: null (one pass over the "
            f"prompts), or decoding: {sampling}"
        )


def decide_shards(name: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """Replace `generate.shards: auto` by the number of shards of at most SHARD_TOKENS each.

    Prompts count too. Where they are not part of the budget, prompts and completions are taken to
    have their full length.
    """
    generate = experiment["generate"]
    if generate["shards"] != "auto":
        return
    tokens = generate["tokens"]
    if tokens is None:
        mistakes.append(
            f"experiments.{name}.generate.shards: 'auto' needs a token budget, but generate.tokens "
            "is null (one pass over the prompts); give a number of shards, or set generate.tokens"
        )
        tokens = 1
    pool = config["founders"].get(experiment.get("founders"), {"model": []})
    contexts = [
        config["models"][model]["context_tokens"]
        for model in listed(pool["model"])
        if model in config["models"]
    ]
    if generate["budget_counts"] == "completion":
        prompt = generate["max_prompt_tokens"] or max(contexts, default=0) // 2
        tokens += tokens * prompt // generate["max_new_tokens"]
    generate["shards"] = -(-tokens // SHARD_TOKENS)


def check_room(
    key: str, settings: dict, models: set[str], config: dict, mistakes: list[str]
) -> None:
    """Check that a completion leaves room for a prompt in the context of each new model.

    A model that is pretrained, or whose settings choose its positions, is checked by its jobs.
    """
    new, limit = settings["max_new_tokens"], settings.get("max_prompt_tokens") or 0
    for name in sorted(models):
        model = config["models"][name]
        context = model["context_tokens"]
        said = (
            f"{key}.max_new_tokens: {new} leaves no room for a prompt in the {context} tokens of "
            f"models.{name}.context_tokens; allowed: 1 to {context - 1}. Lower it, or raise "
            "context_tokens"
        )
        both = (
            f"{key}.max_prompt_tokens: {limit} and max_new_tokens {new} exceed the {context} "
            f"tokens of models.{name}.context_tokens; allowed: at most {context - new}, or null. "
            "Lower one of them, or raise context_tokens"
        )
        own_context = any("position" in setting for setting in model["settings"])
        new_model = model["pretrained"] is None and not own_context
        if not new_model or any(one in mistakes for one in (said, both)):
            continue
        if new >= context:
            mistakes.append(said)
        elif limit + new > context:
            mistakes.append(both)


def check_selection(key: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """Check selection, and what children can inherit under it; fill in `select.k`."""
    select, n = experiment["select"], experiment["population"]
    weights, text = weights_of(experiment), text_of(experiment)
    rule = select["rule"]
    is_rule = check_form(f"{key}.select.rule", rule, SELECTION, "selection rule", mistakes)
    scale = experiment["mutate"]["scale"]
    if scale and not weights.can_mutate:
        mutated = " or ".join(name for name, entry in WEIGHTS.items() if entry.can_mutate)
        mistakes.append(
            f"{key}.mutate.scale: {scale} has no effect with weights: {experiment['weights']!r}; "
            f"set scale: 0, or weights: {mutated}"
        )
    if not selects(experiment):
        for operator, entry in (("weights", weights), ("text", text)):
            if entry.needs_selection:
                mistakes.append(
                    f"{key}.{operator}: {experiment[operator]!r} needs selection; set "
                    f"{key}.select.task to a task, or {operator}: own"
                )
        if is_rule and not takes_best(rule):
            mistakes.append(
                f"{key}.select.rule: {rule!r} has no effect without selection; set "
                f"{key}.select.task to a task, or rule: truncation"
            )
    else:
        reference(
            mistakes, f"{key}.select.task", select["task"], config["tasks"] | {"none": 0}, "tasks"
        )
        select["k"] = math.isqrt(n) if select["k"] is None else select["k"]
        if text.refuses_selection:
            allowed = [name for name, entry in TEXTS.items() if not entry.refuses_selection]
            mistakes.append(
                f"{key}.text: {experiment['text']!r} with selection is impossible, because only "
                f"parents write text; allowed: {', '.join(allowed)}, or select.task: none"
            )
        if is_mutated(experiment) and not weights.needs_selection:
            mistakes.append(
                f"{key}.weights: {experiment['weights']!r} with selection cannot be mutated, "
                "because only parents are mutated; set mutate.scale: 0, or weights: parent"
            )
        if is_rule and rule in SELECTION:
            check_rule(key, experiment, config, mistakes)
        by_parent = weights.needs_selection or text.needs_selection
        if select["k"] > n:
            mistakes.append(
                f"{key}.select.k: {select['k']} parents cannot be chosen from a population of {n}; "
                f"allowed: 1 to {n}"
            )
        elif by_parent and select["k"] ** 2 != n:
            near = max(1, round(math.sqrt(n)))
            mistakes.append(
                f"{key}.population: {n} must equal k*k = {select['k'] ** 2}, because each ordered "
                f"pair of the k = {select['k']} parents has one child; allowed: a square, e.g. "
                f"{near**2} or {(near + 1) ** 2}, with select.k its root or null"
            )


def check_rule(key: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """Check that a selection rule of the table finds what it reads."""
    rule = experiment["select"]["rule"]
    if SELECTION[rule].follows_weights and not weights_of(experiment).needs_selection:
        mistakes.append(
            f"{key}.weights: {experiment['weights']!r} breaks the lines that select.rule: {rule} "
            "follows; set weights: parent, or choose another rule"
        )
    if not SELECTION[rule].reads_truth:
        return
    pool = experiment.get("founders")
    own = listed(config["founders"][pool]["corpus"]) if pool in config["founders"] else []
    measured = {
        g
        for entry in config["evaluate"]["perplexity"]
        if is_held_out(entry)
        and (entry["founders"] is None or pool in entry["founders"])
        and all(
            CORPUS_KINDS[config["corpora"][corpus]["kind"]].world
            for corpus in (own if entry["corpus"] == OWN else [entry["corpus"]])
            if corpus in config["corpora"]
        )
        for g in entry["generations"] or range(experiment["generations"])
    }
    if missing := sorted(set(range(experiment["generations"])) - measured):
        mistakes.append(
            f"{key}.select.rule: {rule!r} ranks by excess nats, but evaluate.perplexity measures "
            f"no held-out text of a microworld in generation {missing[0]}; add {{corpus: "
            "MICROWORLD, split: test}, or choose another rule"
        )


def check_size(experiments: dict, mistakes: list[str]) -> None:
    """Check that the run has no more models and text files than can be planned.

    The message names the largest experiment.
    """

    def models(name: str) -> int:
        return experiments[name]["population"] * experiments[name]["generations"]

    def read(name: str) -> int:
        experiment = experiments[name]
        writers = most_writers(experiment)
        rounds = experiment["generations"] if experiment["human"]["accumulate"] != "none" else 1
        return models(name) * writers * rounds * experiment["generate"]["shards"]

    for count, most, what, keys in (
        (models, MAX_MODELS, "models", "population or generations"),
        (read, MAX_READ, "text files to read", "population, generations or generate.shards"),
    ):
        total = sum(map(count, experiments))
        if total > most:
            name = max(experiments, key=count)
            mistakes.append(
                f"experiments.{name}.population: {count(name):,} {what} in this experiment and "
                f"{total:,} in the run cannot be planned; allowed: {most:,} in the run; lower "
                f"{keys}"
            )
            return


def check_members(
    key: str, experiment: dict, pool: dict, config: dict, mistakes: list[str]
) -> None:
    """Check that the founder pool has what every member of an experiment needs."""
    n = experiment["population"]
    for name in ("model", "corpus", "validation", "segments"):
        if isinstance(pool[name], list) and len(pool[name]) < n:
            where = f"founders.{experiment['founders']}.{name}"
            mistakes.append(
                f"{key}.population: {n} exceeds the {len(pool[name])} entries of {where}; lower "
                "population or add entries"
            )
    if pool["segments"] == "distinct" and pool["num_segments"] and pool["num_segments"] < n:
        mistakes.append(
            f"{key}.population: {n} members cannot have distinct segments, because "
            f"founders.{experiment['founders']}.num_segments is {pool['num_segments']}; lower "
            f"population, or set num_segments: {n}"
        )
    families = {model for model in listed(pool["model"])[:n] if model in config["models"]}
    if experiment["generations"] > 1 and not text_of(experiment).is_human:
        generate = experiment["generate"]
        check_room(f"{key}.generate", generate, families, config, mistakes)
        if generate["min_completion_tokens"] > generate["max_new_tokens"]:
            mistakes.append(
                f"{key}.generate.min_completion_tokens: {generate['min_completion_tokens']} "
                "exceeds max_new_tokens, so all completions would be dropped; allowed: at most "
                f"{generate['max_new_tokens']}. Lower it or raise max_new_tokens"
            )
    check_room("evaluate.samples", config["evaluate"]["samples"], families, config, mistakes)
    pretrained = {bool(config["models"][model]["pretrained"]) for model in families}
    weights = weights_of(experiment)
    if weights.pretrained is not None and (not weights.pretrained) in pretrained:
        allowed = sorted(
            name
            for name, one in WEIGHTS.items()
            if one.pretrained in (None, not weights.pretrained)
        )
        why = "needs" if weights.pretrained else "is not possible with"
        mistakes.append(
            f"{key}.weights: {experiment['weights']!r} {why} a pretrained model; allowed: "
            f"{', '.join(allowed)}"
        )
    if (weights.needs_selection or weights.is_soup) and len(families) > 1:
        allowed = sorted(
            name for name, one in WEIGHTS.items() if not one.needs_selection and not one.is_soup
        )
        why = (
            "and only models of one architecture can be averaged"
            if weights.is_soup
            else "so a child's model would be known only after selection"
        )
        mistakes.append(
            f"{key}.weights: {experiment['weights']!r} needs one model, but the founders have "
            f"several ({', '.join(sorted(families))}), {why}; allowed: {', '.join(allowed)}"
        )


def check_text_of(config: dict, mistakes: list[str]) -> None:
    """Check `text_of`, and point each replicate to the replicate of the same seed if it exists."""
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
                    "another experiment, or remove text_of"
                )
            elif writer["generations"] + 1 < experiment["generations"]:
                # generation g reads the text of generation g - 1
                mistakes.append(
                    f"experiments.{name}.generations: {experiment['generations']} is too many, "
                    f"because it reads the text of {source!r}, which has {writer['generations']}; "
                    f"allowed: 1 to {writer['generations'] + 1}"
                )
