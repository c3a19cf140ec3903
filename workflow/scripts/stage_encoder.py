"""Stage the encoder that embeds the samples, from the hub or a folder."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    from pollination.evaluation.embeddings import stage_encoder

    stage_encoder(job.params.encoder, job.params.revision, Path(job.output.config).parent)
