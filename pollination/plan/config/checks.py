"""What a schema cannot say of a config: names that point nowhere, keys that a kind needs, operators
that do not go together.

Each check appends its mistakes, one line each: key, value, what is allowed, the fix.
"""

import math
from typing import Any

from pollination.plan.config.userfiles import check_form
from pollination.plan.config.values import OWN, listed, nearest
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
NEEDS = {  # what each kind of task and tokenizer cannot do without
    "tasks": {"microworld": ["corpus", "benchmark"], "lm_eval": ["template"]},
    "tokenizer": {"word": ["corpus"], "bpe": ["corpus"], "pretrained": ["source"]},
}
SURVEY = {  # what each kind of survey cannot do without
    "outputs": ("models", "path"),
    "results": ("models", "path"),
    "collect": ("models",),
    "population": (),
}


def reference(mistakes: list[str], key: str, name: Any, table: dict, where: str) -> bool:
    if name in table:
        return True
    listed = ", ".join(sorted(table)) or "(none)"
    mistakes.append(
        f"{key}: {name!r} is not in {where}{nearest(name, list(table))}; allowed: {listed}"
    )
    return False


def check_corpora(corpora: dict, mistakes: list[str]) -> None:
    with_splits = " and ".join(name for name, kind in CORPUS_KINDS.items() if kind.splits)
    for name, corpus in corpora.items():
        kind, splits = CORPUS_KINDS[corpus["kind"]], corpus["splits"]
        if name == OWN:
            mistakes.append(
                f"corpora.{OWN}: this name stands for each member's own corpus; choose another"
            )
        for key in kind.needs:
            if key not in corpus and not (key == "path" and splits):
                mistakes.append(
                    f"corpora.{name}.{key}: missing; a corpus of kind {corpus['kind']} needs it"
                )
        if splits is not None and (
            not kind.splits or set(splits) != {"train", "validation", "test"}
        ):
            mistakes.append(
                f"corpora.{name}.splits: {sorted(splits)}; allowed: train, validation and test "
                f"together, for kinds {with_splits}"
            )
        for part in corpus.get("corpora", []):
            if (
                reference(mistakes, f"corpora.{name}.corpora", part, corpora, "corpora")
                and CORPUS_KINDS[corpora[part]["kind"]].joined
            ):
                mistakes.append(
                    f"corpora.{name}.corpora: {part!r} is a {corpora[part]['kind']} itself; name "
                    "its corpora"
                )
        if sum(corpus["held_out"].values()) >= 1:
            mistakes.append(
                f"corpora.{name}.held_out: the shares add up to "
                f"{sum(corpus['held_out'].values()):g}; they must leave text to train on (< 1)"
            )


def check_founders(config: dict, mistakes: list[str]) -> None:
    for name, pool in config["founders"].items():
        key = f"founders.{name}"
        for model in listed(pool["model"]):
            reference(mistakes, f"{key}.model", model, config["models"], "models")
        for kind in ("corpus", "validation"):
            for corpus in listed(pool[kind]):
                reference(mistakes, f"{key}.{kind}", corpus, config["corpora"], "corpora")
        if pool["train"]["tokens"] is None and pool["num_segments"] is None:
            mistakes.append(
                f"{key}.train.tokens: missing; state how many tokens of human text each founder "
                f"trains on, or {key}.num_segments"
            )
        if (
            pool["num_segments"]
            and isinstance(pool["segments"], list)
            and max(pool["segments"]) >= pool["num_segments"]
        ):
            mistakes.append(
                f"{key}.segments: {max(pool['segments'])} is none of {pool['num_segments']} "
                f"segments; allowed: 0 to {pool['num_segments'] - 1}"
            )
    for name, model in config["models"].items():
        source = model["pretrained"]
        if isinstance(source, dict) and reference(
            mistakes,
            f"models.{name}.pretrained.founders",
            source["founders"],
            config["founders"],
            "founders",
        ):
            before = [
                config["models"].get(base, {})
                for base in listed(config["founders"][source["founders"]]["model"])[:1]
            ]
            if any(isinstance(base.get("pretrained"), dict) for base in before):
                mistakes.append(
                    f"models.{name}.pretrained.founders: {source['founders']!r} starts from "
                    "another pool itself; name a pool that does not"
                )


