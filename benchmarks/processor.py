"""Measure the jobs that run without a GPU, for `pollination cost`, on one core.

Rates are amounts per second of processor time, so other work on the machine changes them little.
Waiting for disks and networks is not counted. A job with several threads counts all of them.
"""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.data import shared

TEXTS = ("data/wikitext-2/train.parquet", "data/openstax/train.parquet")
QUESTIONS, QUESTION_WORDS = 10_000, 20
ROWS = 8_000  # of a pool; each has a prompt and a completion of a quarter of the tokens
WEIGHTS = 16  # matrices of 2**20 parameters
HASHED_MIB = 256


def _timed(work: Callable[[], object], amount: float, **more: object) -> dict:
    begun_s = time.process_time()
    work()
    return {"seconds": time.process_time() - begun_s, "amount": amount, "result": more}


def _tokens(characters: int) -> float:
    from pollination.analysis.cost.shapes import published

    return characters / published()["text"]["characters_per_token"]


def _staged() -> tuple[Path, int]:
    """Write real text as the hub's stager does. Return the file and its characters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pollination.data.hub import SCHEMA

    parts = [pq.read_table(shared(name), columns=["text"])["text"] for name in TEXTS]
    texts = [text for part in parts for text in part.to_pylist() if text.strip()]
    rows = {"split": [""] * len(texts), "text": texts}
    pq.write_table(pa.table(rows, schema=SCHEMA), "staged.parquet", compression="zstd")
    return Path("staged.parquet"), sum(map(len, texts))


def _corpus() -> tuple[Callable[[], None], int]:
    """Return a function that builds corpus/ from staged text, and the text's characters."""
    from pollination.core.settings import definition, with_defaults
    from pollination.data.corpora import build_corpus

    file, characters = _staged()
    spec = {"kind": "hub", "name": "text", "max_tokens": 2**40}
    spec = with_defaults(spec, definition("corpus"))
    return lambda: build_corpus(spec, 0, Path("corpus"), [file]), characters


def corpus() -> dict:
    """Split staged text into training text, held-out text and prompts."""
    work, characters = _corpus()
    measured = _timed(work, _tokens(characters))
    size = sum(path.stat().st_size for path in Path("corpus").glob("*.parquet"))
    return measured | {"result": {"text_bytes_per_character": size / characters}}


def world() -> dict:
    """Generate the documents of a microworld."""
    from pollination.core.settings import definition, with_defaults
    from pollination.data.corpora import build_corpus, read_documents

    spec = with_defaults({"kind": "microworld", "documents": 20_000}, definition("corpus"))
    measured = _timed(lambda: build_corpus(spec, 0, Path("corpus")), 0.0)
    splits = (path.stem for path in Path("corpus").glob("*.parquet"))
    texts = (text for split in splits for _, text in read_documents(Path("corpus"), split))
    return measured | {"amount": sum(len(text.split()) + 1 for text in texts)}


def search() -> dict:
    """Search a corpus for benchmark questions."""
    import random

    from pollination.data.contamination import overlap
    from pollination.data.files import read_documents

    work, characters = _corpus()
    work()
    words = [word for _, text in read_documents(Path("corpus"), "test") for word in text.split()]
    draw = random.Random(0)
    questions = [" ".join(draw.choices(words, k=QUESTION_WORDS)) for _ in range(QUESTIONS)]
    return _timed(lambda: overlap(Path("corpus"), questions), _tokens(characters))


def count() -> dict:
    """Count the words of a text."""
    from pollination.data.vocabulary import vocabulary

    work, characters = _corpus()
    work()
    return _timed(lambda: vocabulary(Path("corpus")), _tokens(characters))


def pack() -> dict:
    """Tokenise a text with Llama-2's vocabulary and pack it into blocks."""
    from pollination.data.files import read_staged
    from pollination.data.tokens import pack
    from pollination.models.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(str(shared("models/stories15M")))
    file, _ = _staged()
    about: dict = {}

    def work() -> None:
        texts = (text for _, text in read_staged(file))
        about.update(pack(texts, tokenizer, 1024, Path("text.bin")))

    measured = _timed(work, 0.0)
    return measured | {"amount": about["tokens"]}


def deal() -> dict:
    """Deal the pool of several parents to one of 16 members."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pollination.core.artifacts import write_table
    from pollination.evolution.dealing import deal
    from pollination.evolution.shards import SCHEMA

    file, _ = _staged()
    text = " ".join(pq.read_table(file)["text"].to_pylist())
    size = min(1024, len(text) // ROWS // 2)
    ids = np.random.default_rng(0).zipf(1.3, (ROWS, int(_tokens(2 * size)))) % 32_000
    rows = [
        {
            "prompt_id": str(n),
            "prompt": text[2 * n * size : (2 * n + 1) * size],
            "completion": text[(2 * n + 1) * size : (2 * n + 2) * size],
            "token_ids": ids[n].tolist(),
            "prompt_tokens": len(ids[n]),
            "seed": n,
            "vocabulary": "0" * 64,
        }
        for n in range(ROWS)
    ]
    write_table("pool.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))
    tokens = _tokens(2 * size * ROWS)
    measured = _timed(lambda: deal([Path("pool.parquet")], 0, 16, 0, Path("out.parquet")), tokens)
    size_bytes = Path("pool.parquet").stat().st_size
    return measured | {"result": {"shard_bytes_per_token": size_bytes / tokens}}


def mutate() -> dict:
    """Mutate the weights of a parent."""
    import torch
    from safetensors.torch import save_file

    from pollination.evolution.mutation import write_parent

    weights = {f"w{n}": torch.randn(1024, 1024) for n in range(WEIGHTS)}
    save_file(weights, "model.safetensors", metadata={"format": "pt"})
    there, here = Path("model.safetensors"), Path("parent.safetensors")
    amount = sum(weight.numel() for weight in weights.values())
    return _timed(lambda: write_parent(there, here, 0.01, "tensor", 0), amount)


def digest() -> dict:
    """Compute the SHA-256 of a file."""
    from pollination.core import artifacts

    Path("file").write_bytes(bytes(2**20) * HASHED_MIB)
    return _timed(lambda: artifacts.digest("file"), HASHED_MIB * 2**20)


RATES: dict[str, tuple[Callable[[], dict], tuple[str, ...]]] = {
    # key of `processor` in published.yaml -> function, real data that it reads
    "corpus_tokens_per_s": (corpus, TEXTS),
    "search_tokens_per_s": (search, TEXTS),
    "count_tokens_per_s": (count, TEXTS),
    "world_tokens_per_s": (world, ()),
    "pack_tokens_per_s": (pack, (*TEXTS, "models/stories15M")),
    "deal_tokens_per_s": (deal, TEXTS),
    "mutate_parameters_per_s": (mutate, ()),
    "hash_bytes_per_s": (digest, ()),
}
