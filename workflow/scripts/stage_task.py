"""Stage a benchmark's documents and few-shot examples, from a microworld, files or the hub."""

from pathlib import Path

from pollination.core.job import Job

in_a_microworld = snakemake.params.task["kind"] == "microworld"
with Job(snakemake, online=not in_a_microworld) as job:
    from pollination.core import artifacts
    from pollination.evaluation.tasks import stage_task
    from pollination.plan.sizes import warning

    corpus = Path(job.input[0]).parent.parent if in_a_microworld else None
    folder = Path(job.output.task).parent
    stage_task(job.params.task, folder, job.params.seed, corpus)
    count = artifacts.read_json(job.output.task)["questions"]
    if said := warning(f"tasks.{folder.name}", "questions", count, job.params.task):
        job.log.warning("%s", said)
