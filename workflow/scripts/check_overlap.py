"""Refuse a corpus whose training text contains benchmark questions word for word."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.data.corpora import overlap

    questions = [
        text
        for path in job.files("questions")
        for text in artifacts.read_table(path)["question"].to_pylist()
    ]
    folder = job.file("train").parent
    overlaps = overlap(folder, questions)
    artifacts.write_json(job.output.overlap, overlaps)
    job.log.info("%s", overlaps)
    if overlaps["overlapping"] > job.params.max_overlap:
        where, example = f"corpora.{job.wildcards.corpus}", overlaps["examples"][0]
        raise ValueError(
            f"{where}: the training text contains {overlaps['overlapping']} benchmark questions, "
            f"e.g. {example!r}; allowed: max_overlap = {job.params.max_overlap}. Drop these "
            f"documents, or raise {where}.max_overlap"
        )
