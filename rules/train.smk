"""Founders learn from human text, children from what the generation before has written.

INPUTS   blueprint (configuration, tokenizer), packed human text or synthetic shards, the weights to start from
OUTPUTS  <results>/founders/{pool}/member{m}/ and <results>/{experiment}/gen{g}/member{m}/: a model folder each
"""


rule train_founder:
    input:
        unpack(founder_inputs),
        blueprint=blueprint,
        staged=ancient("<results>/staged/complete"),  # an order, not a dependency: another benchmark trains nothing again
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
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(16000),
        runtime=minutes(720),
        gpu=1,
    params:
        recipe=4,
        train=setting("founders/{pool}/train"),
        segment=segment,
        data_seed=config["data_seed"],
        device=config["device"],
        cpu_threads=config["cpu_threads"],
    message:
        "Training founder {wildcards.member} of pool {wildcards.pool}"
    script:
        "../workflow/scripts/train_member.py"


rule train_child:
    input:
        unpack(child_inputs),
        blueprint=blueprint,
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
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(16000),
        runtime=minutes(720),
        gpu=1,
    params:
        recipe=4,
        train=setting("experiments/{experiment}/train"),
        text=setting("experiments/{experiment}/text"),
        human=setting("experiments/{experiment}/human"),
        segment=segment,
        seed=setting("experiments/{experiment}/seed"),
        data_seed=config["data_seed"],
        context_tokens=context_tokens,
        separator=separator,
        device=config["device"],
        cpu_threads=config["cpu_threads"],
    message:
        "Training {wildcards.experiment}, generation {wildcards.gen}, member {wildcards.member}"
    script:
        "../workflow/scripts/train_member.py"
