"""Compare packing text into blocks of token ids with `datasets.map`, a tokenizer and group_texts.

The peer works like common language modelling scripts. Our time includes reading the parquet file;
the peer's time starts after its corpus is loaded.
"""

import time

from benchmarks.data import shared
from benchmarks.harness import OURS, Absent, Row, call

CONTEXT_TOKENS = 1024
CORPORA = ("data/openstax/train.parquet", "data/wikitext-2/train.parquet")


def pack_ours(folder: str, corpus: str) -> dict:
    from pathlib import Path

    import pyarrow.parquet as pq

    from pollination.data.tokens import pack
    from pollination.models.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(folder)
    begun_s = time.perf_counter()
    documents = (
        text
        for batch in pq.ParquetFile(corpus).iter_batches(columns=["text"])
        for text in batch["text"].to_pylist()
    )
    about = pack(documents, tokenizer, CONTEXT_TOKENS, Path("text.bin"))
    return {
        "seconds": time.perf_counter() - begun_s,
        "amount": about["tokens"],
        "result": about["tokens"],
    }


def pack_peer(folder: str, corpus: str, processes: str) -> dict:
    from datasets import disable_progress_bars, load_dataset
    from transformers import AutoTokenizer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    documents = load_dataset("parquet", data_files=corpus, split="train").select_columns(["text"])

    def tokenise(batch: dict) -> dict:
        ids = tokenizer(
            batch["text"], add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return {"input_ids": [row + [tokenizer.eos_token_id] for row in ids]}

    def group(batch: dict) -> dict:
        joined = [token for row in batch["input_ids"] for token in row]
        whole = len(joined) // CONTEXT_TOKENS * CONTEXT_TOKENS
        return {
            "input_ids": [
                joined[start : start + CONTEXT_TOKENS] for start in range(0, whole, CONTEXT_TOKENS)
            ]
        }

    begun_s = time.perf_counter()
    spread = {"batched": True, "num_proc": int(processes) if int(processes) > 1 else None}
    blocks = documents.map(tokenise, remove_columns=["text"], **spread).map(group, **spread)
    return {
        "seconds": time.perf_counter() - begun_s,
        "amount": len(blocks) * CONTEXT_TOKENS,
        "result": len(blocks) * CONTEXT_TOKENS,
    }


def sides() -> dict:
    folder = shared("models/stories15M")
    for name in CORPORA:
        try:
            corpus = shared(name)
            break
        except Absent as reason:
            absent = reason
    else:
        raise absent
    peers = {
        f"datasets.map, {n} process{'es' * (n > 1)}": call(pack_peer, folder, corpus, n)
        for n in (1, 2)
    }
    return {OURS: call(pack_ours, folder, corpus)} | peers


def token_counts(ours: int, theirs: int) -> str:
    """The counts differ: group_texts drops a remainder per thousand documents, we drop one."""
    return f"{ours:,} and {theirs:,} tokens"


ROWS = [
    Row(
        "packing",
        f"tokenise a corpus (Llama-2 vocabulary) and pack it into blocks of {CONTEXT_TOKENS}",
        "tokens",
        3.0,
        sides,
        token_counts,
    )
]
