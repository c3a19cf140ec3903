"""What a parent hands on: its weights, mutated, and the text that it writes."""

from pathlib import Path

import numpy as np

from pollination import models
from pollination.corpora import prompts as corpus_prompts
from pollination.generation import write_shard
from pollination.job import Job
from pollination.members import own_segment
from pollination.seeds import derive_seed
from pollination.selection import parent_of
from pollination.training import Subset


def holder(job: Job) -> int:
    """Which of the job's candidates (`members`) holds its rank."""
    return parent_of(job.file("selection"), int(job.wildcards.rank)) if job.file("selection") else 0


def of_holder(job: Job, key: str) -> Path | None:
    """The holder's own file of an input, or the only one: then all candidates share it. None where there is none."""
    files = job.files(key)
    return files[holder(job)] if len(files) > 1 else job.file(key)


def write_text(job: Job, shard: Path) -> None:
    """Let the holder of a rank, as evaluated, write one shard."""
    rank, generation = int(job.wildcards.rank), int(job.wildcards.gen)
    seed = derive_seed(job.params.seed, "generate", generation, rank)
    key = job.key(seed)
    work = job.claim(f"shard{job.wildcards.shard}", key)
    if work is None:
        return
    device, settings = models.prepare(job.params.device, job.params.cpu_threads), job.params.generate
    model, tokenizer = models.load_member(of_holder(job, "members").parent, device)
    if blocks := of_holder(job, "blocks"):
        prompts = block_prompts(own_segment(job, blocks, holder(job) if job.file("selection") else rank))
    else:
        prompts = corpus_prompts(of_holder(job, "prompts").parent, settings["max_sentences"])
    write_shard(model, tokenizer, prompts, settings, seed, int(job.wildcards.shard), shard, job.log, job.stop, work=work, key=key)


def block_prompts(blocks: Subset) -> list[tuple[str, list[int]]]:
    """(number of the block in its corpus, token ids) of each block of a segment: the generation set of study B, section 3.2."""
    every = blocks.blocks(np.arange(len(blocks)))
    return [(f"block{number}", ids) for number, ids in zip(blocks.chosen.tolist(), every.tolist(), strict=True)]


def hand_on_weights(job: Job, target: Path) -> None:
    """Write the weights that the children of the job's rank inherit."""
    seed = derive_seed(job.params.seed, "mutate", int(job.wildcards.gen), int(job.wildcards.rank))
    models.write_parent(of_holder(job, "members"), target, **job.params.mutate, seed=seed)
