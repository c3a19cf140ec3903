"""What all rules share: the input functions, which ask the plan (pollination/workflow.py), and sizes that grow with `attempt`."""

import os


def grows(size):
    """A resource that doubles, trebles, ... when the profile submits a failed job again."""
    return lambda wildcards, attempt: size * attempt


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


def blueprint(wildcards):
    place = wildcards.get("place") or (
        f"founders/{wildcards.pool}" if "pool" in wildcards.keys() else f"{wildcards.experiment}/gen{wildcards.gen}"
    )
    return [f"{plan.blueprint(place)}/{file}" for file in ("config.json", "tokenizer.json", "tokenizer_config.json")]


def context_tokens(wildcards):
    return plan.context_tokens(f"{wildcards.experiment}/gen{wildcards.gen}")


def founder_inputs(wildcards):
    return plan.founder_inputs(wildcards.pool)


def child_inputs(wildcards):
    return plan.child_inputs(wildcards.experiment, int(wildcards.gen), int(wildcards.member))


def evaluation_inputs(wildcards):
    return plan.evaluation_inputs(wildcards.place)


def generation_scores(wildcards):
    return plan.members(wildcards.experiment, int(wildcards.gen), "scores.json")


def generation_answers(wildcards):
    return plan.members(wildcards.experiment, int(wildcards.gen), "answers.parquet")


def parent_inputs(wildcards):
    return plan.parent_inputs(wildcards.experiment, int(wildcards.gen), int(wildcards.rank))


def prompts(wildcards):
    return plan.prompts(plan.prompt_corpus(wildcards.experiment))


def pooled_shards(wildcards):
    return plan.all_shards(wildcards.experiment, int(wildcards.gen))


def figure_source(figure):
    """A figure's own code is an input, so that a changed plot is drawn again; relative, so that a project can be moved."""
    return os.path.relpath(f"{workflow.basedir}/pollination/figures/{figure}.py")


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
