"""Read a batch of prompts with a model, then decode token by token with a cache in place.

On a GPU, steps have fixed shapes and run as one CUDA graph, so no layer is launched or awaited on
its own. Attention then reads whole buckets of the cache. A mask hides the slots that are not
written yet.

Shapes: B rows of the batch, T tokens, V vocabulary, K slots of the cache that a step may see.
"""

import inspect

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from pollination.models.families import PLAIN_FAMILIES

STATIC_DEVICES = ("cuda",)  # on a CPU a graph gains nothing, and hidden slots cost time
# A step reads a multiple of this. Larger buckets waste reads, smaller ones need more captures.
BUCKET_TOKENS = 256


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


class Decoder:
    """A model and its key-value cache over a batch of prompts, left-padded to one length.

    ValueError: a prompt and `new_tokens` together exceed the model's positions.
    """

    layer = PreallocatedLayer

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> None:
        self.model = model.eval()
        self.longest = max(map(len, prompts))
        context = getattr(model.config, "max_position_embeddings", None)
        if context and self.longest + new_tokens > context:
            raise ValueError(
                f"a prompt of {self.longest} tokens and max_new_tokens {new_tokens} exceed the "
                f"model's context of {context} tokens; allowed: a sum of at most {context}. Lower "
                "max_prompt_tokens or max_new_tokens"
            )
        accepted = inspect.signature(model.forward).parameters
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.takes_positions = "position_ids" in accepted
        pads = [self.longest - len(prompt) for prompt in prompts]
        # the prompt's first token is the padding: masked, and not new to the repetition penalty
        self.tokens_BT = torch.tensor(
            [[p[0]] * n + p for p, n in zip(prompts, pads, strict=True)], device=model.device
        )
        self.pads_B1 = torch.tensor(pads, device=model.device)[:, None]
        self.padded = any(pads)
        self.new_tokens = new_tokens
        self.extra: dict = {}  # further arguments of a forward pass
        slots_T = torch.arange(self.longest + new_tokens, device=model.device)
        self.mask_BT = (slots_T >= self.pads_B1).long()
        self.cache = DynamicCache(config=model.config)
        self.in_place = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if self.in_place:
            self.cache.layers = [self.layer(self.longest + new_tokens) for _ in self.cache.layers]

    def _forward(self, tokens_BT: torch.Tensor, start: int) -> torch.Tensor:
        stop = start + tokens_BT.shape[1]
        positions = {}
        if self.takes_positions:
            slots_T = torch.arange(start, stop, device=tokens_BT.device)
            positions["position_ids"] = (slots_T - self.pads_B1).clamp(min=0)
        logits = self.model(
            input_ids=tokens_BT,
            attention_mask=self.mask_BT[:, :stop] if self.padded else None,
            past_key_values=self.cache,
            use_cache=True,
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
        """Keep these rows, in this order. A row may occur several times."""
        self.cache.batch_select_indices(rows)
        self.tokens_BT, self.pads_B1 = self.tokens_BT[rows], self.pads_B1[rows]
        self.mask_BT = self.mask_BT[rows]

    def spread(self, beams: int) -> None:
        """Turn the one row per prompt into `beams` equal rows per prompt, side by side."""
        self.beams = beams
        prompts = torch.arange(len(self.tokens_BT), device=self.tokens_BT.device)
        self.select(prompts.repeat_interleave(beams))

    def select_prompts(self, prompts: torch.Tensor) -> None:
        """Keep the beams of these prompts."""
        beams_N = torch.arange(self.beams, device=prompts.device)
        self.select((prompts[:, None] * self.beams + beams_N).flatten())

    def swap(self, rows: torch.Tensor) -> None:
        """Let row b continue row `rows[b]` of the same prompt. Copy the tokens after the prompt."""
        self.tokens_BT = self.tokens_BT[rows]
        if self.in_place:
            moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
            for layer in self.cache.layers:
                layer.swap(moved, rows[moved], self.longest)
        else:
            self.cache.reorder_cache(rows)


class StaticLayer(PreallocatedLayer):
    """One layer's keys and values. Each step reads them up to `visible` and writes at `slot_1`.

    `slot_1` (1,) lies on the device, so that a captured graph can read it.
    """

    def __init__(self, capacity_tokens: int) -> None:
        super().__init__(-(-capacity_tokens // BUCKET_TOKENS) * BUCKET_TOKENS)
        self.slot_1: torch.Tensor | None = None  # None while the prompts are read
        self.visible = 0

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *_, **__
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.slot_1 is None:
            return super().update(keys, values)
        for room, new in zip(self.room, (keys, values), strict=True):
            room.index_copy_(2, self.slot_1, new)
        self._hold(self.room, self.visible)
        return self.keys, self.values


class StaticDecoder(Decoder):
    """A Decoder of fixed shapes. A GPU captures the step once per bucket, and when rows leave."""

    layer = StaticLayer

    def read(self) -> torch.Tensor:
        logits_BV = super().read()
        capacity = self.cache.layers[0].capacity_tokens
        self.slots_K = torch.arange(capacity, device=logits_BV.device)
        self.slot_1 = torch.zeros(1, dtype=torch.long, device=logits_BV.device)
        self._renew()
        return logits_BV

    def _renew(self) -> None:
        self.input_B1 = torch.zeros_like(self.pads_B1)
        self.captured: tuple[int, torch.cuda.CUDAGraph, torch.Tensor] | None = None

    def select(self, rows: torch.Tensor) -> None:
        super().select(rows)
        self._renew()

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        self.tokens_BT = torch.cat([self.tokens_BT, tokens_B[:, None]], 1)
        tokens = self.tokens_BT.shape[1]
        visible = -(-tokens // BUCKET_TOKENS) * BUCKET_TOKENS
        self.slot_1.fill_(tokens - 1)
        self.input_B1.copy_(tokens_B[:, None])
        if tokens_B.device.type != "cuda":
            return self._static_forward(visible)
        if self.captured is None or self.captured[0] != visible:
            self.captured = visible, *self._capture(visible)
        _, graph, logits_BV = self.captured
        graph.replay()
        return logits_BV

    def _static_forward(self, visible: int) -> torch.Tensor:
        for layer in self.cache.layers:
            layer.slot_1, layer.visible = self.slot_1, visible
        slots_K = self.slots_K[:visible]
        hidden_BK = (slots_K < self.pads_B1) | (slots_K > self.slot_1)
        mask_BK = torch.zeros(
            hidden_BK.shape, dtype=self.model.dtype, device=hidden_BK.device
        ).masked_fill_(hidden_BK, -torch.inf)
        logits = self.model(
            input_ids=self.input_B1,
            attention_mask=mask_BK[:, None, None],
            position_ids=self.slot_1 - self.pads_B1,
            past_key_values=self.cache,
            use_cache=True,
            **self.last_only,
        ).logits
        return logits[:, -1].float()

    def _capture(self, visible: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Capture a step. Return its graph and logits (B, V).

        A repeated step writes the same slot.
        """
        self.captured = None  # frees its memory for the new graph
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # sets up libraries, which no graph may hold
            self._static_forward(visible)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits_BV = self._static_forward(visible)
        return graph, logits_BV


def decoder_of(model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> Decoder:
    """Return the decoder for sampling: with fixed shapes on a GPU if the architecture allows them.

    ValueError as in Decoder.
    """
    config = model.config
    known = config.model_type in PLAIN_FAMILIES and config._attn_implementation == "sdpa"
    kind = StaticDecoder if known and model.device.type in STATIC_DEVICES else Decoder
    return kind(model, prompts, new_tokens)
