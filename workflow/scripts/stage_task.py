"""Stage a benchmark: its documents and few-shot examples, from a microworld, local files or the hub."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake, online=True) as job:  # noqa: F821
    from pollination.scoring.tasks import stage_task

    corpus = Path(job.input[0]).parent.parent if job.params.task["kind"] == "microworld" else None
    stage_task(job.params.task, Path(job.output.task).parent, job.params.seed, corpus)
