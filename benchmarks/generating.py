"""Compare nucleus sampling and beam search with transformers' `generate`.

The model is a small real one with 32,000 tokens in its vocabulary.
"""

import time
from functools import partial

from benchmarks.data import as_in_a_job, load, model_and_text, prompts
from benchmarks.harness import OURS, Row, call

SAMPLED, SAMPLED_PROMPT_TOKENS, SAMPLED_NEW_TOKENS = 128, 8, 56
SEARCHED, BEAMS = 24, 5
BLOCK_TOKENS = 128  # study B's completions are as long as their block


def _timed(complete, rows: list[list[int]]) -> dict:
    """Time `complete(rows)`, which returns new token ids per row, after a short warm-up call."""
    complete(rows[:2])
    begun_s = time.perf_counter()
    new = complete(rows)
    return {"seconds": time.perf_counter() - begun_s, "amount": sum(map(len, new)), "result": new}


def _generate(model, eos_id: int, batch: int, new_tokens: int, **choices):
    """Return a function that calls `generate` in batches, with exactly `new_tokens` per row."""
    import torch

    def complete(rows: list[list[int]]) -> list[list[int]]:
        written = []
        for start in range(0, len(rows), batch):
            ids_BT = torch.tensor(rows[start : start + batch])
            lengths = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
            out_BT = model.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                pad_token_id=eos_id,
                **lengths,
                **choices,
            )
            written += out_BT[:, ids_BT.shape[1] :].tolist()
        return written

    return complete


def sample_ours(folder: str, text: str, like: str) -> dict:
    from pollination.models.sampling import Decoding, sample

    as_in_a_job()
    model, tokenizer = load(folder, like)
    decoding = Decoding(
        "nucleus",
        min_new_tokens=SAMPLED_NEW_TOKENS,
        max_new_tokens=SAMPLED_NEW_TOKENS,
        temperature=0.7,
        top_p=0.9,
    )

    def complete(rows: list[list[int]]) -> list[list[int]]:
        seeds = list(range(len(rows)))
        return list(sample(model, rows, seeds, decoding, tokenizer.eos_token_id, SAMPLED))

    rows = prompts(text, tokenizer, SAMPLED, SAMPLED_PROMPT_TOKENS)
    return _timed(complete, rows) | {"result": None}


def sample_peer(folder: str, text: str, like: str, batch: str) -> dict:
    import torch

    torch.manual_seed(0)
    model, tokenizer = load(folder, like)
    choices = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
    complete = _generate(model, tokenizer.eos_token_id, int(batch), SAMPLED_NEW_TOKENS, **choices)
    rows = prompts(text, tokenizer, SAMPLED, SAMPLED_PROMPT_TOKENS)
    return _timed(complete, rows) | {"result": None}


def search_ours(folder: str, text: str) -> dict:
    from pollination.models.beam import beam_search

    as_in_a_job()
    model, tokenizer = load(folder, "")

    def complete(rows: list[list[int]]) -> list[list[int]]:
        lengths = (BLOCK_TOKENS, BLOCK_TOKENS)
        return beam_search(model, rows, BEAMS, *lengths, 1.0, tokenizer.eos_token_id)

    return _timed(complete, prompts(text, tokenizer, SEARCHED, BLOCK_TOKENS))


def search_peer(folder: str, text: str, batch: str) -> dict:
    model, tokenizer = load(folder, "")
    choices = {"do_sample": False, "num_beams": BEAMS}
    complete = _generate(model, tokenizer.eos_token_id, int(batch), BLOCK_TOKENS, **choices)
    return _timed(complete, prompts(text, tokenizer, SEARCHED, BLOCK_TOKENS))


def sampling_sides(like: str = "") -> dict:
    folder, text = model_and_text()
    peers = {
        f"transformers generate, batch {batch}": call(sample_peer, folder, text, like, batch)
        for batch in (64, SAMPLED)
    }
    return {OURS: call(sample_ours, folder, text, like)} | peers


def beam_sides() -> dict:
    folder, text = model_and_text()
    peers = {
        f"transformers generate, batch {batch}": call(search_peer, folder, text, batch)
        for batch in (SEARCHED // 3, SEARCHED)
    }
    return {OURS: call(search_ours, folder, text)} | peers


def same_rows(ours: list, theirs: list) -> str:
    return f"{sum(a == b for a, b in zip(ours, theirs, strict=True))} of {len(ours)} texts equal"


def sampling(name: str, model: str, target: float, like: str = "") -> Row:
    return Row(
        name,
        f"nucleus sampling (p 0.9, T 0.7), {model}, {SAMPLED_PROMPT_TOKENS} + "
        f"{SAMPLED_NEW_TOKENS} tokens, {SAMPLED} rows",
        "tokens",
        target,
        partial(sampling_sides, like),
    )


ROWS = [
    sampling("sampling", "stories15M", 5.0),
    sampling("sampling-qwen3", "a random Qwen3 of its size", 3.0, "qwen3"),
    sampling("sampling-gemma3", "a random Gemma 3 of its size", 3.0, "gemma3_text"),
    Row(
        "beam",
        f"{BEAMS}-beam search, stories15M, {BLOCK_TOKENS} + {BLOCK_TOKENS} tokens, {SEARCHED} "
        "prompts",
        "tokens",
        2.0,
        beam_sides,
        same_rows,
    ),
]
