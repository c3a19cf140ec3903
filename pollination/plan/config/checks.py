"""Check what a schema cannot express: unknown names, and keys that a kind needs or ignores.

Each check appends its mistakes, one line each: key, value, what is allowed, the fix.
"""

import os
from typing import Any

from pollination.plan.config.sweep import spread
from pollination.plan.config.userfiles import check_form
from pollination.plan.config.values import OWN, SEGMENT, is_held_out, listed, nearest, runs_of
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.splits import same_benchmark

NEEDS = {  # keys that each kind of task and tokenizer needs
    "tasks": {"microworld": ["corpus", "benchmark"], "lm_eval": ["template"]},
    "tokenizer": {"word": ["corpus"], "bpe": ["corpus"], "pretrained": ["source"]},
}
UNREAD = {  # keys that a kind of task does not read
    "microworld": ("template", "data", "include_path", "metric"),
    "lm_eval": ("benchmark", "corpus"),
}
SURVEY = {  # keys that each kind of survey needs
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
                f"corpora.{OWN}: this name is reserved for each member's own corpus; choose "
                "another name"
            )
        for key in kind.needs:
            if key not in corpus and not (key == "path" and splits):
                mistakes.append(
                    f"corpora.{name}.{key}: the key is missing; add it, because a corpus of kind "
                    f"{corpus['kind']} needs it"
                )
        if splits is not None and (
            not kind.splits or set(splits) != {"train", "validation", "test"}
        ):
            mistakes.append(
                f"corpora.{name}.splits: {sorted(splits)} is not allowed for kind "
                f"{corpus['kind']}; allowed: train, validation and test together, for kinds "
                f"{with_splits}"
            )
        if kind.world and corpus["on_overlap"] == "remove":
            mistakes.append(
                f"corpora.{name}.on_overlap: 'remove' is not allowed for kind {corpus['kind']}, "
                "whose documents follow a known grammar; allowed: refuse"
            )
        for part in corpus.get("corpora", []):
            if (
                reference(mistakes, f"corpora.{name}.corpora", part, corpora, "corpora")
                and CORPUS_KINDS[corpora[part]["kind"]].joined
            ):
                mistakes.append(
                    f"corpora.{name}.corpora: {part!r} is itself of kind {corpora[part]['kind']}; "
                    "list its corpora instead"
                )
        if sum(corpus["held_out"].values()) >= 1:
            mistakes.append(
                f"corpora.{name}.held_out: the shares add up to "
                f"{sum(corpus['held_out'].values()):g}, which leaves no text to train on; allowed: "
                "a sum below 1"
            )


def check_precisions(config: dict, mistakes: list[str]) -> None:
    """Refuse TF32, which only GPUs have, in a run on the CPU."""
    given = {f"founders.{name}.train": pool["train"] for name, pool in config["founders"].items()}
    given |= {
        f"experiments.{name}.{part}": experiment[part]
        for name, experiment in config["experiments"].items()
        for part in ("generate", "train")
    }
    for key, settings in (given | {"evaluate": config["evaluate"]}).items():
        if config["device"] == "cpu" and settings["precision"] == "tf32":
            mistakes.append(
                f"{key}.precision: 'tf32' needs a GPU, but the config sets device: cpu; allowed "
                f"with it: auto, fp32, bf16. Set {key}.precision: auto, or device: auto"
            )


def check_training(key: str, train: dict, mistakes: list[str]) -> None:
    """Check the keys of `train` that exclude each other."""
    gpus, batch = train["gpus"], train["batch_size"]
    if gpus > batch:
        mistakes.append(
            f"{key}.gpus: {gpus} exceeds {key}.batch_size: {batch}, so a GPU would have nothing to "
            f"compute; allowed: 1 to {batch}. Lower it, or raise batch_size"
        )
    if train["parallel"] == "fsdp" and gpus == 1:
        mistakes.append(
            f"{key}.parallel: 'fsdp' has no effect with gpus: 1; set {key}.gpus to 2 or more, or "
            "parallel: ddp"
        )
    if train["parallel"] == "fsdp" and train["compile"] is True:
        mistakes.append(
            f"{key}.compile: true is not possible with parallel: fsdp; allowed: auto, false, null"
        )


