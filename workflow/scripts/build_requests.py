"""Build and tokenise the requests of all benchmarks, once for all members that share a tokenizer."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.models import load_tokenizer
    from pollination.scoring.requests import write_requests

    tokenizer = load_tokenizer(job.file("tokenizer").parent)
    tables = [path for path in job.output if path.endswith(".parquet")]
    for task, path in zip(job.files("tasks"), tables, strict=True):
        write_requests(task.parent, tokenizer, job.params.seed, Path(path))
