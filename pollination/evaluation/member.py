"""Evaluate a member: benchmarks, perplexity, truth measures, samples."""

import math
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pollination.core import artifacts, resume
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.data.corpora import prompts as corpus_prompts
from pollination.data.corpora import read_documents
from pollination.data.encoding import encode, encode_with_offsets
from pollination.data.microworld import World, fact_distribution
from pollination.data.special import special_tokens
from pollination.data.tokens import TokenBlocks
from pollination.evaluation.answers import evaluate_tasks
from pollination.evaluation.own_measures import Measured, measure
from pollination.evaluation.perplexity import (
    document_sequences,
    perplexity,
    sequence_logprobs,
    summarize,
)
from pollination.evaluation.requests import Kept
from pollination.evaluation.tasks import has_own_code
from pollination.models import checkpoint
from pollination.models.completion import continue_prompts
from pollination.models.inference import Inference, Instance, begin
from pollination.models.limits import context_limit

# for the next member that this process scores
_benchmarks, _instance = Kept(), Instance()


def evaluate(job: Job, folder: Path) -> None:
    """Write a member's scores.json and its tables.

    If the process is a fork of a worker, it may score the next member too. What users' functions
    change in a process must not reach another member, so a process that called one scores no more.
    """
    tasks = [path.parent for path in job.files("tasks")]
    if not job.params.evaluate["measures"] and not any(map(has_own_code, tasks)):
        job.stay(with_gpu=True)
    work = job.claim("evaluate", job.key(job.params.seed), at_once=True)
    if work is not None:
        with resume.saving(work, job.stop, job.log):
            _evaluate(job, folder)


def _evaluate(job: Job, folder: Path) -> None:
    settings, seed = job.params.evaluate, job.params.seed
    inference = begin(job, "evaluate.precision", job.params.get("precision", "auto"), [folder])
    model, tokenizer = inference.member(folder, _instance if job.stays else None)
    resume.name(model, "member")
    tasks = {
        name: path.parent for name, path in zip(job.params.tasks, job.files("tasks"), strict=True)
    }
    requests = dict(zip(job.params.tasks, job.files("requests"), strict=True))
    scores, answers = evaluate_tasks(
        model,
        tokenizer,
        tasks,
        settings,
        seed,
        requests=requests,
        kept=_benchmarks if job.stays else None,
        digests=job.digests,
    )
    if job.stays and (_benchmarks.reused or _instance.reused):
        job.log.info(
            "kept from the member before: %d of %d benchmarks%s",
            _benchmarks.reused,
            len(tasks),
            ", the model" if _instance.reused else "",
        )
    _benchmarks.reused = 0
    result: dict[str, Any] = {"tasks": scores, "perplexity": {}, "truth": {}}
    if inference.precision != "fp32":
        result["precision"] = inference.precision
    worlds = {
        name: World.from_json(artifacts.read_json(path))
        for name, path in zip(job.params.worlds, job.files("worlds"), strict=True)
    }
    frames, texts = [], {}
    for entry, kind, path in zip(
        settings["perplexity"], job.params.sequences, job.files("text"), strict=True
    ):
        frame = score_text(
            model, tokenizer, entry, kind, path, worlds.get(entry["corpus"]), settings["batch_size"]
        )
        name = f"{entry['name']}/{entry['split']}"
        texts[name] = partial(read_text, model, tokenizer, entry, kind, path)
        result["perplexity"][name] = summarize(frame)
        frames.append(frame.assign(corpus=entry["name"], split=entry["split"]))
    facts = []
    for name, world in worlds.items():
        table, summary = fact_distribution(
            world, word_scorer(model, tokenizer, settings["batch_size"])
        )
        result["truth"][name] = summary
        facts.append(table.assign(corpus=name))
    sampling = settings["samples"]
    opening = corpus_prompts(job.file("prompts").parent, sampling["max_sentences"])[
        : sampling["num_prompts"]
    ]
    samples = continue_prompts(model, tokenizer, opening, sampling, derive_seed(seed, "samples"))
    if twice := sorted({name for name, _ in opening} & set(sampling["texts"])):
        raise ValueError(
            f"evaluate.samples.texts.{twice[0]}: a held-out document already has the name "
            f"{twice[0]!r}; choose another name"
        )
    if own := list(sampling["texts"].items()):
        samples = pd.concat(
            [
                samples,
                continue_prompts(
                    model, tokenizer, own, sampling, derive_seed(seed, "texts"), by_name=True
                ),
            ],
            ignore_index=True,
        )
    if settings["measures"]:
        about = Measured(
            model=model if model.dtype == torch.float32 else _in_fp32(folder, inference),
            tokenizer=tokenizer,
            device=inference.device,
            batch_size=settings["batch_size"],
            samples=samples.copy(),
            scores=deepcopy(result),
            seed=seed,
            texts=texts,
        )
        with resume.suspended():
            result["measures"] = measure(settings["measures"], about)
    artifacts.write_table(job.output.answers, answers)
    artifacts.write_table(job.output.sequences, _concat(frames, SEQUENCE_COLUMNS))
    artifacts.write_table(job.output.facts, _concat(facts, FACT_COLUMNS))
    artifacts.write_table(job.output.samples, samples)
    artifacts.write_json(job.output.scores, result)


