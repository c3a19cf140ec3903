"""Every member of every generation: all benchmarks, perplexity, truth measures and a few samples, in one job. Where asked for, how much
the members of a generation disagree, and how good the text was that each learned from.

INPUTS   a member's model folder; staged tasks; held-out text; prompts; the overlap check of its corpus; what a training read
OUTPUTS  <results>/tasks/{task}/, <results>/requests/{model}/, <results>/{place}/member{m}/scores.json and the tables behind it, <results>/{place}/member{m}/quality.json,
         <results>/{experiment}/gen{g}/disagreement.json and .parquet; the place of an untouched pretrained model is base/{model}
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
        task=setting("tasks/{task}"),
        seed=config["evaluation_seed"],
    message:
        "Staging task {wildcards.task}"
    script:
        "../workflow/scripts/stage_task.py"


rule build_requests:
    input:
        tasks=plan.staged_tasks(),
        tokenizer="<results>/models/{model}/tokenizer.json",
        tokenizer_config="<results>/models/{model}/tokenizer_config.json",
    output:
        requests=plan.requests("{model}"),
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
        recipe=1,
        tasks=sorted(config["tasks"]),
        seed=config["evaluation_seed"],
    message:
        "Building the benchmarks' requests for the tokenizer of model {wildcards.model}"
    script:
        "../workflow/scripts/build_requests.py"


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
        recipe=2,
        evaluate=measures,
        sequences=lambda wildcards: [plan.sequences(entry) for entry in measures(wildcards)["perplexity"]],
        worlds=lambda wildcards: plan.measured_worlds(wildcards.place, int(wildcards.member)),
        tasks=sorted(config["tasks"]),
        seed=config["evaluation_seed"],
        device=config["device"],
        cpu_threads=config["cpu_threads"],
    message:
        "Evaluating {wildcards.place}, member {wildcards.member}"
    script:
        "../workflow/scripts/evaluate_member.py"


rule measure_disagreement:
    input:
        unpack(disagreement_inputs),
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
        recipe=1,
        disagreement=config["evaluate"]["disagreement"],
        sequences=plan.disagreement_sequences,
        batch_size=config["evaluate"]["batch_size"],
        device=config["device"],
        cpu_threads=config["cpu_threads"],
    message:
        "Comparing the members of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/measure_disagreement.py"


rule measure_quality:
    input:
        unpack(quality_inputs),
        blueprint=blueprint,
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
        recipe=1,
        training=training,
        segment=segment,
        entry=quality_entry,
        sequences=quality_sequences,
        batch_size=config["evaluate"]["batch_size"],
        seed=config["evaluation_seed"],
        data_seed=config["data_seed"],
        device=config["device"],
        cpu_threads=config["cpu_threads"],
    message:
        "Measuring the text that {wildcards.place}, member {wildcards.member}, learned from"
    script:
        "../workflow/scripts/measure_quality.py"
