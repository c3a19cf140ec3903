"""Evaluate every member of every generation: benchmarks, perplexity, truth measures and samples.

One job evaluates one member. If the config asks for it, further jobs measure the disagreement of a
generation's members and the effective data quality of each training.

INPUTS   a member's model folder; staged tasks; held-out text; prompts; the overlap check of its
         corpus; files of a user's own measures; the training text of the member
OUTPUTS  <results>/tasks/{task}/, <results>/requests/{model}/,
         <results>/{place}/member{m}/scores.json and the tables behind it,
         <results>/{place}/member{m}/quality.json,
         <results>/{experiment}/gen{g}/disagreement.json and .parquet;
         the place of an untouched pretrained model is base/{model}
"""

from pollination.plan.inputs import task_settings, task_sources, training
from pollination.plan.layout import blueprint_files, model_setting
from pollination.plan.measuring import (
    disagreement_inputs,
    disagreement_sequences,
    evaluated_model,
    evaluation_inputs,
    measured_sequences,
    measured_worlds,
    measures,
    precision,
    preflight_before,
    quality_entry,
    quality_inputs,
    quality_sequences,
    requests,
    staged_tasks,
)


rule stage_task:
    input:
        ask(task_sources, "task"),
    output:
        task="<results>/tasks/{task}/task.json",
        splits=directory("<results>/tasks/{task}/splits"),
        questions="<results>/tasks/{task}/questions.parquet",
        run="<results>/tasks/{task}/run.json",
    log:
        "<logs>/tasks/{task}.log",
    benchmark:
        "<benchmarks>/tasks/{task}.tsv"
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(60),
    params:
        recipe=2,  # 2: how lm-eval aggregates the tasks of a group
        task=ask(task_settings, "task"),
        seed=config["evaluation_seed"],
    message:
        "Staging task {wildcards.task}"
    script:
        "../workflow/scripts/stage_task.py"


rule build_requests:
    input:
        tasks=staged_tasks(plan),
        tokenizer="<results>/models/{model}/tokenizer.json",
        tokenizer_config="<results>/models/{model}/tokenizer_config.json",
    output:
        requests=requests(plan, "{model}"),
        run="<results>/requests/{model}/run.json",
    log:
        "<logs>/requests/{model}.log",
    benchmark:
        "<benchmarks>/requests/{model}.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=minutes(120),
    params:
        recipe=2,
        tasks=sorted(config["tasks"]),
        seed=config["evaluation_seed"],
    message:
        "Building benchmark requests for the tokenizer of model {wildcards.model}"
    script:
        "../workflow/scripts/build_requests.py"


rule evaluate_member:
    input:
        unpack(ask(evaluation_inputs, "place", "member")),
        unpack(ask(evaluated_model, "place", "member")),
        # Only an order, and only for pretrained models: a trained one has waited for preflight.
        staged=ancient(ask(preflight_before, "place")),
    output:
        scores="<results>/{place}/member{member}/scores.json",
        answers="<results>/{place}/member{member}/answers.parquet",
        sequences="<results>/{place}/member{member}/sequences.parquet",
        facts="<results>/{place}/member{member}/facts.parquet",
        samples="<results>/{place}/member{member}/samples.parquet",
        run="<results>/{place}/member{member}/scores.run.json",
    log:
        "<logs>/{place}/member{member}/evaluate.log",
    benchmark:
        "<benchmarks>/{place}/member{member}/evaluate.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(16000),
        runtime=minutes(120),
        gpu=1,
    params:
        **precision(plan),
        recipe=3,  # 3: each task's own metrics; answers have scores
        evaluate=ask(measures, "place", "member"),
        sequences=ask(measured_sequences, "place", "member"),
        worlds=ask(measured_worlds, "place", "member"),
        tasks=sorted(config["tasks"]),
        seed=config["evaluation_seed"],
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Evaluating {wildcards.place}, member {wildcards.member}"
    script:
        "../workflow/scripts/evaluate_member.py"


rule measure_disagreement:
    input:
        unpack(ask(disagreement_inputs, "experiment", "gen")),
    output:
        disagreement="<results>/{experiment}/gen{gen}/disagreement.json",
        table="<results>/{experiment}/gen{gen}/disagreement.parquet",
        run="<results>/{experiment}/gen{gen}/disagreement.run.json",
    log:
        "<logs>/{experiment}/gen{gen}/disagreement.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/disagreement.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(32000),
        runtime=minutes(120),
        gpu=1,
    params:
        **precision(plan),
        recipe=2,
        disagreement=setting("evaluate/disagreement"),
        sequences=disagreement_sequences(plan),
        batch_size=config["evaluate"]["batch_size"],
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Comparing the members of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/measure_disagreement.py"


rule measure_quality:
    input:
        unpack(ask(quality_inputs, "place", "member")),
        blueprint=ask(blueprint_files, "place", "member"),
        after="<results>/{place}/member{member}/model.safetensors",
        config="<results>/{place}/member{member}/config.json",
    output:
        quality="<results>/{place}/member{member}/quality.json",
        run="<results>/{place}/member{member}/quality.run.json",
    log:
        "<logs>/{place}/member{member}/quality.log",
    benchmark:
        "<benchmarks>/{place}/member{member}/quality.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(16000),
        runtime=minutes(120),
        gpu=1,
    params:
        **precision(plan),
        recipe=3,
        training=ask(training, "place"),
        separator=ask(model_setting, "place", "member", key="separator"),
        entry=ask(quality_entry, "place", "member"),
        sequences=ask(quality_sequences, "place", "member"),
        batch_size=config["evaluate"]["batch_size"],
        seed=config["evaluation_seed"],
        data_seed=config["data_seed"],
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Measuring the training text of {wildcards.place}, member {wildcards.member}"
    script:
        "../workflow/scripts/measure_quality.py"