def _in_fp32(folder: Path, inference: Inference):
    """Return the model for the user's own measures, because numpy has no bf16."""
    return checkpoint.load_model(folder, inference.device)


SEQUENCE_COLUMNS = {
    "corpus": "str",
    "split": "str",
    "sequence": "int64",
    "tokens": "int64",
    "nll": "float64",
    "truth_nll": "float64",
}
FACT_COLUMNS = {
    "corpus": "str",
    "person": "str",
    "attribute": "str",
    "value": "str",
    "rank": "int64",
    "band": "int64",
    "truth_probability": "float64",
    "model_probability": "float64",
    "false_probability": "float64",
    "known": "bool",
}


def _concat(frames: list[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    if frames:
        return pd.concat(frames, ignore_index=True)[list(columns)]
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def score_text(
    model, tokenizer, entry: dict, kind: str, path: Path, world: World | None, batch_size: int
) -> pd.DataFrame:
    """Return the NLL of each sequence of a held-out text, and the truth's NLL if it is known."""
    sequences = read_text(model, tokenizer, entry, kind, path)
    special = special_tokens(tokenizer)
    frame = perplexity(model, sequences, batch_size, special.eos_id, special.bos_id)
    truth: float | list[float] = np.nan
    if kind == "documents" and world is not None:
        documents = list(islice(_documents(entry, path), len(frame)))
        truth = [
            _truth_nll(world, text, len(ids), count)
            for text, ids, count in zip(
                documents, encode(documents, tokenizer), frame["tokens"], strict=True
            )
        ]
    return frame.assign(truth_nll=truth)


def read_text(
    model, tokenizer, entry: dict, kind: str, path: Path
) -> TokenBlocks | list[np.ndarray]:
    """Return a held-out text as a model reads it: blocks, or the token ids of documents."""
    most = entry["max_tokens"]
    if kind == "blocks":
        blocks = TokenBlocks(path)
        return blocks.first(max(1, most // blocks.context_tokens)) if most else blocks
    context = context_limit(model.config)
    return document_sequences(_documents(entry, path), tokenizer, context, most)


def _documents(entry: dict, path: Path) -> Iterator[str]:
    return (text for _, text in read_documents(path.parent, entry["split"]))


def _truth_nll(world: World, text: str, tokens: int, count: int) -> float:
    """Return the truth's NLL in nats of the first `count` of a text's tokens, on which a model was
    scored; count - 1 of them if it was scored on eos too.

    It is NaN if these tokens end inside a word.
    """
    words = text.split()
    logprobs = world.token_logprobs(words)
    if tokens == len(words):  # one token per word, so a cut ends after a whole word
        return -logprobs[:count].sum()
    return -logprobs.sum() if count == tokens + 1 else math.nan


def word_scorer(model, tokenizer, batch_size: int):
    """Return a function: word sequences -> log-probability of each word given those before.

    The model reads eos before the first word, or bos in its place.
    A word of several tokens has the sum of their log-probabilities.
    """

    def score(sequences: list[list[str]]) -> list[np.ndarray]:
        texts = [" ".join(words) for words in sequences]
        ids, offsets_of_each = encode_with_offsets(texts, tokenizer)
        first_id = special_tokens(tokenizer).first_id
        logprobs = sequence_logprobs(model, ids, first_id, batch_size)
        words = []
        for sequence, offsets, values in zip(sequences, offsets_of_each, logprobs, strict=True):
            ends = np.cumsum([len(word) + 1 for word in sequence]) - 1
            places = np.searchsorted(ends, [end for _, end in offsets])
            words.append(np.bincount(places, weights=values, minlength=len(sequence)))
        return words

    return score
