"""Let one parent write one shard of synthetic text."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.parents import write_text

    write_text(job, Path(job.output.shard))
