"""Train a founder on human text, or a child on what the generation before has written."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import members

    train = members.train_founder if "pool" in job.wildcards.keys() else members.train_child
    train(job, Path(job.output.weights).parent)
