"""Train founders on human text, and children on the text of the previous generation.

INPUTS   blueprint (configuration, tokenizer), human segment or synthetic shards, packed human
         text, the initial weights
OUTPUTS  <logs>/preflight.json;
         <results>/founders/{pool}/member{m}/ and <results>/{experiment}/gen{g}/member{m}/, each a
         model folder
"""

from pollination.plan.inputs import child_inputs, founder_inputs, staged_files, training
from pollination.plan.layout import blueprint_files, model_setting


# Founders and evaluations of pretrained models wait for this rule, so that an error of the hub
# appears before any job requests a GPU, and an unusable GPU before many jobs wait for one. It has
# no params, which would repeat it.
rule preflight:
    input:
        staged_files(plan),
    output:
        complete=touch("<results>/staged/complete"),
        found="<logs>/preflight.json",
    log:
        "<logs>/preflight.log",
    benchmark:
        "<benchmarks>/preflight.tsv"
    localrule: config["device"] == "cpu"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(15),
        gpu=1,
    message:
        "Checking the device of run {config[run]}"
    script:
        "../workflow/scripts/preflight.py"


rule train_founder:
    input:
        unpack(ask(founder_inputs, "pool", "member")),
        blueprint=ask(blueprint_files, "place", "member"),
        # Only an order: neither a new benchmark nor a new preflight may retrain the founders.
        staged=ancient("<results>/staged/complete"),
    output:
        weights="<results>/founders/{pool}/member{member}/model.safetensors",
        config="<results>/founders/{pool}/member{member}/config.json",
        tokenizer="<results>/founders/{pool}/member{member}/tokenizer.json",
        tokenizer_config="<results>/founders/{pool}/member{member}/tokenizer_config.json",
        metrics="<results>/founders/{pool}/member{member}/train.jsonl",
        run="<results>/founders/{pool}/member{member}/run.json",
    log:
        "<logs>/founders/{pool}/member{member}/train.log",
    benchmark:
        "<benchmarks>/founders/{pool}/member{member}/train.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: by_gpus(config["cpu_threads"])
    resources:
        mem_mb=by_gpus(16000, grow=True),
        runtime=minutes(720),
        gpu=by_gpus(1),
    params:
        recipe=4,
        training=ask(training, "place"),
        data_seed=config["data_seed"],
        context_tokens=ask(model_setting, "place", "member", key="context_tokens"),
        separator=ask(model_setting, "place", "member", key="separator"),
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Training founder {wildcards.member} of pool {wildcards.pool}"
    script:
        "../workflow/scripts/train_member.py"


rule train_child:
    input:
        unpack(ask(child_inputs, "experiment", "gen", "member")),
        blueprint=ask(blueprint_files, "place", "member"),
    output:
        weights="<results>/{experiment}/gen{gen}/member{member}/model.safetensors",
        config="<results>/{experiment}/gen{gen}/member{member}/config.json",
        tokenizer="<results>/{experiment}/gen{gen}/member{member}/tokenizer.json",
        tokenizer_config="<results>/{experiment}/gen{gen}/member{member}/tokenizer_config.json",
        metrics="<results>/{experiment}/gen{gen}/member{member}/train.jsonl",
        run="<results>/{experiment}/gen{gen}/member{member}/run.json",
    log:
        "<logs>/{experiment}/gen{gen}/member{member}/train.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/member{member}/train.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: by_gpus(config["cpu_threads"])
    resources:
        mem_mb=by_gpus(16000, grow=True),
        runtime=minutes(720),
        gpu=by_gpus(1),
    params:
        recipe=4,
        training=ask(training, "place"),
        data_seed=config["data_seed"],
        context_tokens=ask(model_setting, "place", "member", key="context_tokens"),
        separator=ask(model_setting, "place", "member", key="separator"),
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Training {wildcards.experiment}, generation {wildcards.gen}, member {wildcards.member}"
    script:
        "../workflow/scripts/train_member.py"
