"""Measure how diverse the embedded samples are, by experiment and generation."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.analysis.semantics import compare
    from pollination.core import artifacts

    table = artifacts.read_table(job.file("embeddings")).to_pandas()
    artifacts.write_table(job.output.diversity, compare(table, job.params.groups, job.params.seed))
