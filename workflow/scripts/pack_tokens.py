"""Tokenise a split and pack it into memory-mapped blocks of context length."""

from pathlib import Path

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination.corpora import read_documents
    from pollination.models import load_tokenizer
    from pollination.tokens import pack

    documents = (text for _, text in read_documents(job.file("documents").parent, job.wildcards.split))
    tokenizer = load_tokenizer(job.file("tokenizer").parent)
    job.log.info("%s", pack(documents, tokenizer, job.params.context_tokens, Path(job.output.blocks), job.params.separator))
