"""What a job does with one member: train it, let it write, measure it. Scripts call these with their Job."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pollination import artifacts, models
from pollination.corpora import prompts as corpus_prompts
from pollination.corpora import read_documents
from pollination.corpora.microworld import World, fact_distribution
from pollination.generation import continue_prompts, write_shard
from pollination.job import Job
from pollination.scoring.answers import evaluate_tasks
from pollination.scoring.perplexity import document_sequences, perplexity, summarize
from pollination.seeds import derive_seed
from pollination.selection import parent_of
from pollination.tokens import TokenBlocks, pack_ids
from pollination.training import Trainer, founder_slice, mix, write_metrics

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def job_key(job: Job, seed: int) -> str:
    """Digest of all that a job's result depends on: rule, settings, seed and the bytes of its inputs."""
    parts = [job.rule, dict(job.params.items()), seed, sorted(job.digests.items())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def work_folder(beside: Path, name: str, key: str) -> Path:
    """Where a job keeps work in progress: beside its output, undeclared, so that Snakemake does not delete it."""
    return beside / f".{name}.work" / key[:16]


def _setup(job: Job) -> torch.device:
    torch.set_num_threads(job.params.cpu_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return models.pick_device(job.params.device)


def _train(job: Job, folder: Path, model, blocks, seed: int, work: Path, key: str) -> None:
    validation = TokenBlocks(job.file("validation")) if job.file("validation") else None
    trainer = Trainer(model, blocks, job.params.train, seed, _setup(job), work, key, job.log, job.stop, validation)
    metrics = trainer.run()
    models.save_model(model, folder)
    for name in TOKENIZER_FILES:
        with artifacts.atomic(folder / name) as temporary:
            shutil.copyfile(job.file("blueprint").parent / name, temporary)
    write_metrics(Path(job.output.metrics), metrics)
    shutil.rmtree(work.parent, ignore_errors=True)


def _start(job: Job, seed: int):
    """The model that training starts from: given weights, or a new initialisation."""
    model = models.create_model(job.file("blueprint").parent, derive_seed(seed, "weights"))
    if job.file("weights"):
        models.load_weights(model, job.file("weights"))
    return model


def train_founder(job: Job, folder: Path) -> None:
    """Train founder `member` of a pool on its slice of human text; its seed is that of (pool, member)."""
    pool, member = job.wildcards.pool, int(job.wildcards.member)
    seed = derive_seed("founder", pool, member)
    key = job_key(job, seed)
    whole = TokenBlocks(job.file("blocks"))
    blocks = founder_slice(whole, whole.context_tokens, job.params.train["tokens"], member, job.params.slices, pool)
    _train(job, folder, _start(job, seed), blocks, seed, work_folder(folder, "train", key), key)


def train_child(job: Job, folder: Path) -> None:
    """Train child `member` on synthetic shards, from the weights that its operators give it."""
    generation, member = int(job.wildcards.gen), int(job.wildcards.member)
    seed = derive_seed(job.params.seed, "train", generation, member)
    key = job_key(job, seed)
    model, work, settings = _start(job, seed), work_folder(folder, "train", key), job.params.train
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
        table = artifacts.read_table(path, ["token_ids", "prompt_tokens"])
        for batch in table.to_batches(max_chunksize=4096):
            for ids, start in zip(batch["token_ids"].to_pylist(), batch["prompt_tokens"].to_pylist(), strict=True):
                if left <= 0:
                    return
                ids = ids if include_prompt else ids[start:]
                left -= len(ids)
                yield ids


def parent_weights(job: Job) -> Path:
    """The weights of the member that holds the job's rank, as evaluated."""
    members = job.files("members")
    return members[parent_of(job.file("selection"), int(job.wildcards.rank))] if job.file("selection") else members[0]


def write_text(job: Job, shard: Path) -> None:
    """Let the holder of a rank, as evaluated, write one shard."""
    device = _setup(job)
    rank, generation = int(job.wildcards.rank), int(job.wildcards.gen)
    folder = parent_weights(job).parent
    model, tokenizer = models.load_model(folder, device), models.load_tokenizer(folder)
    prompts = corpus_prompts(job.file("prompts").parent, job.params.generate["max_sentences"])
    seed = derive_seed(job.params.seed, "generate", generation, rank)
    key = job_key(job, seed)
    name = f"shard{job.wildcards.shard}"
    work = work_folder(shard.parent, name, key)
    write_shard(
        model, tokenizer, prompts, job.params.generate, seed, int(job.wildcards.shard), shard, job.log, job.stop, work=work, key=key
    )
    shutil.rmtree(work.parent, ignore_errors=True)


def evaluate(job: Job, folder: Path) -> None:
    """Write a member's scores.json and the tables behind it."""
    device, settings, seed = _setup(job), job.params.evaluate, job.params.seed
    model, tokenizer = models.load_model(folder, device), models.load_tokenizer(folder)
    tasks = {name: path.parent for name, path in zip(job.params.tasks, job.files("tasks"), strict=True)}
    scores, answers = evaluate_tasks(model, tokenizer, tasks, settings, seed)
    result = {"tasks": scores, "perplexity": {}, "truth": {}}
    worlds = {name: World.from_json(artifacts.read_json(path)) for name, path in zip(job.params.worlds, job.files("worlds"), strict=True)}
    frames = []
    for entry, kind, path in zip(settings["perplexity"], job.params.sequences, job.files("text"), strict=True):
        frame = _perplexity(model, tokenizer, entry, kind, path, worlds.get(entry["corpus"]), settings["batch_size"])
        name = f"{entry['corpus']}/{entry['split']}"
        result["perplexity"][name] = summarize(frame)
        frames.append(frame.assign(corpus=entry["corpus"], split=entry["split"]))
    facts = []
    for name, world in worlds.items():
        table, summary = fact_distribution(world, _word_scorer(model, tokenizer, settings["batch_size"]))
        result["truth"][name] = summary
        facts.append(table.assign(corpus=name))
    sampling = settings["samples"]
    opening = corpus_prompts(job.file("prompts").parent, sampling["max_sentences"])[: sampling["prompts"]]
    samples = continue_prompts(model, tokenizer, opening, sampling, derive_seed(seed, "samples"))
    artifacts.write_table(job.output.answers, answers)
    artifacts.write_table(job.output.sequences, _concat(frames, SEQUENCE_COLUMNS))
    artifacts.write_table(job.output.facts, _concat(facts, FACT_COLUMNS))
    artifacts.write_table(job.output.samples, samples)
    artifacts.write_json(job.output.scores, result)


SEQUENCE_COLUMNS = {"corpus": "str", "split": "str", "sequence": "int64", "tokens": "int64", "nll": "float64", "truth_nll": "float64"}
FACT_COLUMNS = {
    "corpus": "str", "person": "str", "attribute": "str", "value": "str", "rank": "int64", "band": "int64",
    "truth_probability": "float64", "model_probability": "float64", "false_probability": "float64", "known": "bool",
}  # fmt: skip


def _concat(frames: list[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    if frames:
        return pd.concat(frames, ignore_index=True)[list(columns)]
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def _perplexity(model, tokenizer, entry: dict, kind: str, path: Path, world: World | None, batch_size: int) -> pd.DataFrame:
    """Per-sequence NLL of one held-out text, with the truth's beside it where the truth is known."""
    if kind == "blocks":
        sequences = TokenBlocks(path)
        if entry["max_tokens"]:
            sequences = sequences.first(max(1, entry["max_tokens"] // sequences.context_tokens))
        return perplexity(model, sequences, batch_size).assign(truth_nll=np.nan)
    texts, budget = [], entry["max_tokens"] or float("inf")
    for _, text in read_documents(path.parent, entry["split"]):
        if budget <= 0:
            break
        texts.append(text)
        budget -= len(text.split())
    context = model.config.max_position_embeddings
    sequences = document_sequences(texts, tokenizer, context)
    frame = perplexity(model, sequences, batch_size)
    truth = np.nan
    if world is not None:  # the truth is scored on the very tokens that the model was
        scored = frame["tokens"].to_numpy()
        truth = [-world.token_logprobs(text.split())[:count].sum() for text, count in zip(texts, scored, strict=True)]
    return frame.assign(truth_nll=truth)


def _word_scorer(model, tokenizer, batch_size: int):
    """A function from word sequences to the log-probability of each word after the ones before it, eos in front."""
    from pollination.scoring.perplexity import sequence_logprobs

    def score(sequences: list[list[str]]) -> list[np.ndarray]:
        return sequence_logprobs(model, [tokenizer.convert_tokens_to_ids(words) for words in sequences], tokenizer.eos_token_id, batch_size)

    return score
