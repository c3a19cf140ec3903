"""Deal one member its share of the shuffled pool of all members' text."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core.seeds import derive_seed
    from pollination.evolution.dealing import deal

    seed = derive_seed(job.params.seed, "deal", int(job.wildcards.gen))
    deal(
        [Path(path) for path in job.input],
        int(job.wildcards.member),
        job.params.population,
        seed,
        Path(job.output.text),
    )
