"""Count the words of a corpus's training text."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.corpora.vocabulary import vocabulary

    found = vocabulary(job.file("about").parent)
    artifacts.write_table(job.output.vocabulary, found)
    job.log.info("%d words", len(found))
