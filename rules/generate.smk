"""Let parents write the text of the next generation in shards, and deal or mix it.

The content of a shard depends only on its own seed.

INPUTS   selection.json and the members' weights (the parent as evaluated, not mutated); prompts
         or human segments; shards for a pool or a mixture
OUTPUTS  <results>/{experiment}/gen{g}/synthetic{r}/shard{s}.parquet,
         <results>/{experiment}/gen{g}/deal{m}/text.parquet or mix{m}/text.parquet
"""

from pollination.plan.inputs import parent_inputs, prompt_inputs, writing_environment
from pollination.plan.synthetic import mixture, mixture_inputs, pooled


rule generate_shard:
    input:
        unpack(ask(parent_inputs, "experiment", "gen", "rank")),
        unpack(ask(prompt_inputs, "experiment", "gen", "rank")),
    output:
        shard="<results>/{experiment}/gen{gen}/synthetic{rank}/shard{shard}.parquet",
        run="<results>/{experiment}/gen{gen}/synthetic{rank}/shard{shard}.run.json",
    log:
        "<logs>/{experiment}/gen{gen}/synthetic{rank}/shard{shard}.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/synthetic{rank}/shard{shard}.tsv"
    conda:
        ask(writing_environment, "experiment")
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(16000),
        runtime=minutes(720),
        gpu=1,
    params:
        recipe=3,
        generate=setting("experiments/{experiment}/generate"),
        seed=setting("experiments/{experiment}/seed"),
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Generating shard {wildcards.shard} of {wildcards.experiment}, generation {wildcards.gen}, "
        "parent {wildcards.rank}"
    script:
        "../workflow/scripts/generate_shard.py"


rule deal_pool:
    input:
        ask(pooled, "experiment", "gen"),
    output:
        text="<results>/{experiment}/gen{gen}/deal{member}/text.parquet",
        run="<results>/{experiment}/gen{gen}/deal{member}/run.json",
    log:
        "<logs>/{experiment}/gen{gen}/deal{member}/deal.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/deal{member}/deal.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(60),
    params:
        recipe=2,
        population=setting("experiments/{experiment}/population"),
        seed=setting("experiments/{experiment}/seed"),
    message:
        "Dealing {wildcards.experiment}, generation {wildcards.gen}, to member {wildcards.member}"
    script:
        "../workflow/scripts/deal_pool.py"


rule mix_text:
    input:
        ask(mixture_inputs, "experiment", "gen", "member"),
    output:
        text="<results>/{experiment}/gen{gen}/mix{member}/text.parquet",
        run="<results>/{experiment}/gen{gen}/mix{member}/run.json",
    log:
        "<logs>/{experiment}/gen{gen}/mix{member}/mix.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/mix{member}/mix.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(60),
    params:
        recipe=2,
        shares=ask(mixture, "experiment", "gen", "member"),
        seed=setting("experiments/{experiment}/seed"),
    message:
        "Mixing {wildcards.experiment}, generation {wildcards.gen}, for member {wildcards.member}"
    script:
        "../workflow/scripts/mix_text.py"
