"""Measure the effective data quality of one training."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.quality import measure

    measure(job)
