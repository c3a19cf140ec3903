"""What a population is, beside what each member scores: how much its members disagree, and how good the text was that each learned from.

INPUTS   the weights and tokenizers of a generation's members; held-out text; what a training read, and the weights before and after it
OUTPUTS  <results>/{experiment}/gen{g}/disagreement.json, disagreement.parquet, <results>/{place}/member{m}/quality.json
"""


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
