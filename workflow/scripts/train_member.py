"""Train a founder on human text, or a child on the text of the previous generation."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    job.stay()
    from pollination.evolution.children import train

    train(job, Path(job.output.weights).parent)
