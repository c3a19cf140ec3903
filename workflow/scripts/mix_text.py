"""Mix the text of one member from several writers of the generation before."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core.seeds import derive_seed
    from pollination.evolution.dealing import mix

    seed = derive_seed(job.params.seed, "mix", int(job.wildcards.gen), int(job.wildcards.member))
    text, shares = [Path(path) for path in job.input], job.params.shares
    counts = mix(text, shares, seed, Path(job.output.text))
    job.log.info("rows of each writer: %s", counts)
    if 0 in counts:
        job.log.warning("a writer gets no row; raise generate.tokens, or its share")