def check_adoption(key: str, pool: dict, models: dict, mistakes: list[str]) -> None:
    """Check a pool whose founders are pretrained models that are not trained."""
    if pool["train"]["epochs"]:
        return
    new = [m for m in listed(pool["model"]) if m in models and not models[m]["pretrained"]]
    if new:
        mistakes.append(
            f"{key}.train.epochs: 0 leaves model {new[0]!r} untrained, because it is not "
            "pretrained; set 1 or more, or name a pretrained model"
        )
    if pool["train"]["checkpoint"] == "best":
        mistakes.append(
            f"{key}.train.checkpoint: 'best' chooses an epoch, and epochs is 0; set "
            "checkpoint: last"
        )


def check_founders(config: dict, mistakes: list[str]) -> None:
    for name, pool in config["founders"].items():
        key = f"founders.{name}"
        for model in listed(pool["model"]):
            reference(mistakes, f"{key}.model", model, config["models"], "models")
        for kind in ("corpus", "validation"):
            for corpus in listed(pool[kind]):
                reference(mistakes, f"{key}.{kind}", corpus, config["corpora"], "corpora")
        check_training(f"{key}.train", pool["train"], mistakes)
        check_adoption(key, pool, config["models"], mistakes)
        if pool["train"]["tokens"] is None and pool["num_segments"] is None:
            mistakes.append(
                f"{key}.train.tokens: the key is missing; set the number of tokens of human text "
                f"that each founder trains on, or set {key}.num_segments"
            )
        if (
            pool["num_segments"]
            and isinstance(pool["segments"], list)
            and max(pool["segments"]) >= pool["num_segments"]
        ):
            mistakes.append(
                f"{key}.segments: {max(pool['segments'])} is not one of the "
                f"{pool['num_segments']} segments; allowed: 0 to {pool['num_segments'] - 1}"
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
                    f"models.{name}.pretrained.founders: {source['founders']!r} itself starts from "
                    "another pool; name a pool that does not"
                )


