"""Tokenise the requests of staged tasks once for all members that share a tokenizer.

lm-eval builds the requests. Each task has a table with one row per request, in lm-eval's order:
leaf (index of the leaf task), doc_id, idx (index among the question's requests), context,
continuation and their token ids. A context that equals the one before it, tokens included, is null.
The evaluation itself builds requests for generated text and for whole texts.

A process that scores several members reads tasks and requests once (`Kept`).
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pollination.core import artifacts
from pollination.data.special import special_tokens
from pollination.evaluation.harness import Encoded, encode_pairs
from pollination.evaluation.lm_eval_calls import quiet
from pollination.evaluation.tasks import load_tasks

PAIRS = ("multiple_choice", "loglikelihood")  # output types that score a continuation of a context
SCHEMA = pa.schema(
    {
        "leaf": pa.int32(),
        "doc_id": pa.int32(),
        "idx": pa.int32(),
        "context": pa.string(),
        "continuation": pa.string(),
        "context_ids": pa.list_(pa.int32()),
        "continuation_ids": pa.list_(pa.int32()),
    }
)


def write_requests(folder: Path, tokenizer, evaluation_seed: int, path: Path) -> None:
    """Build, tokenise and write the requests of the task in `folder`.

    Equal inputs give equal bits.
    """
    columns: dict[str, list] = {name: [] for name in SCHEMA.names}
    with quiet():
        tasks = load_tasks({"task": folder}, evaluation_seed)["tasks"].values()
        for leaf, task in enumerate(tasks):
            if task.OUTPUT_TYPE not in PAIRS:
                continue
            task.build_all_requests(rank=0, world_size=1)
            pairs = [instance.args for instance in task.instances]
            encoded = encode_pairs(pairs, tokenizer, special_tokens(tokenizer).first_id)
            last = None
            for instance, (context_ids, ids) in zip(task.instances, encoded, strict=True):
                context, continuation = instance.args
                repeats = last == (context, context_ids)
                last = context, context_ids
                text, text_ids = (None, None) if repeats else (context, context_ids)
                row = (leaf, instance.doc_id, instance.idx, text, continuation, text_ids, ids)
                for name, value in zip(SCHEMA.names, row, strict=True):
                    columns[name].append(value)
    artifacts.write_table(path, pa.table(columns, schema=SCHEMA))


def restore_requests(path: Path, loaded: dict) -> dict[tuple[str, str], Encoded]:
    """Give the requests of a table to the tasks of `load_tasks`; return the tokens of each pair.

    The tasks then build no requests themselves. DamagedArtifact: the table belongs to another task.
    """
    from lm_eval.api.instance import Instance

    table = artifacts.read_table(path, SCHEMA.names)
    tasks = list(loaded["tasks"].values())
    docs = [
        dict(task.doc_iterator(rank=0, world_size=1)) if task.OUTPUT_TYPE in PAIRS else {}
        for task in tasks
    ]
    leaves, doc_ids, indices = (table[name].to_numpy() for name in ("leaf", "doc_id", "idx"))
    asked = set(zip(leaves.tolist(), doc_ids.tolist(), strict=True))
    if asked != {(leaf, doc_id) for leaf, questions in enumerate(docs) for doc_id in questions}:
        raise artifacts.DamagedArtifact(
            f"{path}: its questions are not those of the staged task; delete the file and run "
            "snakemake again"
        )
    if not asked:
        return {}
    context_ids, ids = _arrays(table["context_ids"]), _arrays(table["continuation_ids"])
    instances: list[list[Instance]] = [[] for _ in tasks]
    encoded: dict[tuple[str, str], Encoded] = {}
    before = ("", context_ids[0])
    rows = zip(
        leaves.tolist(),
        doc_ids.tolist(),
        indices.tolist(),
        table["context"].to_pylist(),
        table["continuation"].to_pylist(),
        strict=True,
    )
    for number, (leaf, doc_id, index, context, continuation) in enumerate(rows):
        if context is not None:
            before = context, context_ids[number]
        pair, config = (before[0], continuation), tasks[leaf].config
        encoded[pair] = before[1], ids[number]
        metadata = (config.task, doc_id, config.repeats)
        instances[leaf].append(Instance("loglikelihood", docs[leaf][doc_id], pair, index, metadata))
    for task, restored in zip(tasks, instances, strict=True):
        if task.OUTPUT_TYPE not in PAIRS:
            continue
        task._instances = restored
        task.build_all_requests = _keep_requests
    return encoded


@dataclass(frozen=True)
class Loaded:
    """The tasks of a benchmark, the tokens of their requests, and the random numbers after both."""

    tasks: dict
    encoded: dict[tuple[str, str], Encoded]
    random: tuple


class Kept:
    """The benchmarks that this process has read, for the next member.

    `digests` names the bytes of each input file. Only tasks whose requests are all restored are
    kept: scores of others may depend on the state of a task. One benchmark of a name is kept, so
    members with several tokenizers take no more memory.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, tuple[tuple, Loaded]] = {}
        self.reused = 0  # calls of `load` that read nothing

    def load(
        self, name: str, folder: Path, requests: Path, seed: int, digests: Mapping[str, str]
    ) -> Loaded:
        """Return a benchmark as new, with its restored requests. Errors as those of both."""
        files = digests.get(str(folder / "task.json")), digests.get(str(requests))
        key = seed, *files
        before, found = self.loaded.pop(name, (None, None))
        if found and before == key:
            self.loaded[name] = key, found
            for task in found.tasks["tasks"].values():
                for instance in task._instances:
                    instance.resps, instance.filtered_resps = [], {}
            random.setstate(found.random[0])
            np.random.set_state(found.random[1])
            torch.set_rng_state(found.random[2])
            self.reused += 1
            return found
        tasks = load_tasks({name: folder}, seed)
        encoded = restore_requests(requests, tasks)
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        loaded = Loaded(tasks, encoded, states)
        leaves: list[Any] = list(tasks["tasks"].values())
        if None not in files and all(leaf.OUTPUT_TYPE in PAIRS for leaf in leaves):
            self.loaded[name] = key, loaded
        return loaded


def _keep_requests(**_) -> None:
    """Replace a task's `build_all_requests`, because its requests are restored already."""


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return the rows of a column of lists; null becomes empty."""
    lists = column.combine_chunks()
    ends = np.cumsum(lists.value_lengths().fill_null(0).to_numpy())
    return np.split(lists.flatten().to_numpy(), ends[:-1])
