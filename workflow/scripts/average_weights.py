"""Write the average of several members' weights, which children inherit."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evolution.parents import hand_on_average

    hand_on_average(job, Path(job.output.weights))
