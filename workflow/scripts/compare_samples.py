"""Measure how diverse the embedded samples are, by experiment and generation."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.semantics import compare

    table = artifacts.read_table(job.file("embeddings")).to_pandas()
    artifacts.write_table(job.output.diversity, compare(table, job.params.groups, job.params.seed))
