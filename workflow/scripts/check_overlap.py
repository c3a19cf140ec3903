"""Refuse a corpus whose training text holds benchmark questions word for word."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.corpora import overlap

    questions = [text for path in job.files("questions") for text in artifacts.read_table(path)["question"].to_pylist()]
    folder = job.file("train").parent
    found = overlap(folder, questions)
    artifacts.write_json(job.output.overlap, found)
    job.log.info("%s", found)
    if found["overlapping"] > job.params.max_overlap:
        raise ValueError(
            f"corpora.{job.wildcards.corpus}: {found['overlapping']} benchmark questions stand in its training text, e.g. {found['examples'][0]!r};"
            f" allowed: max_overlap = {job.params.max_overlap}; drop those documents, or raise corpora.{job.wildcards.corpus}.max_overlap"
        )
