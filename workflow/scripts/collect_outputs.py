"""Ask one deployed model for its outputs to all prompts."""

from pollination.job import Job

with Job(snakemake, online=True) as job:  # noqa: F821
    from pollination.fingerprint.collect import collect

    collect(job)
