"""Attribute a child's similarity to the previous generation to inherited text and weights."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.analysis.fingerprint.inheritance import effects, parents, trace
    from pollination.core import artifacts
    from pollination.core.seeds import derive_seed

    rows = trace(
        [parents(child) for child in job.params.families],
        artifacts.read_table(job.file("pairs")).to_pandas(),
    )
    artifacts.write_table(job.output.inheritance, rows)
    artifacts.write_json(
        job.output.effects,
        effects(rows, derive_seed(job.params.seed, "inheritance"), job.params.permutations),
    )
