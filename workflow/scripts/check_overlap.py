"""Refuse a corpus if text that models read contains benchmark questions word for word."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.data.contamination import overlap, read_questions, refuse

    folder = job.file("train").parent
    overlaps = overlap(folder, read_questions(job.files("questions")))
    artifacts.write_json(job.output.overlap, overlaps)
    job.log.info("%s", overlaps)
    refuse(folder.name, overlaps, job.params.max_overlap)
