"""Mix the text of one member from several writers of the generation before."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core.seeds import derive_seed
    from pollination.evolution.dealing import mix

    seed = derive_seed(job.params.seed, "mix", int(job.wildcards.gen), int(job.wildcards.member))
    mix([Path(path) for path in job.input], job.params.shares, seed, Path(job.output.text))
