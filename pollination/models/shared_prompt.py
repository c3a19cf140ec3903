"""Decode beams that share one prompt. Its keys and values are stored and read once and never move.

All tokens of a prompt's beams lie in one row of the cache, behind the prompt, step by step. A mask
assigns slots to beams. When beams change places, only the mask changes. The module replaces
attention (transformers' attention interface): a prompt's beams are the queries of one call.

Shapes: P prompts, N beams of each, R = P N rows, H heads, K heads of keys, G = H / K heads that
share a head of keys, D head width, S slots of the cache.
"""

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from pollination.models.decoder import Decoder, PreallocatedLayer
from pollination.models.families import PLAIN_FAMILIES, attention

ATTENTION = "pollination_shared_prompt"


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


class SharedPromptDecoder(Decoder):
    """A Decoder that continues each prompt as several beams."""

    layer = SharedLayer

    def spread(self, beams: int) -> None:
        self.beams = beams
        slots = self.longest + self.new_tokens * beams
        hidden_PS = torch.arange(self.longest, device=self.pads_B1.device) < self.pads_B1
        # added to the scores; a beam sees the prompt and its own tokens
        self.mask_PNS = torch.full(
            (len(hidden_PS), beams, slots),
            -torch.inf,
            dtype=self.model.dtype,
            device=hidden_PS.device,
        )
        self.mask_PNS[:, :, : self.longest] = 0
        self.mask_PNS[:, :, : self.longest].masked_fill_(hidden_PS[:, None], -torch.inf)
        rows = torch.arange(len(hidden_PS), device=hidden_PS.device).repeat_interleave(beams)
        self.tokens_BT, self.pads_B1 = self.tokens_BT[rows], self.pads_B1[rows]
        self.mask_BT = self.mask_BT[rows]
        self.padded = False  # from here on mask_PNS hides the padding
        for layer in self.cache.layers:
            layer.beams = beams
            layer.grow(slots)

    def select_prompts(self, prompts: torch.Tensor) -> None:
        beams_N = torch.arange(self.beams, device=prompts.device)
        rows = (prompts[:, None] * self.beams + beams_N).flatten()
        self.tokens_BT, self.pads_B1 = self.tokens_BT[rows], self.pads_B1[rows]
        self.mask_BT = self.mask_BT[rows]
        self.mask_PNS = self.mask_PNS[prompts]
        self.cache.batch_select_indices(prompts)

    def swap(self, rows: torch.Tensor) -> None:
        self.tokens_BT = self.tokens_BT[rows]
        self.mask_PNS = self.mask_PNS.flatten(0, 1)[rows].view_as(self.mask_PNS)

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        start = self.longest + (self.tokens_BT.shape[1] - self.longest) * self.beams
        own_NN = torch.eye(self.beams, dtype=torch.bool, device=tokens_B.device)
        self.mask_PNS[:, :, start : start + self.beams].masked_fill_(own_NN, 0)
        self.extra = {"seen_PNS": self.mask_PNS[:, :, : start + self.beams]}
        with attention(self.model, ATTENTION):
            return super().step(tokens_B)


def beam_decoder(model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> Decoder:
    """Return the decoder for beam search. Beams share prompts if only attention links tokens.

    ValueError as in Decoder.
    """
    kind = SharedPromptDecoder if model.config.model_type in PLAIN_FAMILIES else Decoder
    return kind(model, prompts, new_tokens)


def _attend(
    module, query, key, value, attention_mask, scaling=None, *, seen_PNS: torch.Tensor, **_
) -> tuple[torch.Tensor, None]:
    """Return one layer's attention for one new token of each row. Transformers calls it.

    query is (R, H, 1, D), key and value are (P, K, S, D). The result is (R, 1, H, D).
    """
    prompts, heads, _, width = key.shape
    beams, readers = len(query) // prompts, query.shape[1] // heads
    query_PKND = (
        query.view(prompts, beams, heads, readers, width)
        .transpose(1, 2)
        .reshape(prompts, heads, beams * readers, width)
    )
    mask_P1NS = seen_PNS.repeat_interleave(readers, 1)[:, None]
    result = functional.scaled_dot_product_attention(
        query_PKND, key, value, attn_mask=mask_P1NS, scale=scaling
    )
    result = result.view(prompts, heads, beams, readers, width).transpose(1, 2)
    return result.reshape(len(query), 1, heads * readers, width), None


AttentionInterface.register(ATTENTION, _attend)
