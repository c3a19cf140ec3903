"""Decode beams that share one prompt. Its keys and values are stored and read once and never move.

All tokens of a prompt's beams lie in one row of the cache, behind the prompt, step by step. A mask
assigns slots to beams. When beams change places, only the mask changes. The module replaces
attention (transformers' attention interface): a prompt's beams are the queries of one call.

Shapes: P prompts, N beams of each, R = P N rows, H heads, K heads of keys, G = H / K heads that
share a head of keys, D head width, S slots of the cache, V vocabulary.
"""

from dataclasses import dataclass

import torch
from transformers import AttentionInterface

from pollination.models.attention import attend, attention
from pollination.models.decoder import InPlaceDecoder, PreallocatedLayer, Rows
from pollination.models.written import Written, can_read, read

ATTENTION = "pollination_shared_prompt"


@dataclass
class Seen:
    """What the new token of each row sees.

    `mask_PNS` is added to the scores. `ages` (S) or (P, 1, S) is the number of tokens from a slot
    to the new token, for sliding windows.
    """

    mask_PNS: torch.Tensor
    ages: torch.Tensor
    written: Written | None = None  # of rows without beams


class SharedLayer(PreallocatedLayer):
    """One layer's keys and values, one row per prompt with its `beams` new tokens side by side."""

    beams = 1

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *_, **__
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.beams > 1:  # (R, K, 1, D) to (P, K, N, D)
            keys, values = (
                x.view(-1, self.beams, *x.shape[1:]).squeeze(3).transpose(1, 2)
                for x in (keys, values)
            )
        return super().update(keys, values)


class SharedPromptDecoder(InPlaceDecoder):
    """An InPlaceDecoder that continues each prompt as several beams."""

    layer = SharedLayer

    def spread(self, beams: int) -> None:
        self.beams = beams
        slots = self.longest + self.new_tokens * beams
        device = self.pads_B1.device
        hidden_PS = torch.arange(self.longest, device=device) < self.pads_B1
        # added to the scores; a beam sees the prompt and its own tokens
        self.mask_PNS = torch.full(
            (len(hidden_PS), beams, slots), -torch.inf, dtype=self.model.dtype, device=device
        )
        self.mask_PNS[:, :, : self.longest] = 0
        self.mask_PNS[:, :, : self.longest].masked_fill_(hidden_PS[:, None], -torch.inf)
        after_S = torch.arange(slots, device=device) - self.longest
        self.depths_S = self.longest + torch.where(after_S < 0, after_S, after_S // beams)
        rows = torch.arange(len(hidden_PS), device=device).repeat_interleave(beams)
        Rows.select(self, rows)
        self.mask_BT = self.mask_BT[rows]
        self.padded = False  # from here on mask_PNS hides the padding
        for layer in self.cache.layers:
            layer.beams = beams
            layer.grow(slots)

    def select_prompts(self, prompts: torch.Tensor) -> None:
        beams_N = torch.arange(self.beams, device=prompts.device)
        rows = (prompts[:, None] * self.beams + beams_N).flatten()
        Rows.select(self, rows)
        self.mask_BT = self.mask_BT[rows]
        self.mask_PNS = self.mask_PNS[prompts]
        self.cache.batch_select_indices(prompts)

    def swap(self, rows: torch.Tensor) -> None:
        Rows.swap(self, rows)
        self.mask_PNS = self.mask_PNS.flatten(0, 1)[rows].view_as(self.mask_PNS)

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        depth = self.tokens_BT.shape[1]
        start = self.longest + (depth - self.longest) * self.beams
        own_NN = torch.eye(self.beams, dtype=torch.bool, device=tokens_B.device)
        self.mask_PNS[:, :, start : start + self.beams].masked_fill_(own_NN, 0)
        stop = start + self.beams
        self.extra = {"seen": Seen(self.mask_PNS[:, :, :stop], depth - self.depths_S[:stop])}
        with attention(self.model, ATTENTION):
            return super().step(tokens_B)


def _attend(
    module,
    query,
    key,
    value,
    attention_mask,
    scaling=None,
    sliding_window=None,
    softcap=None,
    *,
    seen: Seen,
    **_,
) -> tuple[torch.Tensor, None]:
    """Return one layer's attention for one new token of each row. Transformers calls it.

    query is (R, H, 1, D), key and value are (P, K, S, D). The result is (R, 1, H, D).
    """
    written = seen.written if softcap is None else None
    if written is not None and can_read(query, key, scaling, sliding_window):
        return read(query, key, value, written, scaling, sliding_window).transpose(1, 2), None
    slots = seen.mask_PNS.shape[2]
    key, value = key[:, :, :slots], value[:, :, :slots]
    prompts, heads, _, width = key.shape
    beams, readers = len(query) // prompts, query.shape[1] // heads
    query_PKND = (
        query.view(prompts, beams, heads, readers, width)
        .transpose(1, 2)
        .reshape(prompts, heads, beams * readers, width)
    )
    mask_PNS = seen.mask_PNS
    if sliding_window is not None:
        mask_PNS = mask_PNS.masked_fill(seen.ages >= sliding_window, -torch.inf)
    # a view, unless there are both beams and shared heads
    added_P1NS = mask_PNS[:, :, None].expand(-1, -1, readers, -1).flatten(1, 2)[:, None]
    result = attend(query_PKND, key, value, added_P1NS, scaling, softcap)
    width = result.shape[-1]
    result = result.view(prompts, heads, beams, readers, width).transpose(1, 2)
    return result.reshape(len(query), 1, heads * readers, width), None


AttentionInterface.register(ATTENTION, _attend)
