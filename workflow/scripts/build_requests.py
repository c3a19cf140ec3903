"""Build and tokenise the requests of all benchmarks, once per tokenizer."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.evaluation.requests import write_requests
    from pollination.models.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(job.file("tokenizer").parent)
    tables = [path for path in job.output if path.endswith(".parquet")]
    for task, path in zip(job.files("tasks"), tables, strict=True):
        write_requests(task.parent, tokenizer, job.params.seed, Path(path))
