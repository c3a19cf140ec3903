"""Delete the weights of a generation that nothing will read again."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.pruning import prune

    parents = artifacts.read_json(job.file("selection"))["parents"] if job.file("selection") and job.params.keep == "parents" else []
    folder = Path(job.output.pruned).parent
    keep = {f"{folder}/member{m}/model.safetensors" for m in parents}
    count = prune(job.params.prunable, keep, Path(job.output.pruned))
    job.log.info("%d files deleted", count)
