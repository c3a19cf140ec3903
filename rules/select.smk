"""Choose the parents of a generation, and write the weights that their children inherit.

INPUTS   scores and answers of a generation's members; the file of a user's own rule; the weights
         of the member at each rank
OUTPUTS  <results>/{experiment}/gen{g}/selection.json,
         <results>/{experiment}/gen{g}/parent{r}/model.safetensors or soup{r}/model.safetensors
"""

from pollination.plan.inputs import (
    parent_inputs,
    selection_inputs,
    selection_settings,
    soup_inputs,
    soup_shares,
)


rule select_parents:
    input:
        unpack(ask(selection_inputs, "experiment", "gen")),
    output:
        selection="<results>/{experiment}/gen{gen}/selection.json",
        run="<results>/{experiment}/gen{gen}/selection.run.json",
    log:
        "<logs>/{experiment}/gen{gen}/select.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/select.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=minutes(30),
    params:
        # 2: of two equal members, a tournament takes the first drawn
        recipe=lambda wildcards: (
            2 if plan.experiment(wildcards.experiment)["select"]["rule"] == "tournament" else 1
        ),
        select=ask(selection_settings, "experiment"),
        seed=config["evaluation_seed"],
    message:
        "Selecting the parents of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/select_parents.py"


rule mutate_parent:
    input:
        unpack(ask(parent_inputs, "experiment", "gen", "rank")),
    output:
        weights="<results>/{experiment}/gen{gen}/parent{rank}/model.safetensors",
        run="<results>/{experiment}/gen{gen}/parent{rank}/run.json",
    log:
        "<logs>/{experiment}/gen{gen}/parent{rank}/mutate.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/parent{rank}/mutate.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(30),
    params:
        recipe=1,
        mutate=setting("experiments/{experiment}/mutate"),
        seed=setting("experiments/{experiment}/seed"),
    message:
        "Mutating parent {wildcards.rank} of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/mutate_parent.py"


rule average_weights:
    input:
        unpack(ask(soup_inputs, "experiment", "gen", "rank")),
    output:
        weights="<results>/{experiment}/gen{gen}/soup{rank}/model.safetensors",
        run="<results>/{experiment}/gen{gen}/soup{rank}/run.json",
    log:
        "<logs>/{experiment}/gen{gen}/soup{rank}/average.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/soup{rank}/average.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(30),
    params:
        recipe=1,
        shares=ask(soup_shares, "experiment", "gen", "rank"),
    message:
        "Averaging weights of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/average_weights.py"
