"""Build a corpus folder: training text, held-out text, prompts, and a microworld's tasks."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.data.corpora import build_corpus

    sources = [Path(path) for path in job.input]
    build_corpus(job.params.corpus, job.params.seed, Path(job.output.about).parent, sources)
