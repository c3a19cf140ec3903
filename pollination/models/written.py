"""Attention of one new token per row to the slots that its row has written, and to no others.

torch's varlen_attn takes the number of written slots of each row (`seqused_k`), so each row reads
its own length, whatever bucket the step has. The work of a row is not split, so its result does not
depend on other rows. torch has this kernel for fp16 and bf16 on a GPU of capability 8.0 or higher.
Before its first use, a process compares it with masked attention on numbers of the same shapes. If
it fails or differs, masked attention takes its place.

Shapes: B rows, H heads, K heads of keys, D head width, S slots of a row.
"""

import functools
import logging
from dataclasses import dataclass

import torch
from torch.nn.attention.varlen import varlen_attn

from pollination.models.attention import attend

log = logging.getLogger("pollination")

DEVICES = ("cuda",)
TYPES = (torch.float16, torch.bfloat16)
TOLERANCE = 0.02  # of values of standard deviation 1, in bf16


@dataclass
class Written:
    """How many slots of each row are written, with where rows begin; all int32."""

    used_B: torch.Tensor
    queries_B: torch.Tensor  # (B + 1): 0, 1, 2, ...
    keys_B: torch.Tensor  # (B + 1): 0, S, 2 S, ...
    most: int  # slots of a row that may be written


def read(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    written: Written,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Return attention of query (B, H, 1, D) to key and value (B, K, S, D): (B, H, 1, D).

    The memory of key and value is (B, S, K, D). Each query sees `window` tokens, itself included.
    """
    keys, values = (x.transpose(1, 2).flatten(0, 1) for x in (key, value))
    result = varlen_attn(
        query.squeeze(2),
        keys,
        values,
        written.queries_B,
        written.keys_B,
        1,
        written.most,
        scale=scaling,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
        seqused_k=written.used_B,
        num_splits=1,
    )
    assert isinstance(result, torch.Tensor)
    return result[:, :, None]


def can_read(query: torch.Tensor, key: torch.Tensor, scaling, window) -> bool:
    """Return whether `read` takes the place of masked attention for these shapes."""
    if query.device.type not in DEVICES or query.dtype not in TYPES:
        return False
    shape = query.shape[1], key.shape[1], query.shape[3]
    return why_not(query.device, query.dtype, shape, scaling, window) is None


@functools.cache
def why_not(device: torch.device, dtype: torch.dtype, shape, scaling, window) -> str | None:
    """Return why `read` cannot be used, or None. `shape` is (H, K, D). The log has the reason."""
    heads, shared, width = shape
    slots, lengths = 384, [0, 1, 127, 128, 200, 383]
    numbers = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=numbers).to(device, dtype)

    query = normal(len(lengths), heads, 1, width)
    key, value = (normal(len(lengths), slots, shared, width).transpose(1, 2) for _ in range(2))
    lengths_B1 = torch.tensor(lengths, device=device)[:, None]
    ages_BS = lengths_B1 - torch.arange(slots, device=device)
    seen_BS = (ages_BS >= 0) & (ages_BS < (window or slots))
    added = torch.zeros_like(ages_BS, dtype=dtype).masked_fill_(~seen_BS, -torch.inf)
    keys, values = (x.repeat_interleave(heads // shared, 1) for x in (key, value))
    expected = attend(query, keys, values, added[:, None, None], scaling, None)
    starts = torch.arange(len(lengths) + 1, dtype=torch.int32, device=device)
    try:
        written = Written(lengths_B1[:, 0].int() + 1, starts, starts * slots, slots)
        found = read(query, key, value, written, scaling, window)
        apart = float((found.float() - expected.float()).abs().max())
        reason = None if apart <= TOLERANCE else f"results differ by {apart:.2g}"
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
    if reason:
        log.info("attention to written slots alone is not used: %s", reason)
    return reason
