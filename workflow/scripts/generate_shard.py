"""Let one parent write one shard of synthetic text."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    job.stay()
    from pollination.evolution.parents import write_text

    write_text(job, Path(job.output.shard))
