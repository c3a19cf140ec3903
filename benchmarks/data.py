"""Real data and models: the folder POLLINATION_DATA, else ../shared beside the project."""

import os
from pathlib import Path

from benchmarks.harness import ROOT, Absent


def shared(relative: str) -> Path:
    """A path inside the real data; Absent where it is not here."""
    for base in (os.environ.get("POLLINATION_DATA"), ROOT.parent / "shared"):
        if base and (path := Path(base) / relative).exists():
            return path.resolve()
    raise Absent(f"{relative} is not here; set POLLINATION_DATA to the folder that holds it")


def model_and_text() -> tuple[Path, Path]:
    """The small real model, and real text to prompt it with."""
    return shared("models/stories15M"), shared("data/wikitext-2/test.parquet")


def prompts(text: str, tokenizer, count: int, tokens: int) -> list[list[int]]:
    """The text's first `count` blocks of `tokens` token ids."""
    import pyarrow.parquet as pq

    ids: list[int] = []
    for line in pq.read_table(text, columns=["text"])["text"].to_pylist():
        ids += tokenizer(line, add_special_tokens=False)["input_ids"]
        if len(ids) >= count * tokens:
            break
    return [ids[start : start + tokens] for start in range(0, count * tokens, tokens)]


def as_in_a_job() -> None:
    """Set this process up as a job is, with the torch threads that the benchmark gave it."""
    import torch

    from pollination.models.device import prepare

    prepare("cpu", torch.get_num_threads())
