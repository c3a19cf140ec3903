"""Download a corpus from the hub into one parquet file, up to its token budget."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    from pollination.data.corpora import stage_corpus

    stage_corpus(job.params.corpus, Path(job.output.documents))
