"""Count the words of a corpus's training text."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.data.vocabulary import vocabulary

    words = vocabulary(job.file("about").parent)
    artifacts.write_table(job.output.vocabulary, words)
    job.log.info("%d words", len(words))
