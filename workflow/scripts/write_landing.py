"""Write the landing page of a run."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.figures.landing import compose
    from pollination.plan.plan import Plan

    page = Path(job.output.page)
    captions = Path(next(path for path in job.input.code if path.endswith("workflow.rst"))).parent
    compose.write(Plan(job.params.config, results=str(page.parent.parent)), captions, page)
