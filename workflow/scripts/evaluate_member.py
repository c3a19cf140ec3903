"""Measure one member: benchmarks, perplexity, truth measures, samples."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.evaluation import evaluate

    evaluate(job, job.file("weights").parent)
