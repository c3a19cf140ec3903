"""Real data and models for the benchmarks, from the folder that POLLINATION_DATA names."""

import os
from pathlib import Path

from benchmarks.harness import ROOT, Absent


def shared(relative: str) -> Path:
    """Return a path inside the real data; raise Absent if it does not exist."""
    for base in (os.environ.get("POLLINATION_DATA"), ROOT.parent / "shared"):
        if base and (path := Path(base) / relative).exists():
            return path.resolve()
    raise Absent(f"{relative} does not exist; set POLLINATION_DATA to the folder that contains it")


def model_and_text() -> tuple[Path, Path]:
    """Return the small real model, and real text for its prompts."""
    return shared("models/stories15M"), shared("data/wikitext-2/test.parquet")


# random models with the tokenizer and about the size of the small real one
LIKE = {
    "qwen3": {"num_key_value_heads": 3, "head_dim": 48},
    "gemma3_text": {"num_key_value_heads": 3, "head_dim": 48, "sliding_window": 128},
}


def load(folder: str, like: str):
    """Return (model, tokenizer) of a folder, or a random model of an architecture in LIKE."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not like:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model.eval(), tokenizer
    config = AutoConfig.for_model(
        like,
        vocab_size=len(tokenizer),
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        initializer_range=0.4,  # so that few tokens are likely, as in a trained model
        **LIKE[like],
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), tokenizer


def prompts(text: str, tokenizer, count: int, tokens: int) -> list[list[int]]:
    """Return the first `count` blocks of `tokens` token ids of the text."""
    import pyarrow.parquet as pq

    ids: list[int] = []
    for line in pq.read_table(text, columns=["text"])["text"].to_pylist():
        ids += tokenizer(line, add_special_tokens=False)["input_ids"]
        if len(ids) >= count * tokens:
            break
    return [ids[start : start + tokens] for start in range(0, count * tokens, tokens)]


def as_in_a_job() -> None:
    """Set up this process like a job, with the torch threads of the benchmark."""
    import torch

    from pollination.models.device import prepare

    prepare("cpu", torch.get_num_threads())
