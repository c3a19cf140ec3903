"""Replace a model's attention by one of this package's own, and compute it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

CAUSAL = "pollination_causal"


@contextmanager
def attention(model: PreTrainedModel, name: str, keep_mode: bool = False) -> Iterator[None]:
    """Put a model into evaluation mode with another attention. Restore both on exit.

    With `keep_mode`, a model in train mode stays in it.
    """
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.train(training and keep_mode)
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


def _causal(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    softcap=None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Return one layer's attention (B, T, H, D), causal and without a mask. Transformers calls it.

    query is (B, H, T, D), key and value are (B, K, T, D).
    ValueError: the layer adds something to its scores, or bounds them.
    """
    if attention_mask is not None or softcap is not None:
        raise ValueError("its scores are changed before the softmax")
    readers = query.shape[1] // key.shape[1]
    # Shared heads of keys have a kernel in half precision. In fp32, torch holds all scores instead.
    shared = readers > 1 and value.dtype != torch.float32
    if readers > 1 and not shared:
        key, value = (x.repeat_interleave(readers, 1) for x in (key, value))
    result = functional.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=shared
    )
    return result.transpose(1, 2).contiguous(), None


# Transformers builds no mask for a name of this package.
AttentionInterface.register(CAUSAL, _causal)