def check_kinds(config: dict, mistakes: list[str]) -> None:
    """Check the keys that each kind needs or ignores, and all names outside the experiments."""
    corpora = config["corpora"]
    check_corpora(corpora, mistakes)
    check_founders(config, mistakes)
    for name, model in config["models"].items():
        tokenizer = model["tokenizer"]
        if (model["pretrained"] is None) == ("architecture" not in model):
            mistakes.append(
                f"models.{name}: set either 'architecture' (a new model) or 'pretrained' (a "
                "folder, a hub name or a founder pool), not both or neither"
            )
        if model["pretrained"] is None:
            for key in NEEDS["tokenizer"][tokenizer["kind"]]:
                if key not in tokenizer:
                    mistakes.append(
                        f"models.{name}.tokenizer.{key}: the key is missing; add it, because a "
                        f"tokenizer of kind {tokenizer['kind']} needs it"
                    )
        if "corpus" in tokenizer:
            reference(
                mistakes, f"models.{name}.tokenizer.corpus", tokenizer["corpus"], corpora, "corpora"
            )
    for name, task in config["tasks"].items():
        for key in NEEDS["tasks"][task["kind"]]:
            if key not in task:
                mistakes.append(
                    f"tasks.{name}.{key}: the key is missing; add it, because a task of kind "
                    f"{task['kind']} needs it"
                )
        for key in UNREAD[task["kind"]]:
            if task.get(key) is not None:
                mistakes.append(
                    f"tasks.{name}.{key}: a task of kind {task['kind']} does not read it; remove it"
                )
        if "corpus" in task and reference(
            mistakes, f"tasks.{name}.corpus", task["corpus"], corpora, "corpora"
        ):
            kind = corpora[task["corpus"]]["kind"]
            if not CORPUS_KINDS[kind].world:
                mistakes.append(
                    f"tasks.{name}.corpus: {task['corpus']!r} is of kind {kind}, but a microworld "
                    "task needs a corpus of kind microworld; name one"
                )
    for index, entry in enumerate(config["evaluate"]["perplexity"]):
        reference(
            mistakes,
            f"evaluate.perplexity.{index}.corpus",
            entry["corpus"],
            corpora | {OWN: 0},
            "corpora",
        )
        if entry["split"] == SEGMENT:
            check_segment(f"evaluate.perplexity.{index}", entry, mistakes)
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
    measured = [e["corpus"] for e in config["evaluate"]["perplexity"] if is_held_out(e)]
    for name, pool in config["founders"].items() if config["evaluate"]["quality"] else ():
        for corpus in (
            sorted(set(listed(pool["corpus"])) - set(measured)) if OWN not in measured else ()
        ):
            mistakes.append(
                f"evaluate.quality: true needs the loss on held-out text of {corpus!r} "
                f"(founders.{name}.corpus); add an entry for it with split: test or validation to "
                "evaluate.perplexity, or set quality: false"
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
            f"evaluate.samples.num_prompts: {config['evaluate']['samples']['num_prompts']} is too "
            "few for evaluate.semantics, which compares clusters of prompts; allowed: 2 or more"
        )


def check_segment(key: str, entry: dict, mistakes: list[str]) -> None:
    """Check an entry of evaluate.perplexity that measures the segments of founders."""
    if entry["corpus"] != OWN:
        mistakes.append(
            f"{key}.split: segment is part of a member's own corpus, but corpus is "
            f"{entry['corpus']!r}; set corpus: own, or split: train, validation or test"
        )
    if entry["sequences"] == "documents":
        mistakes.append(
            f"{key}.sequences: documents is not possible with split: segment, because a segment "
            "consists of blocks; set sequences: blocks, or another split"
        )
    if -1 in (entry["generations"] or ()):
        mistakes.append(
            f"{key}.generations: -1 is not possible with split: segment, because the untouched "
            "pretrained model has read no segment; allowed: 0 and above, or null; remove -1"
        )


def check_splits(tasks: dict, mistakes: list[str]) -> None:
    """Check that tasks on one benchmark, of which a half selects, ask the same questions."""
    for same in same_benchmark(tasks):
        first, *others = [task for task in same if tasks[task]["split"] != "none"] or [""]
        for task in others:
            asked, expected = (tasks[name]["questions"] for name in (task, first))
            if asked != expected:
                mistakes.append(
                    f"tasks.{task}.questions: {asked} differs from {expected} of tasks.{first} on "
                    "the same benchmark, so a question could select parents and be reported; set "
                    "the same number, or split: none for both"
                )


def check_theory(theory: dict, mistakes: list[str]) -> None:
    """Check that there are more samples than dimensions, as a covariance needs."""
    if theory:
        most = max(theory["dimensions"], *theory["grid"]["dimensions"])
        for key, n in (("n", theory["n"]), ("grid.n", min(theory["grid"]["n"]))):
            dimensions = most if key == "n" else theory["dimensions"]
            if n <= dimensions:
                mistakes.append(
                    f"theory.{key}: {n} samples are too few for the covariance of {dimensions} "
                    f"dimensions; allowed: {dimensions + 1} or more"
                )


