"""Every member of every generation: all benchmarks, perplexity, truth measures and a few samples, in one job.

INPUTS   a member's model folder; staged tasks; held-out text; prompts; the overlap check of its corpus
OUTPUTS  <results>/tasks/{task}/, <results>/{place}/member{m}/scores.json and the tables behind it; the place of an untouched
         pretrained model is base/{model}
"""


localrules:
    stage_task,


rule stage_task:
    input:
        task_sources,
    output:
        task="<results>/tasks/{task}/task.json",
        splits=directory("<results>/tasks/{task}/splits"),
        questions="<results>/tasks/{task}/questions.parquet",
        run="<results>/tasks/{task}/run.json",
    log:
        "<logs>/tasks/{task}.log",
    benchmark:
        "<benchmarks>/tasks/{task}.tsv"
    conda:
        "../envs/pollination.yaml"
    params:
        recipe=1,
        task=lookup(dpath="tasks/{task}", within=config),
        seed=config["evaluation_seed"],
    message:
        "Staging task {wildcards.task}"
    script:
        "../workflow/scripts/stage_task.py"


rule evaluate_member:
    input:
        unpack(evaluation_inputs),
        unpack(evaluated_model),
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
        recipe=1,
        evaluate=lambda wildcards: plan.measures(wildcards.place),
        sequences=lambda wildcards: [plan.sequences(entry) for entry in plan.measures(wildcards.place)["perplexity"]],
        worlds=lambda wildcards: plan.measured_worlds(wildcards.place),
        tasks=sorted(config["tasks"]),
        seed=config["evaluation_seed"],
        device=config["device"],
        cpu_threads=config["cpu_threads"],
    message:
        "Evaluating {wildcards.place}, member {wildcards.member}"
    script:
        "../workflow/scripts/evaluate_member.py"
