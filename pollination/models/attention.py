"""Replace a model's attention by one of this package's own, and compute it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional
from transformers import PreTrainedModel


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Put a model into evaluation mode with another attention. Restore both on exit."""
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(training)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    added: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """Return attention of query (B, H, Q, D) to key and value (B, H, K, D): (B, H, Q, D).

    `added` is added to the scores; None means causal attention. `softcap` bounds the scores
    (Gemma 2, arXiv 2408.00118, section 2).
    """
    if softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=added, is_causal=added is None, scale=scaling
        )
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    scores = softcap * (scores / softcap).tanh()
    if added is None:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    else:
        scores = scores + added
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
