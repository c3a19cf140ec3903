"""Choose the parents of a generation."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.evolution.selection import select_parents

    artifacts.write_json(job.output.selection, select_parents(job))
