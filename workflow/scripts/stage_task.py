"""Stage a benchmark's documents and few-shot examples, from a microworld, files or the hub."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    from pollination.evaluation.tasks import stage_task

    corpus = Path(job.input[0]).parent.parent if job.params.task["kind"] == "microworld" else None
    stage_task(job.params.task, Path(job.output.task).parent, job.params.seed, corpus)
