"""Compare all models of a survey: similarities, families, influence."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.fingerprint.catalogue import read_catalogue
    from pollination.fingerprint.tables import compare, gather

    models = job.file("models")
    catalogue = read_catalogue(models) if models else job.params.surveyed
    fingerprints = gather(job.files("parts"), catalogue, str(models or "this run's members"), job.params.mismatch, job.log)
    pairs, statistics = compare(fingerprints, catalogue, job.params.compare, job.params.seed)
    artifacts.write_table(job.output.pairs, pairs)
    artifacts.write_json(job.output.statistics, statistics | {"lag": "months" if models else "generations"})
