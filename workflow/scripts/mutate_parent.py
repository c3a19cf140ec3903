"""Write the weights that a parent's children inherit."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.members import parent_weights
    from pollination.models import write_parent
    from pollination.seeds import derive_seed

    seed = derive_seed(job.params.seed, "mutate", int(job.wildcards.gen), int(job.wildcards.rank))
    write_parent(parent_weights(job), Path(job.output.weights), **job.params.mutate, seed=seed)
