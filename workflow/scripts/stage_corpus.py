"""Download a corpus from the hub into one parquet file, up to its token budget."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    from pollination.data.corpora import stage_corpus

    path = Path(job.output.documents)
    if work := job.claim(path.stem, job.key(0), at_once=True):
        job.source = stage_corpus(job.params.corpus, path, work, job.stop)
