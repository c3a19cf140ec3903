"""Measuring a member: benchmarks, perplexity, truth measures, samples."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from pollination import artifacts, models
from pollination.corpora import prompts as corpus_prompts
from pollination.corpora import read_documents
from pollination.corpora.microworld import World, fact_distribution
from pollination.generation import continue_prompts
from pollination.job import Job
from pollination.scoring.answers import evaluate_tasks
from pollination.scoring.perplexity import document_sequences, perplexity, sequence_logprobs, summarize
from pollination.seeds import derive_seed
from pollination.tokens import TokenBlocks


def evaluate(job: Job, folder: Path) -> None:
    """Write a member's scores.json and the tables behind it."""
    if job.claim("evaluate", job.key(job.params.seed), at_once=True) is None:
        return
    device, settings, seed = models.prepare(job.params.device, job.params.cpu_threads), job.params.evaluate, job.params.seed
    model, tokenizer = models.load_member(folder, device)
    tasks = {name: path.parent for name, path in zip(job.params.tasks, job.files("tasks"), strict=True)}
    requests = dict(zip(job.params.tasks, job.files("requests"), strict=True))
    scores, answers = evaluate_tasks(model, tokenizer, tasks, settings, seed, requests=requests)
    result = {"tasks": scores, "perplexity": {}, "truth": {}}
    worlds = {name: World.from_json(artifacts.read_json(path)) for name, path in zip(job.params.worlds, job.files("worlds"), strict=True)}
    frames = []
    for entry, kind, path in zip(settings["perplexity"], job.params.sequences, job.files("text"), strict=True):
        frame = score_text(model, tokenizer, entry, kind, path, worlds.get(entry["corpus"]), settings["batch_size"])
        name = f"{entry['name']}/{entry['split']}"
        result["perplexity"][name] = summarize(frame)
        frames.append(frame.assign(corpus=entry["name"], split=entry["split"]))
    facts = []
    for name, world in worlds.items():
        table, summary = fact_distribution(world, word_scorer(model, tokenizer, settings["batch_size"]))
        result["truth"][name] = summary
        facts.append(table.assign(corpus=name))
    sampling = settings["samples"]
    opening = corpus_prompts(job.file("prompts").parent, sampling["max_sentences"])[: sampling["prompts"]]
    samples = continue_prompts(model, tokenizer, opening, sampling, derive_seed(seed, "samples"))
    if twice := sorted({name for name, _ in opening} & set(sampling["texts"])):
        raise ValueError(f"evaluate.samples.texts.{twice[0]}: a held-out document is called {twice[0]!r} too; choose another name")
    if own := list(sampling["texts"].items()):
        samples = pd.concat(
            [samples, continue_prompts(model, tokenizer, own, sampling, derive_seed(seed, "texts"), by_name=True)], ignore_index=True
        )
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


def score_text(model, tokenizer, entry: dict, kind: str, path: Path, world: World | None, batch_size: int) -> pd.DataFrame:
    """Per-sequence NLL of one held-out text, with the truth's beside it where the truth is known."""
    if kind == "blocks":
        sequences = TokenBlocks(path)
        if entry["max_tokens"]:
            sequences = sequences.first(max(1, entry["max_tokens"] // sequences.context_tokens))
        return perplexity(model, sequences, batch_size).assign(truth_nll=np.nan)
    texts = lambda: (text for _, text in read_documents(path.parent, entry["split"]))  # noqa: E731
    frame = perplexity(model, document_sequences(texts(), tokenizer, model.config.max_position_embeddings, entry["max_tokens"]), batch_size)
    truth = np.nan
    if world is not None:
        truth = [_truth_nll(world, text, count, tokenizer) for text, count in zip(texts(), frame["tokens"], strict=False)]
    return frame.assign(truth_nll=truth)


def _truth_nll(world: World, text: str, count: int, tokenizer) -> float:
    """The truth's cost in nats of the very tokens that the model was scored on; NaN where they end inside a word."""
    words, tokens = text.split(), len(tokenizer(text, add_special_tokens=False)["input_ids"])
    logprobs = world.token_logprobs(words)
    if tokens == len(words):  # a token a word, so that a document may be cut
        return -logprobs[:count].sum()
    return -logprobs.sum() if count == tokens + 1 else math.nan


def word_scorer(model, tokenizer, batch_size: int):
    """A function from word sequences to the log-probability of each word after the ones before it, eos in front."""

    def score(sequences: list[list[str]]) -> list[np.ndarray]:
        read = tokenizer([" ".join(words) for words in sequences], add_special_tokens=False, return_offsets_mapping=True)
        logprobs = sequence_logprobs(model, read["input_ids"], tokenizer.eos_token_id, batch_size)
        words = []
        for sequence, offsets, values in zip(sequences, read["offset_mapping"], logprobs, strict=True):
            ends = np.cumsum([len(word) + 1 for word in sequence]) - 1  # a word of several tokens has the sum of theirs
            places = np.searchsorted(ends, [end for _, end in offsets])
            words.append(np.bincount(places, weights=values, minlength=len(sequence)))
        return words

    return score
