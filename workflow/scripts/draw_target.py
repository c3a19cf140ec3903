"""Draw one figure or table of the studies, with its numbers beside it."""

from importlib import import_module
from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.figures.data import Run
    from pollination.workflow import Plan

    out = Path(job.output.numbers).with_suffix("")
    figure = import_module(f"pollination.figures.{job.params.draws}")
    figure.draw(Run(Plan(job.params.config, results=str(out.parent.parent))), out, job.wildcards.target, job.params.panels)
