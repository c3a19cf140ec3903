"""Build a corpus folder: training text, held-out text and prompts; a microworld's grammar and benchmarks too."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.corpora import build_corpus

    sources = [Path(path) for path in job.input]
    source = {"hub": sources[0] if sources else None, "synthetic": sources}.get(job.params.corpus["kind"])
    build_corpus(job.params.corpus, job.params.seed, Path(job.output.about).parent, source)
