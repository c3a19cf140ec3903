"""Write the weights and the text that a parent's children inherit."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from pollination.core import artifacts, resume
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.data.corpora import prompts as corpus_prompts
from pollination.data.tokens import TokenBlocks
from pollination.evolution.averaging import write_average
from pollination.evolution.mutation import write_parent
from pollination.evolution.shards import write_shard
from pollination.models.inference import begin
from pollination.models.vllm_engine import VllmModel, about, check_precision
from pollination.plan.lineage import parent_of


def holder(job: Job) -> int:
    """Return which of the job's candidates (`members`) holds its rank."""
    if not job.files("selection"):
        return 0
    return parent_of(job.file("selection"), int(job.wildcards.rank))


def of_holder(job: Job, key: str) -> Path:
    """Return the holder's own file of an input, or the file that all candidates share."""
    files = job.files(key)
    return files[holder(job)] if len(files) > 1 else files[0]


def write_text(job: Job, shard: Path) -> None:
    """Write one shard with the holder of a rank. Its weights are the evaluated ones, unmutated."""
    rank, generation = int(job.wildcards.rank), int(job.wildcards.gen)
    seed = derive_seed(job.params.seed, "generate", generation, rank)
    key = job.key(seed)
    work = job.claim(f"shard{job.wildcards.shard}", key)
    if work is None:
        return
    settings, folder = job.params.generate, of_holder(job, "members").parent
    prompts: list[tuple[str, str]] | list[tuple[str, list[int]]]
    if job.files("blocks"):
        prompts = block_prompts(of_holder(job, "blocks"), of_holder(job, "numbers"))
    else:
        prompts = corpus_prompts(of_holder(job, "prompts").parent, settings["max_sentences"])
    with resume.saving(work, job.stop, job.log):
        began = any(work.glob("part*.parquet"))
        engine = about() if settings["engine"] == "vllm" else None
        inference = begin(job, "generate.precision", settings["precision"], [folder], began, engine)
        model: PreTrainedModel | VllmModel
        if engine:
            check_precision(inference.precision, inference.device)
            model = VllmModel(folder, inference.precision, settings)
            tokenizer = model.tokenizer
            job.log.info("engine %s", engine["engine"])
        else:
            model, tokenizer = inference.member(folder)
        resume.name(model, "parent")
        write_shard(
            model,
            tokenizer,
            prompts,
            settings,
            seed,
            int(job.wildcards.shard),
            shard,
            job.log,
            job.stop,
            work=work,
            key=key,
        )


def block_prompts(segment: Path, numbers: Path) -> list[tuple[str, list[int]]]:
    """Return (block's number in its corpus, token ids) of a segment (study B, 3.2)."""
    blocks = TokenBlocks(segment)
    chosen = artifacts.read_table(numbers, ["block"])["block"].to_pylist()
    ids_BT = blocks.blocks(np.arange(len(blocks))).tolist()
    return [(f"block{number}", ids) for number, ids in zip(chosen, ids_BT, strict=True)]


def hand_on_weights(job: Job, target: Path) -> None:
    """Write the weights that the children of the job's rank inherit."""
    seed = derive_seed(job.params.seed, "mutate", int(job.wildcards.gen), int(job.wildcards.rank))
    write_parent(of_holder(job, "members"), target, **job.params.mutate, seed=seed)


def hand_on_average(job: Job, target: Path) -> None:
    """Write the average of the weights of the job's ranks."""
    files = job.files("members")
    if job.files("selection"):
        files = [files[parent_of(job.file("selection"), rank)] for rank, _ in job.params.shares]
    write_average(files, [share for _, share in job.params.shares], target)
