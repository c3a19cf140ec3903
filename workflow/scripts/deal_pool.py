"""Give one member its share of everybody's text: shuffled, dealt equally."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.dealing import deal
    from pollination.seeds import derive_seed

    seed = derive_seed(job.params.seed, "deal", int(job.wildcards.gen))
    deal([Path(path) for path in job.input], int(job.wildcards.member), job.params.population, seed, Path(job.output.text))
