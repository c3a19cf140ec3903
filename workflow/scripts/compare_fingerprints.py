"""Compare all models of a survey: similarities, families, influence."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.analysis.fingerprint.tables import compare, gather
    from pollination.core import artifacts
    from pollination.plan.config.catalogue import read_catalogue

    models = job.optional_file("models")
    catalogue = read_catalogue(models) if models else job.params.surveyed
    fingerprints = gather(
        job.files("parts"),
        catalogue,
        str(models or "this run's members"),
        job.params.mismatch,
        job.log,
    )
    pairs, statistics = compare(fingerprints, catalogue, job.params.compare, job.params.seed)
    artifacts.write_table(job.output.pairs, pairs)
    artifacts.write_json(
        job.output.statistics, statistics | {"lag": "months" if models else "generations"}
    )