def check_kinds(config: dict, mistakes: list[str]) -> None:
    """Keys that a kind needs or does not read, and names that point nowhere, outside the
    experiments.
    """
    corpora = config["corpora"]
    check_corpora(corpora, mistakes)
    check_founders(config, mistakes)
    for name, model in config["models"].items():
        tokenizer = model["tokenizer"]
        if (model["pretrained"] is None) == ("architecture" not in model):
            mistakes.append(
                f"models.{name}: give either 'architecture' (a new model) or 'pretrained' (a "
                "folder or hub name), not both or neither"
            )
        if model["pretrained"] is None:
            for key in NEEDS["tokenizer"][tokenizer["kind"]]:
                if key not in tokenizer:
                    mistakes.append(
                        f"models.{name}.tokenizer.{key}: missing; a tokenizer of kind "
                        f"{tokenizer['kind']} needs it"
                    )
        if "corpus" in tokenizer:
            reference(
                mistakes, f"models.{name}.tokenizer.corpus", tokenizer["corpus"], corpora, "corpora"
            )
    for name, task in config["tasks"].items():
        for key in NEEDS["tasks"][task["kind"]]:
            if key not in task:
                mistakes.append(
                    f"tasks.{name}.{key}: missing; a task of kind {task['kind']} needs it"
                )
        if "corpus" in task and reference(
            mistakes, f"tasks.{name}.corpus", task["corpus"], corpora, "corpora"
        ):
            kind = corpora[task["corpus"]]["kind"]
            if not CORPUS_KINDS[kind].world:
                mistakes.append(
                    f"tasks.{name}.corpus: {task['corpus']!r} is of kind {kind}; a microworld task "
                    "needs a microworld"
                )
    for index, entry in enumerate(config["evaluate"]["perplexity"]):
        reference(
            mistakes,
            f"evaluate.perplexity.{index}.corpus",
            entry["corpus"],
            corpora | {OWN: 0},
            "corpora",
        )
        for pool in entry["founders"] or []:
            reference(
                mistakes,
                f"evaluate.perplexity.{index}.founders",
                pool,
                config["founders"],
                "founders",
            )
    if config["evaluate"]["disagreement"] is not None:
        reference(
            mistakes,
            "evaluate.disagreement.corpus",
            config["evaluate"]["disagreement"]["corpus"],
            corpora,
            "corpora",
        )
    for name, function in config["evaluate"]["measures"].items():
        check_form(f"evaluate.measures.{name}", function, {}, "measure", mistakes)
    measured = [entry["corpus"] for entry in config["evaluate"]["perplexity"]]
    for name, pool in config["founders"].items() if config["evaluate"]["quality"] else ():
        for corpus in (
            sorted(set(listed(pool["corpus"])) - set(measured)) if OWN not in measured else ()
        ):
            mistakes.append(
                f"evaluate.quality: true needs the loss on founders.{name}.corpus, {corpus!r}; add "
                "an entry of evaluate.perplexity for it"
            )
    if config["evaluate"]["samples"]["corpus"] is not None:
        reference(
            mistakes,
            "evaluate.samples.corpus",
            config["evaluate"]["samples"]["corpus"],
            corpora,
            "corpora",
        )
    if (
        config["evaluate"]["semantics"] is not None
        and config["evaluate"]["samples"]["num_prompts"] < 2
    ):
        mistakes.append(
            "evaluate.samples.num_prompts: 1 prompt has no clusters to compare; allowed with "
            "evaluate.semantics: 2 or more"
        )


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


def check_theory(theory: dict, mistakes: list[str]) -> None:
    """More samples than dimensions, else no covariance can be estimated."""
    if theory:
        most = max(theory["dimensions"], *theory["grid"]["dimensions"])
        for key, n in (("n", theory["n"]), ("grid.n", min(theory["grid"]["n"]))):
            dimensions = most if key == "n" else theory["dimensions"]
            if n <= dimensions:
                mistakes.append(
                    f"theory.{key}: {n} samples cannot estimate {dimensions} dimensions; allowed: "
                    "more samples than dimensions"
                )


def check_survey(key: str, survey: dict, config: dict, named: dict, mistakes: list[str]) -> None:
    """Keys that a kind of survey needs, and experiments that are there; the experiments of a
    population become their replicates.
    """
    for needed in SURVEY[survey["kind"]]:
        if needed not in survey:
            mistakes.append(f"{key}.{needed}: missing; a survey of kind {survey['kind']} needs it")
    if survey["kind"] == "collect" and survey["collect"]["prompts"] is None:
        mistakes.append(
            f"{key}.collect.prompts: missing; name a parquet or jsonl file with prompt_id and "
            "prompt"
        )
    if (
        isinstance(rule := survey["compare"]["bandwidth"], str)
        and rule not in ("scott", "silverman")
    ) or rule == 0:
        mistakes.append(
            f"{key}.compare.bandwidth: {rule!r} is not allowed; allowed: scott, silverman, a "
            "number above 0"
        )
    if survey["kind"] == "population":
        chosen = list(named) if survey["experiments"] is None else survey["experiments"]
        known = [
            reference(mistakes, f"{key}.experiments", name, named, "experiments") for name in chosen
        ]
        if all(known):
            survey["experiments"] = [
                r
                for name in chosen
                for r in config["experiments"]
                if r == name or r.startswith(f"{name}.s")
            ]
        if not named:
            mistakes.append(f"{key}.kind: 'population' needs experiments; this config has none")


def check_semantics(config: dict, named: dict, mistakes: list[str]) -> None:
    """Experiments that are there; they become their replicates."""
    semantics = config["evaluate"]["semantics"]
    chosen = (semantics or {}).get("experiments")
    known = [
        reference(mistakes, "evaluate.semantics.experiments", name, named, "experiments")
        for name in chosen or ()
    ]
    if chosen and all(known):
        semantics["experiments"] = [
            r
            for name in chosen
            for r in config["experiments"]
            if r == name or r.startswith(f"{name}.s")
        ]


def check_synthetic(config: dict, mistakes: list[str]) -> None:
    """Corpora that an experiment of the run writes."""
    for name, corpus in config["corpora"].items():
        key = f"corpora.{name}.experiment"
        if CORPUS_KINDS[corpus["kind"]].written and reference(
            mistakes, key, corpus.get("experiment"), config["experiments"], "experiments"
        ):
            last = config["experiments"][corpus["experiment"]]["generations"] - 1
            pool = config["experiments"][corpus["experiment"]].get("founders")
            if name in listed(config["founders"].get(pool, {}).get("corpus")):
                mistakes.append(
                    f"{key}: {corpus['experiment']!r} starts from founders {pool!r}, which read "
                    "this corpus; name another experiment"
                )
            if corpus.get("generation", 0) > last:
                mistakes.append(
                    f"corpora.{name}.generation: {corpus['generation']} is not in "
                    f"{corpus['experiment']!r}; allowed: 0 to {last}"
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
