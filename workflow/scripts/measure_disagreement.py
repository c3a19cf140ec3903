"""Compare the next-token distributions of a generation's members."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evaluation.disagreement import measure

    measure(job)
