"""Measure one member: benchmarks, perplexity, truth measures, samples."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evaluation.member import evaluate

    evaluate(job, job.file("weights").parent)
