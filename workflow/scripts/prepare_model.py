"""Write a model's blueprint: tokenizer and configuration, and the weights of a pretrained one."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake, online=True) as job:  # noqa: F821
    from pollination.models import load_tokenizer, write_blueprint
    from pollination.tokens import make_tokenizer

    spec, folder = job.params.model, Path(job.output.config).parent
    given = Path(job.input[0]).parent if job.input else None  # the tokenizer's corpus, or the founder to start from
    if spec["pretrained"]:
        spec = spec | {"pretrained": str(given or spec["pretrained"])}
    source = {"kind": "pretrained", "source": spec["pretrained"]} if spec["pretrained"] else spec["tokenizer"]
    make_tokenizer(source, None if spec["pretrained"] else given, folder, job.params.seed)
    write_blueprint(spec, load_tokenizer(folder), folder)
