"""Count the fingerprints of one part of a survey."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.analysis.fingerprint.tables import count_part
    from pollination.core import artifacts
    from pollination.plan.standalone import passed_over

    # Only for the log: the part's params do not depend on it.
    survey = snakemake.config["fingerprint"][job.wildcards.survey]
    if said := passed_over(survey):
        job.log.warning("%s", said)
    fingerprints = count_part(
        job.params.kind,
        job.files("outputs"),
        list(job.params.models),
        job.params.settings,
        job.optional_file("stopwords"),
        job.log,
    )
    artifacts.write_json(job.output.fingerprints, fingerprints)
