"""What all rules share: the input functions, which ask the plan (pollination/workflow.py), and sizes that grow with `attempt`."""

import gc
import os
import sys

from pollination.driver import hold

sys.setrecursionlimit(1_000_000)  # hundreds of generations are one chain of jobs, and Snakemake follows it recursively
gc.set_threshold(100_000)  # a plan is millions of objects that stay: looking through them for garbage took an eighth of its time


onstart:
    hold(plan.results)


def grows(size, most=float("inf")):
    """A resource that doubles, trebles, ... up to `most` when the profile submits a failed job again."""
    return lambda wildcards, attempt: min(size * attempt, most)


def minutes(size):
    """Time that grows with each attempt, to a day at most: a job over its partition's limit would be queued for ever."""
    return grows(size, most=24 * 60)


def setting(path):
    """The config value at a path of keys that may hold wildcards. (Snakemake's lookup reads the whole config for every job.)"""

    def value(wildcards):
        found = config
        for key in path.format(**wildcards).split("/"):
            found = found[key]
        return found

    return value


def names(kind, key, value):
    """A wildcard constraint: the entries of config[kind] whose `key` is (in) `value`; matches nothing where there are none."""
    chosen = [re.escape(name) for name, spec in config[kind].items() if spec[key] in value]
    return "|".join(chosen) or "(?!)"


def corpus_sources(wildcards):
    return plan.corpus_sources(wildcards.corpus)


def tokenizer_corpus(wildcards):
    return plan.tokenizer_corpus(wildcards.model)


def task_sources(wildcards):
    return plan.task_sources(wildcards.task)


def checked_tasks(wildcards):
    return [
        f"{plan.results}/tasks/{task}/questions.parquet" for task, spec in sorted(config["tasks"].items()) if spec["kind"] != "microworld"
    ]


def place(wildcards):
    if "place" in wildcards.keys():
        return wildcards.place
    return f"founders/{wildcards.pool}" if "pool" in wildcards.keys() else f"{wildcards.experiment}/gen{wildcards.gen}"


def blueprint(wildcards):
    folder = plan.blueprint(place(wildcards), int(wildcards.member))
    return [f"{folder}/{file}" for file in ("config.json", "tokenizer.json", "tokenizer_config.json")]


def context_tokens(wildcards):
    return config["models"][plan.model(place(wildcards), int(wildcards.member))]["context_tokens"]


def separator(wildcards):
    return config["models"][plan.model(place(wildcards), int(wildcards.member))]["separator"]


def segment(wildcards):
    """Which blocks of its corpus a founder reads, for the jobs that read them."""
    first, second = place(wildcards).split("/")
    return plan.segment(second if first == "founders" else config["experiments"][first]["founders"])


def pretrained_from(wildcards):
    return plan.pretrained_from(wildcards.model)


def founder_inputs(wildcards):
    return plan.founder_inputs(wildcards.pool, int(wildcards.member))


def child_inputs(wildcards):
    return plan.child_inputs(wildcards.experiment, int(wildcards.gen), int(wildcards.member))


def evaluation_inputs(wildcards):
    return plan.evaluation_inputs(wildcards.place, int(wildcards.member))


def measures(wildcards):
    return plan.measures(wildcards.place, int(wildcards.member))


def evaluated_model(wildcards):
    weights, *others = plan.model_files(wildcards.place, int(wildcards.member))
    return {"weights": weights, "model": others}


def disagreement_inputs(wildcards):
    return plan.disagreement_inputs(wildcards.experiment, int(wildcards.gen))


def quality_inputs(wildcards):
    return plan.quality_inputs(wildcards.place, int(wildcards.member))


def training(wildcards):
    return plan.training(wildcards.place)


def quality_entry(wildcards):
    return plan.quality_entry(wildcards.place, int(wildcards.member))


def quality_sequences(wildcards):
    return plan.sequences(quality_entry(wildcards))


def generation_scores(wildcards):
    return plan.members(wildcards.experiment, int(wildcards.gen), "scores.json")


def generation_answers(wildcards):
    return plan.members(wildcards.experiment, int(wildcards.gen), "answers.parquet")


def parent_inputs(wildcards):
    return plan.parent_inputs(wildcards.experiment, int(wildcards.gen), int(wildcards.rank))


def prompt_inputs(wildcards):
    return plan.prompt_inputs(wildcards.experiment, int(wildcards.gen), int(wildcards.rank))


def pruning_inputs(wildcards):
    return plan.pruning_inputs(wildcards.experiment, int(wildcards.gen))


def prunable(wildcards):
    return plan.prunable(wildcards.experiment, int(wildcards.gen))


def pooled_shards(wildcards):
    return plan.pooled(wildcards.experiment, int(wildcards.gen))


def embedded_samples(wildcards):
    return [f"{plan.results}/{model}/samples.parquet" for model in plan.embedded_models()]


def semantics(key):
    """A setting of `evaluate.semantics`; its rules ask for nothing where it is null."""
    return (plan.semantics or {}).get(key)


def own_texts():
    return sorted(config["evaluate"]["samples"]["texts"])


def figure_source(figure):
    """A figure's own code is an input, so that a changed plot is drawn again; relative, so that a project can be moved."""
    return os.path.relpath(f"{workflow.basedir}/pollination/figures/{figure}.py")


def target_files(target):
    """What a figure or table of the studies makes; where its role is missing, one line and no plan."""

    def files(wildcards):
        try:
            return plan.target_files(target)
        except ValueError as missing:
            sys.exit(f"error: {missing}")

    return files


def target_inputs(wildcards):
    return plan.target_inputs(wildcards.target)


def target_source(wildcards):
    return figure_source(TARGETS[wildcards.target].draws)


def figure_inputs(wildcards):
    return plan.figure_inputs(wildcards.figure)


def survey_sources(wildcards):
    return plan.survey_parts(wildcards.survey)[wildcards.part]


def survey_models(wildcards):
    """The list of models of a survey; a population is its own."""
    return config["fingerprint"][wildcards.survey].get("models", [])


def survey_parts(wildcards):
    return [f"{plan.results}/fingerprint/{wildcards.survey}/parts/{part}.json" for part in plan.survey_parts(wildcards.survey)]


def survey_selections(wildcards):
    return plan.survey_selections(wildcards.survey)


def stopwords(wildcards):
    """Staged from NLTK, a file of the user's, or none: then the package's list."""
    name = config["fingerprint"][wildcards.survey]["count"]["stopwords"]
    return {"snowball": [], "nltk": [f"{plan.results}/staged/stopwords.txt"]}.get(name, [name])


def survey_prompts(wildcards):
    return config["fingerprint"][wildcards.survey]["collect"]["prompts"] or []
