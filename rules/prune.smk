"""Delete the checkpoints that the config does not keep (`keep.checkpoints: parents` or `last`).

A job deletes a generation's checkpoints after the last job of the plan has read them.

INPUTS   files that prove that all readers of the weights have finished: scores, the children's
         logs, records of shards; selection.json
OUTPUTS  <results>/{experiment}/gen{g}/pruned.json: the deleted files and their digests. Snakemake
         recomputes a checkpoint that you ask for by name.
"""

from pollination.plan.pruning import prunable, pruning_inputs


localrules:
    prune_generation,


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
