"""Delete the weights or the text of a generation that no later job reads."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.plan.pruning import prune

    parents = (
        artifacts.read_json(job.file("selection"))["parents"]
        if job.files("selection") and job.params.get("keep") == "parents"
        else []
    )
    folder = Path(job.output.pruned).parent
    keep = {f"{folder}/member{m}/model.safetensors" for m in parents}
    count = prune(job.params.prunable, keep, Path(job.output.pruned))
    job.log.info("%d files deleted", count)
