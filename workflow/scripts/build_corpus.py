"""Build a corpus folder: training text, held-out text and prompts; a microworld's grammar and benchmarks too."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.corpora import build_corpus

    source = Path(job.input[0]) if job.params.corpus["kind"] == "hub" else None
    build_corpus(job.params.corpus, job.params.seed, Path(job.output.about).parent, source)
