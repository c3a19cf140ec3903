"""Check the device before the first job that needs it, and note what jobs will use."""

from pollination.core.job import Job

with Job(snakemake, check_last=True) as job:
    from pollination.models.preflight import preflight

    preflight(job, snakemake.config)
