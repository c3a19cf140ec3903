"""Read a batch of prompts with a model, then decode token by token with a cache.

Shapes: B rows of the batch, T tokens, V vocabulary.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pollination.models.limits import context_limit

KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)  # all that such a layer holds


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, written in place. Transformers copies them at every token."""

    def __init__(self, capacity_tokens: int) -> None:
        super().__init__()
        self.capacity_tokens = capacity_tokens

    def _hold(self, room: list[torch.Tensor], tokens: int) -> None:
        self.room = room  # keys and values, each (B, heads, capacity, head width)
        keys, values = room
        self.keys, self.values = keys[:, :, :tokens], values[:, :, :tokens]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *_, **__
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.get_seq_length()
        stop = start + keys.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self.room = [
                x.new_zeros(*x.shape[:2], self.capacity_tokens, x.shape[3]) for x in (keys, values)
            ]
        for room, new in zip(self.room, (keys, values), strict=True):
            room[:, :, start:stop] = new
        self._hold(self.room, stop)
        return self.keys, self.values

    def grow(self, capacity_tokens: int) -> None:
        """Extend the room to `capacity_tokens` tokens."""
        self.capacity_tokens, tokens = capacity_tokens, self.get_seq_length()
        room = [
            functional.pad(part, (0, 0, 0, capacity_tokens - part.shape[2])) for part in self.room
        ]
        self._hold(room, tokens)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        tokens = self.get_seq_length()
        rooms = []
        for room in self.room:
            rooms.append(room.new_zeros(len(indices), *room.shape[1:]))
            rooms[-1][:, :, :tokens] = room[indices, :, :tokens]
        self._hold(rooms, tokens)

    def swap(self, moved: torch.Tensor, rows: torch.Tensor, start: int) -> None:
        """Copy keys and values from token `start` onwards, from rows `rows` to rows `moved`."""
        tokens = self.get_seq_length()
        for room in self.room:
            room[moved, :, start:tokens] = room[rows, :, start:tokens]


def cache_of(model: PreTrainedModel, layer: Callable[[], DynamicLayer]) -> DynamicCache:
    """Return a cache with layers of another kind.

    TypeError: the model's cache holds more than keys and values.
    """
    cache = DynamicCache(config=model.config)
    for own in cache.layers:
        if type(own) not in KEYS_AND_VALUES:
            raise TypeError(f"its cache has a {type(own).__name__}")
    cache.layers = [layer() for _ in cache.layers]
    return cache


class Rows:
    """The tokens of a batch of rows. Each prompt has one row, or several beams side by side."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> None:
        self.model, self.new_tokens = model.eval(), new_tokens
        self.longest = max(map(len, prompts))
        pads = [self.longest - len(prompt) for prompt in prompts]
        # the prompt's first token is the padding: masked, and not new to the repetition penalty
        self.tokens_BT = torch.tensor(
            [[p[0]] * n + p for p, n in zip(prompts, pads, strict=True)], device=model.device
        )
        self.pads_B1 = torch.tensor(pads, device=model.device)[:, None]

    def spread(self, beams: int) -> None:
        """Turn the one row per prompt into `beams` equal rows per prompt, side by side."""
        self.beams = beams
        prompts = torch.arange(len(self.tokens_BT), device=self.tokens_BT.device)
        self.select(prompts.repeat_interleave(beams))

    def select_prompts(self, prompts: torch.Tensor) -> None:
        """Keep the beams of these prompts."""
        beams_N = torch.arange(self.beams, device=prompts.device)
        self.select((prompts[:, None] * self.beams + beams_N).flatten())

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order. A row may occur several times."""
        self.tokens_BT, self.pads_B1 = self.tokens_BT[rows], self.pads_B1[rows]

    def swap(self, rows: torch.Tensor) -> None:
        """Let row b continue row `rows[b]` of the same prompt. Copy the tokens after the prompt."""
        self.tokens_BT = self.tokens_BT[rows]


class Decoder(Rows):
    """A model and its cache over a batch of prompts, left-padded to one length.

    The cache is transformers' own.
    ValueError: a prompt and `new_tokens` together exceed the model's positions.
    """

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> None:
        super().__init__(model, prompts, new_tokens)
        context = context_limit(model.config)
        if context and self.longest + new_tokens > context:
            raise ValueError(
                f"a prompt of {self.longest} tokens and max_new_tokens {new_tokens} exceed the "
                f"model's context of {context} tokens; allowed: a sum of at most {context}. Lower "
                "max_prompt_tokens or max_new_tokens"
            )
        accepted = inspect.signature(model.forward).parameters
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.takes_positions = "position_ids" in accepted
        self.cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self.padded = bool(self.pads_B1.any())
        self.extra: dict = {}  # further arguments of a forward pass
        slots_T = torch.arange(self.longest + new_tokens, device=model.device)
        self.mask_BT = (slots_T >= self.pads_B1).long()
        self.cache: Any = self.new_cache()

    def new_cache(self) -> DynamicCache | None:
        return DynamicCache(config=self.model.config)

    def _forward(self, tokens_BT: torch.Tensor, start: int) -> torch.Tensor:
        stop = start + tokens_BT.shape[1]
        positions = {}
        if self.takes_positions:
            slots_T = torch.arange(start, stop, device=tokens_BT.device)
            positions["position_ids"] = (slots_T - self.pads_B1).clamp(min=0)
        logits = self.model(
            input_ids=tokens_BT,
            attention_mask=self.mask_BT[:, :stop] if self.padded else None,
            use_cache=True,
            **{self.cache_name: self.cache},
            **positions,
            **self.last_only,
            **self.extra,
        ).logits
        return logits[:, -1].float()

    def read(self) -> torch.Tensor:
        """Read the prompts. Return the logits (B, V) of the first new token."""
        return self._forward(self.tokens_BT, 0)

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Append tokens (B,), one to each row. Return the logits (B, V) of the next token."""
        self.tokens_BT = torch.cat([self.tokens_BT, tokens_B[:, None]], 1)
        return self._forward(tokens_B[:, None], self.tokens_BT.shape[1] - 1)

    def select(self, rows: torch.Tensor) -> None:
        super().select(rows)
        self.mask_BT = self.mask_BT[rows]
        self.select_cache(rows)

    def select_cache(self, rows: torch.Tensor) -> None:
        self.cache.reorder_cache(rows)

    def swap(self, rows: torch.Tensor) -> None:
        super().swap(rows)
        self.cache.reorder_cache(rows)


class InPlaceDecoder(Decoder):
    """A Decoder that writes keys and values in place, those of sliding windows too.

    TypeError: the model's cache holds more than keys and values.
    """

    layer = PreallocatedLayer

    def new_cache(self) -> DynamicCache:
        return cache_of(self.model, lambda: self.layer(self.longest + self.new_tokens))

    def select_cache(self, rows: torch.Tensor) -> None:
        self.cache.batch_select_indices(rows)

    def swap(self, rows: torch.Tensor) -> None:
        Rows.swap(self, rows)
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        for layer in self.cache.layers:
            layer.swap(moved, rows[moved], self.longest)
