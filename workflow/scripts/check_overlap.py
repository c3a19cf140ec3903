"""Refuse a corpus if text that models read contains benchmark questions word for word."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.data.contamination import overlap, read_questions

    overlaps = overlap(job.file("train").parent, read_questions(job.files("questions")))
    artifacts.write_json(job.output.overlap, overlaps)
    job.log.info("%s", overlaps)
    if overlaps["overlapping"] > job.params.max_overlap:
        where, example = f"corpora.{job.wildcards.corpus}", overlaps["examples"][0]
        raise ValueError(
            f"{where}: text that models read contains {overlaps['overlapping']} benchmark "
            f"questions, e.g. {example!r}; allowed: max_overlap = {job.params.max_overlap}. Set "
            f"{where}.on_overlap to remove, which drops these documents, or raise "
            f"{where}.max_overlap"
        )
