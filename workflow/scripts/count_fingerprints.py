"""Fingerprints of one part of a survey."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.fingerprint.tables import count_part

    found = count_part(job.params.kind, job.files("outputs"), list(job.params.models), job.params.settings, job.file("stopwords"), job.log)
    artifacts.write_json(job.output.fingerprints, found)
