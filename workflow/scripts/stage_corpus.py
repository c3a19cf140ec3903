"""Stream a corpus from the hub into one parquet file, up to its token budget. Needs a network."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake, online=True) as job:  # noqa: F821
    from pollination.corpora.hub import stage_hub

    stage_hub(job.params.corpus, Path(job.output.documents))
