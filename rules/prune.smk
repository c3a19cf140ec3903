"""Checkpoints that the config does not keep (keep: parents, or last) are deleted.

They are deleted once nothing in the plan will read them again.

INPUTS   the files that show that a generation's weights have been read: scores, the children's
         logs, records of shards; selection.json
OUTPUTS  <results>/{experiment}/gen{g}/pruned.json: the files deleted, and their digests. A
         checkpoint that is asked for by name is recomputed.
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
        "Deleting unkept checkpoints of {wildcards.experiment}, generation {wildcards.gen}"
    script:
        "../workflow/scripts/prune_generation.py"
