"""Embed what members said: by an encoder, or TF-IDF."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.embeddings import embed

    embed(job)
