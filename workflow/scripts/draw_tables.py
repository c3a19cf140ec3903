"""Draw one figure of the theory or of the fingerprints from its tables, with its numbers beside it."""

from importlib import import_module
from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    tables = {name: job.file(name) for name in job.input.keys() if name != "code" and job.file(name)}
    figure = import_module(f"pollination.figures.{job.params.figure}")
    figure.draw(tables, Path(job.output.numbers).with_suffix(""))
