"""Write a model's blueprint: tokenizer, configuration, and weights if it is pretrained."""

from pathlib import Path

from pollination.core.job import Job

model = snakemake.params.model
online = bool(model.get("pretrained")) or model["tokenizer"]["kind"] == "pretrained"
with Job(snakemake, online=online) as job:
    from pollination.data.tokens import make_tokenizer
    from pollination.models.checkpoint import load_tokenizer, write_blueprint
    from pollination.models.weights import provenance

    spec, folder = job.params.model, Path(job.output.config).parent
    # The tokenizer's corpus, or the founder to start from.
    input_folder = Path(job.input[0]).parent if job.input else None
    if isinstance(spec["pretrained"], str):
        job.source = provenance(spec["pretrained"])
    if spec["pretrained"]:
        spec = spec | {"pretrained": str(input_folder or spec["pretrained"])}
    pretrained = {"kind": "pretrained", "source": spec["pretrained"]}
    source = pretrained if spec["pretrained"] else spec["tokenizer"]
    corpus = None if spec["pretrained"] else input_folder
    make_tokenizer(source, corpus, folder, job.params.seed, spec["bos"])
    write_blueprint(spec, load_tokenizer(folder), folder)
