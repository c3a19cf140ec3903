"""Training a member: a founder on human text, a child on what the generation before has written."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from pollination import artifacts, models
from pollination.job import Job
from pollination.seeds import derive_seed
from pollination.tokens import TokenBlocks, pack_ids
from pollination.training import Trainer, founder_slice, mix, write_metrics

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def _train(job: Job, folder: Path, model, blocks, seed: int, work: Path, key: str) -> None:
    validation = TokenBlocks(job.file("validation")) if job.file("validation") else None
    trainer = Trainer(
        model,
        blocks,
        job.params.train,
        seed,
        models.prepare(job.params.device, job.params.cpu_threads),
        work,
        key,
        job.log,
        job.stop,
        validation,
    )
    metrics = trainer.run()
    models.save_model(model, folder)
    for name in TOKENIZER_FILES:
        with artifacts.atomic(folder / name) as temporary:
            shutil.copyfile(job.file("blueprint").parent / name, temporary)
    write_metrics(Path(job.output.metrics), metrics)


def start(job: Job, seed: int):
    """The model that training starts from: given weights, or a new initialisation."""
    model = models.create_model(job.file("blueprint").parent, derive_seed(seed, "weights"))
    if job.file("weights"):
        models.load_weights(model, job.file("weights"))
    return model


def train_founder(job: Job, folder: Path) -> None:
    """Train founder `member` of a pool on its slice of human text; its seed is that of (pool, member)."""
    pool, member = job.wildcards.pool, int(job.wildcards.member)
    seed = derive_seed("founder", pool, member)
    key = job.key(seed)
    work = job.claim("train", key)
    if work is None:
        return
    whole = TokenBlocks(job.file("blocks"))
    shuffle = derive_seed(job.params.data_seed, "slices")
    blocks = founder_slice(whole, whole.context_tokens, job.params.train["tokens"], member, job.params.slices, pool, shuffle)
    _train(job, folder, start(job, seed), blocks, seed, work, key)


def train_child(job: Job, folder: Path) -> None:
    """Train child `member` on synthetic shards, from the weights that its operators give it."""
    generation, member = int(job.wildcards.gen), int(job.wildcards.member)
    seed = derive_seed(job.params.seed, "train", generation, member)
    key = job.key(seed)
    work = job.claim("train", key)
    if work is None:
        return
    model, settings = start(job, seed), job.params.train
    ids = synthetic_ids(job.files("text"), settings["include_prompt"], settings["tokens"])
    pack_ids(ids, model.config.vocab_size, job.params.context_tokens, model.config.eos_token_id, work / "text.bin")
    blocks = TokenBlocks(work / "text.bin")
    if job.file("human"):
        human = derive_seed(job.params.data_seed, "human", generation, member)
        blocks = mix(blocks, TokenBlocks(job.file("human")), job.params.human["fraction"], human)
    _train(job, folder, model, blocks, seed, work, key)


def synthetic_ids(shards: list[Path], include_prompt: bool, tokens: int | None) -> Iterator[list[int]]:
    """Token ids of the texts of shards, in order, until `tokens` are reached (null: all)."""
    left = float("inf") if tokens is None else tokens
    for path in shards:
        for batch in pq.ParquetFile(path).iter_batches(4096, columns=["token_ids", "prompt_tokens"]):  # a shard need not fit the memory
            for ids, start in zip(batch["token_ids"].to_pylist(), batch["prompt_tokens"].to_pylist(), strict=True):
                if left <= 0:
                    return
                ids = ids if include_prompt else ids[start:]
                left -= len(ids)
                yield ids
