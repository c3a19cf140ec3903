"""Tokenise a split and pack it into memory-mapped blocks of context length."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.data.corpora import read_documents
    from pollination.data.tokens import pack
    from pollination.models.checkpoint import load_tokenizer

    documents = (
        text for _, text in read_documents(job.file("documents").parent, job.wildcards.split)
    )
    tokenizer = load_tokenizer(job.file("tokenizer").parent)
    blocks = Path(job.output.blocks)
    about = pack(documents, tokenizer, job.params.context_tokens, blocks, job.params.separator)
    job.log.info("%s", about)
