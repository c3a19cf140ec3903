"""Draw one figure or table of the studies, and save its numbers."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.analysis.run import Run
    from pollination.figures import drawing
    from pollination.plan.plan import Plan

    out = Path(job.output.numbers).with_suffix("")
    drawing(job.params.draws).draw(
        Run(Plan(job.params.config, results=str(out.parent.parent))),
        out,
        job.wildcards.target,
        job.params.panels,
    )
