"""Checkpoints that the config does not keep are deleted once nothing of the plan will read them again (keep: parents, or last).

INPUTS   whatever says that a generation's weights have been read: scores, the children's logs, records of shards; selection.json
OUTPUTS  <results>/{experiment}/gen{g}/pruned.json: what was deleted, and its digests. Asked for by name, a checkpoint is made again.
"""


localrules:
    prune_generation,


rule prune_generation:
    input:
        unpack(pruning_inputs),
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
        prunable=prunable,
    message:
        "Deleting checkpoints of {wildcards.experiment}, generation {wildcards.gen}, that are not kept"
    script:
        "../workflow/scripts/prune_generation.py"
