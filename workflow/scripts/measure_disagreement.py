"""Compare the next-token distributions of a generation's members."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.scoring.disagreement import measure

    measure(job)
