"""Who becomes a parent, and the weights that a parent's children inherit.

INPUTS   scores and answers of a generation's members; the weights of whoever holds a rank
OUTPUTS  <results>/{experiment}/gen{g}/selection.json, <results>/{experiment}/gen{g}/parent{r}/model.safetensors
"""


rule select_parents:
    input:
        scores=generation_scores,
        answers=generation_answers,
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
        recipe=1,
        select=setting("experiments/{experiment}/select"),
        seed=config["evaluation_seed"],
    message:
        "Selecting the parents of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/select_parents.py"


rule mutate_parent:
    input:
        unpack(parent_inputs),
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
