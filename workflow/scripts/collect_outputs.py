"""Collect one deployed model's outputs to all prompts."""

from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    from pollination.analysis.fingerprint.collect import collect

    collect(job)
