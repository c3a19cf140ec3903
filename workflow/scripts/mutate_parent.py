"""Write the weights that a parent's children inherit."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evolution.parents import hand_on_weights

    hand_on_weights(job, Path(job.output.weights))
