"""Beams that share one prompt: its keys and values are kept and read once, not once a beam; each beam holds only what it wrote itself.

Attention is replaced (transformers' attention interface) while beams go on: a prompt's beams are queries of one product with the prompt's
keys, and one softmax runs over these and over the beam's own.

Shapes: P prompts, N beams of each, R = P N rows, H heads, K heads of keys, G = H / K that share one, D head width, T prompt tokens, t own tokens.
"""

from dataclasses import dataclass

import torch
from transformers import AttentionInterface, PreTrainedModel

from pollination.decoder import Decoder
from pollination.models import PLAIN_FAMILIES, attention

ATTENTION = "pollination_shared_prompt"


@dataclass
class Prompts:
    """What the beams share: each layer's keys and values (P, K, T, D), and the mask (P, 1, 1, T) added to the scores, if any is padded."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    mask_P11T: torch.Tensor | None

    def select(self, prompts: torch.Tensor) -> "Prompts":
        mask = None if self.mask_P11T is None else self.mask_P11T[prompts]
        return Prompts([(keys[prompts], values[prompts]) for keys, values in self.layers], mask)


class SharedPromptDecoder(Decoder):
    """A Decoder whose prompts, once read, are spread over beams without a copy of their keys and values."""

    def spread(self, beams: int) -> None:
        self.beams = beams
        layers = [(layer.keys.contiguous(), layer.values.contiguous()) for layer in self.cache.layers]
        mask = None
        if self.padded:
            hidden_PT = torch.arange(self.longest, device=self.pads_B1.device) < self.pads_B1
            mask = torch.zeros(hidden_PT.shape, dtype=layers[0][0].dtype, device=hidden_PT.device).masked_fill_(hidden_PT, -torch.inf)[
                :, None, None
            ]
        self.prompts, self.padded = Prompts(layers, mask), False
        rows = torch.arange(len(self.tokens_BT), device=self.tokens_BT.device).repeat_interleave(beams)
        self.tokens_BT, self.pads_B1, self.mask_BT = self.tokens_BT[rows], self.pads_B1[rows], self.mask_BT[rows]
        self.cache.layers = [self.layer(layer.capacity_tokens - self.longest) for layer in self.cache.layers]
        for layer, held in zip(self.cache.layers, layers, strict=True):
            layer.allocate(len(rows), *held)
        self.own_start = 0

    def select_prompts(self, prompts: torch.Tensor) -> None:
        self.prompts = self.prompts.select(prompts)
        super().select_prompts(prompts)

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        self.extra = {"shared": self.prompts}
        with attention(self.model, ATTENTION):
            return super().step(tokens_B)


def beam_decoder(model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> Decoder:
    """The decoder for beam search: prompts are shared where the architecture is known to look across tokens in attention alone."""
    return (SharedPromptDecoder if model.config.model_type in PLAIN_FAMILIES else Decoder)(model, prompts, new_tokens)


def _attend(module, query, key, value, attention_mask, scaling=None, *, shared: Prompts, **_) -> tuple[torch.Tensor, None]:
    """One layer's attention for one new token of each row, called by transformers with query (R, H, 1, D); the result is (R, 1, H, D)."""
    keys_PKTD, values_PKTD = shared.layers[module.layer_idx]
    prompts, heads, tokens, width = keys_PKTD.shape
    beams, readers = len(query) // prompts, query.shape[1] // heads

    def by_prompt(x_RKGx: torch.Tensor) -> torch.Tensor:  # to (P, K, N G, x)
        return x_RKGx.view(prompts, beams, heads, readers, -1).transpose(1, 2).reshape(prompts, heads, beams * readers, -1)

    def by_row(x_PKNGx: torch.Tensor) -> torch.Tensor:  # and back
        return x_PKNGx.reshape(prompts, heads, beams, readers, -1).transpose(1, 2).reshape(prompts * beams, heads, readers, -1)

    query_RKGD = query.reshape(len(query), heads, readers, width) * (width**-0.5 if scaling is None else scaling)
    before = by_prompt(query_RKGD) @ keys_PKTD.transpose(-1, -2)
    if shared.mask_P11T is not None:
        before = before + shared.mask_P11T
    after = by_prompt(query_RKGD @ key.transpose(-1, -2))
    weights = torch.cat([before, after], -1).softmax(-1)
    result = by_row(weights[..., :tokens] @ values_PKTD) + by_row(weights[..., tokens:]) @ value
    return result.reshape(len(query), 1, heads * readers, width), None


AttentionInterface.register(ATTENTION, _attend)
