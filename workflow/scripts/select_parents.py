"""Rank a generation's members and choose its parents."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.seeds import derive_seed
    from pollination.selection import select

    choice, seed = job.params.select, derive_seed(job.params.seed, "selection")
    chosen = select(job.files("scores"), job.files("answers"), choice["task"], choice["k"], seed)
    artifacts.write_json(job.output.selection, chosen)