def check_survey(key: str, survey: dict, config: dict, named: dict, mistakes: list[str]) -> None:
    """Check the keys that a kind of survey needs, and the names of its experiments.

    The experiments of a population survey are replaced by their replicates.
    """
    for needed in SURVEY[survey["kind"]]:
        if needed not in survey:
            mistakes.append(
                f"{key}.{needed}: the key is missing; add it, because a survey of kind "
                f"{survey['kind']} needs it"
            )
    if survey["kind"] == "collect" and survey["collect"]["prompts"] is None:
        mistakes.append(
            f"{key}.collect.prompts: the key is missing; name a parquet or jsonl file with the "
            "columns prompt_id and prompt"
        )
    if (
        isinstance(rule := survey["compare"]["bandwidth"], str)
        and rule not in ("scott", "silverman")
    ) or rule == 0:
        mistakes.append(
            f"{key}.compare.bandwidth: {rule!r} is not allowed; allowed: scott, silverman or a "
            "number above 0"
        )
    if survey["kind"] == "population":
        chosen = list(named) if survey["experiments"] is None else survey["experiments"]
        survey["experiments"] = replicates(f"{key}.experiments", chosen, config, named, mistakes)
        if not named:
            mistakes.append(
                f"{key}.kind: 'population' needs experiments, but this config has none; add an "
                "experiment, or choose another kind"
            )


def replicates(key: str, chosen: list, config: dict, named: dict, mistakes: list) -> list[str]:
    """Return the runs that a list names: experiments with all replicates, and single replicates."""
    chosen = spread(chosen, config.get("sweeps", {}))
    runs = {run: [run] for run in config["experiments"]} | runs_of(config["experiments"])
    known = [
        name in runs or reference(mistakes, key, name, named, "experiments") for name in chosen
    ]
    return (
        list(dict.fromkeys(run for name in chosen for run in runs[name])) if all(known) else chosen
    )


def check_semantics(config: dict, named: dict, mistakes: list[str]) -> None:
    """Check the experiments of evaluate.semantics, and replace them by their replicates."""
    semantics = config["evaluate"]["semantics"]
    if semantics and semantics.get("experiments"):
        key = "evaluate.semantics.experiments"
        chosen = semantics["experiments"]
        semantics["experiments"] = replicates(key, chosen, config, named, mistakes)


def check_synthetic(config: dict, mistakes: list[str]) -> None:
    """Check the corpora that an experiment of the run writes."""
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
                    f"corpora.{name}.generation: {corpus['generation']} is not a generation of "
                    f"{corpus['experiment']!r}; allowed: 0 to {last}"
                )


def check_kept(config: dict, mistakes: list[str]) -> None:
    """Refuse local paths to files of the run's own generations that `keep` deletes.

    The plan does not know that a job reads such files, so the job that deletes them does not wait.
    """
    run = os.path.abspath(f"results/{config['run']}")

    def refuse(key: str, path: str, kept: str, instead: str) -> None:
        inside = os.path.relpath(os.path.abspath(os.path.expanduser(path)), run).split(os.sep)[0]
        if inside in config["experiments"] or any(sign in inside for sign in "*?["):
            mistakes.append(
                f"{key}: {path!r} lies in a generation of this run, whose files keep.{kept}: "
                f"{config['keep'][kept]} deletes; {instead}, copy the files elsewhere, or set "
                f"keep.{kept}: all"
            )

    if config["keep"]["text"] != "all":
        tables = {"corpora": "use kind synthetic", "fingerprint": "use kind population"}
        for section, instead in tables.items():
            for name, spec in config[section].items():
                paths = [("path", spec.get("path"))]
                paths += [
                    (f"splits.{split}", path) for split, path in (spec.get("splits") or {}).items()
                ]
                for key, path in paths:
                    for one in listed(path) if path else ():
                        refuse(f"{section}.{name}.{key}", one, "text", instead)
    if config["keep"]["checkpoints"] != "all":
        for name, spec in config["models"].items():
            if isinstance(spec["pretrained"], str):
                instead = "use pretrained: {founders: POOL}"
                refuse(f"models.{name}.pretrained", spec["pretrained"], "checkpoints", instead)
