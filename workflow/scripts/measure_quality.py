"""Measure the effective data quality of one training."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evaluation.quality import measure

    measure(job)
