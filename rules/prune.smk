"""Delete the checkpoints and texts that the config does not keep (`keep.checkpoints: parents` or
`last`, `keep.text: last` or `none`).

A job deletes a generation's checkpoints, or its text, after the last job of the plan has read them.

INPUTS   files that prove that all readers of the weights or of the text have finished: scores, the
         children's logs, records of shards, dealt text and corpora; selection.json
OUTPUTS  <results>/{experiment}/gen{g}/pruned.json and pruned_text.json: the deleted files and their
         digests. Snakemake recomputes a file that you ask for by name.
"""

from pollination.plan.pruning import (
    prunable,
    prunable_text,
    pruning_inputs,
    text_pruning_inputs,
)


localrules:
    prune_generation,
    prune_text,


rule prune_generation:
    input:
        unpack(ask(pruning_inputs, "experiment", "gen")),
    output:
        pruned="<results>/{experiment}/gen{gen}/pruned.json",
        run="<results>/{experiment}/gen{gen}/pruned.run.json",
    log:
        "<logs>/{experiment}/gen{gen}/prune.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/prune.tsv"
    conda:
        "../envs/pollination.yaml"
    params:
        recipe=1,
        keep=config["keep"]["checkpoints"],
        prunable=ask(prunable, "experiment", "gen"),
    message:
        "Deleting checkpoints of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/prune_generation.py"


rule prune_text:
    input:
        ask(text_pruning_inputs, "experiment", "gen"),
    output:
        pruned="<results>/{experiment}/gen{gen}/pruned_text.json",
        run="<results>/{experiment}/gen{gen}/pruned_text.run.json",
    log:
        "<logs>/{experiment}/gen{gen}/prune_text.log",
    benchmark:
        "<benchmarks>/{experiment}/gen{gen}/prune_text.tsv"
    conda:
        "../envs/pollination.yaml"
    params:
        recipe=1,
        keep_text=config["keep"]["text"],
        prunable=ask(prunable_text, "experiment", "gen"),
    message:
        "Deleting text of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/prune_generation.py"
