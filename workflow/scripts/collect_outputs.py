"""Ask one deployed model for its outputs to all prompts."""

from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    from pollination.analysis.fingerprint.collect import collect

    collect(job)
