"""Training a member: a founder on human text, a child on what the generation before has written."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pollination import artifacts, models
from pollination.encoding import encode
from pollination.job import Job
from pollination.seeds import derive_seed
from pollination.tokens import TokenBlocks, pack_ids, vocabulary_id
from pollination.training import Blocks, Subset, Trainer, join, mix, sample, segment, write_metrics

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
    folder = job.file("blueprint").parent
    if job.file("weights"):
        return models.load_model(folder, weights=job.file("weights"))
    return models.create_model(folder, derive_seed(seed, "weights"))


def train_founder(job: Job, folder: Path) -> None:
    """Train founder `member` of a pool on its segment of human text; its seed is that of (pool, member)."""
    pool, member = job.wildcards.pool, int(job.wildcards.member)
    seed = derive_seed("founder", pool, member)
    key = job.key(seed)
    work = job.claim("train", key)
    if work is None:
        return
    _train(job, folder, start(job, seed), own_segment(job, job.file("blocks"), member), seed, work, key)


def own_segment(job: Job, packed: Path, member: int) -> Subset:
    """The human text that a member's founder has read."""
    whole = TokenBlocks(packed)
    return segment(whole, whole.context_tokens, job.params.segment, member, derive_seed(job.params.data_seed, "slices"))


def train_child(job: Job, folder: Path) -> None:
    """Train child `member` on the text that its operators give it, from the weights that they give it."""
    generation, member = int(job.wildcards.gen), int(job.wildcards.member)
    seed = derive_seed(job.params.seed, "train", generation, member)
    key = job.key(seed)
    work = job.claim("train", key)
    if work is None:
        return
    model = start(job, seed)
    _train(job, folder, model, _text(job, model, work, generation, member), seed, work, key)


def _text(job: Job, model, work: Path, generation: int, member: int) -> Blocks:
    """Synthetic text packed into blocks, with what human text the operators add to it; or the founder's segment alone."""
    human = TokenBlocks(job.file("human")) if job.file("human") else None
    if job.params.text == "human":
        return own_segment(job, job.file("human"), member)
    settings, mixing, seed = job.params.train, job.params.human, derive_seed(job.params.data_seed, "human", generation, member)
    tokenizer = models.load_tokenizer(job.file("blueprint").parent)
    rounds = 1 if mixing["accumulate"] == "none" else generation
    packed = []
    for number, shards in enumerate(np.array_split(np.array(job.files("text"), dtype=object), rounds)):
        ids = synthetic_ids(list(shards), settings["include_prompt"], settings["tokens"], tokenizer)
        path = work / f"text{number}.bin"
        pack_ids(ids, model.config.vocab_size, job.params.context_tokens, tokenizer.eos_token_id, path, job.params.separator)
        packed.append(TokenBlocks(path))
    if mixing["accumulate"] != "none":
        everything = join([own_segment(job, job.file("human"), member), *packed])
        return everything if mixing["accumulate"] == "all" else sample(everything, len(packed[-1]), seed)
    return mix(packed[0], human, mixing["fraction"], seed) if human else packed[0]


def synthetic_ids(shards: list[Path], include_prompt: bool, tokens: int | None, tokenizer) -> Iterator[list[int]]:
    """Token ids of the texts of shards, in order, until `tokens` are reached (null: all)."""
    return (ids[first:] for ids, first in synthetic_rows(shards, include_prompt, tokens, tokenizer))


def synthetic_rows(shards: list[Path], include_prompt: bool, tokens: int | None, tokenizer) -> Iterator[tuple[list[int], int]]:
    """(token ids of prompt and completion, place of the first that is trained on) of the rows of shards.

    Ids are taken as they were written where `tokenizer` gives them the same meaning; else the text is tokenised anew.
    """
    left, mine = float("inf") if tokens is None else tokens, vocabulary_id(tokenizer)
    for path in shards:
        foreign = set(pc.unique(artifacts.read_table(path, ["vocabulary"])["vocabulary"]).to_pylist()) != {mine}
        columns = ["token_ids", "prompt_tokens"] + (["vocabulary", "prompt", "completion"] if foreign else [])
        for batch in pq.ParquetFile(path).iter_batches(4096, columns=columns):  # a shard need not fit the memory
            rows = batch.to_pylist()
            others = [row for row in rows if row.get("vocabulary", mine) != mine]
            anew = {key: encode([row[key] for row in others], tokenizer) for key in ("prompt", "completion")}
            for row in rows:
                if left <= 0:
                    return
                ids, first = row["token_ids"], row["prompt_tokens"]
                if row.get("vocabulary", mine) != mine:
                    opening = next(anew["prompt"]).tolist()
                    ids, first = opening + next(anew["completion"]).tolist(), len(opening)
                first = 0 if include_prompt else first
                left -= len(ids) - first
                yield ids, first
