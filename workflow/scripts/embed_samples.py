"""Embed the members' samples with an encoder or TF-IDF."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evaluation.embeddings import embed

    embed(job)
