"""Search beams in steps of fixed shapes, so that a GPU captures each step once and replays it.

Slots of a prompt's row of the cache: `base` for the prompt without its last token, then one for
each beam and step, side by side. The first step reads the last token of the prompt. A mask assigns
slots to beams (`shared_prompt`). When beams change places, only the mask changes.

Shapes: P prompts, N beams of each, R = P N rows, S slots of the cache, T tokens, V vocabulary.
"""

import torch
from transformers import PreTrainedModel

from pollination.models.attention import attention
from pollination.models.shared_prompt import ATTENTION, Seen
from pollination.models.static_decoder import (
    BUCKET_TOKENS,
    Room,
    StaticDecoder,
    StaticLayer,
    kept_room,
)

BASE_TOKENS = 64  # a base is a multiple of it, so that prompts of other lengths take the same room


def base_of(longest: int) -> int:
    """Return the slots of prompts of at most `longest` tokens, without their last tokens."""
    return -(-(longest - 1) // BASE_TOKENS) * BASE_TOKENS


class BeamLayer(StaticLayer):
    """A StaticLayer with a row per prompt. A step writes the slots `slots_N` of all rows."""

    slots_N: torch.Tensor

    def write(self, room: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        beams, heads, width = len(self.slots_N), new.shape[1], new.shape[3]
        room = room[: len(new) // beams]
        room.index_copy_(1, self.slots_N, new.view(-1, beams, heads, width))
        return room


class BeamRoom(Room):
    """A Room whose rows are prompts with `beams` beams."""

    layer = BeamLayer

    def __init__(
        self, model: PreTrainedModel, prompts: int, base: int, beams: int, new_tokens: int
    ) -> None:
        super().__init__(model, prompts, base + beams * new_tokens)
        self.base, self.beams, device = base, beams, model.device
        self.beams_N = torch.arange(beams, device=device)
        self.of_prompts: list[torch.Tensor] = []  # further tensors with a row per prompt
        self.step_1 = torch.zeros(1, dtype=torch.long, device=device)
        self.input_B1 = torch.zeros((prompts * beams, 1), dtype=torch.long, device=device)
        shape = prompts, beams, self.capacity_tokens
        self.mask_PNS = torch.zeros(shape, dtype=model.dtype, device=device)
        # the position of a slot's token, less the length of its prompt if it is a new token
        self.depths_S = torch.where(
            self.slots_S < base, self.slots_S, (self.slots_S - base) // beams
        )


class StaticBeams(StaticDecoder):
    """A decoder of beams whose steps have fixed shapes. `lengths_B1` is without the last token."""

    room: BeamRoom

    def __init__(
        self, model: PreTrainedModel, prompts: list[list[int]], new_tokens: int, beams: int = 1
    ) -> None:
        self.beams = beams
        super().__init__(model, prompts, new_tokens)

    def new_cache(self):
        key = base_of(self.longest), self.beams, self.new_tokens
        self.room = kept_room(
            self.model,
            lambda room: isinstance(room, BeamRoom) and room.rows >= self.rows and room.key == key,
            lambda: BeamRoom(self.model, self.rows, *key),
        )
        self.room.key = key
        return self.room.cache

    def spread(self, beams: int) -> None:
        """Read the prompts, and let each have `beams` beams that are equal so far."""
        self.beams, self.steps = beams, 0
        self.cache = self.new_cache()
        self.resize(self.rows)
        room, device = self.room, self.model.device
        self._read(list(range(self.rows)), self.prompts)
        lengths = [len(prompt) - 1 for prompt in self.prompts]
        room.lengths_B1[: self.rows, 0] = torch.tensor(lengths, device=device)
        last = torch.tensor([[p[-1]] for p in self.prompts], device=device)
        room.input_B1[: self.rows * beams] = last.repeat_interleave(beams, 0)
        room.step_1.zero_()
        room.mask_PNS.fill_(-torch.inf)
        read_P1S = (room.slots_S[: room.base] < room.lengths_B1)[:, None]
        room.mask_PNS[:, :, : room.base].masked_fill_(read_P1S, 0)

    def forward(self, then=None) -> None:
        """Read the next token of each beam; then call `then(rows)` with the number of beams."""
        room = self.room
        slots = room.base + (self.steps + 1) * self.beams
        visible = min(-(-slots // BUCKET_TOKENS) * BUCKET_TOKENS, room.capacity_tokens)
        size = self.size

        def step() -> None:
            self._step(size, visible)
            if then is not None:
                then(size)
            room.step_1.add_(1)

        room.graphs.run((size, visible, then is not None), step)
        self.steps += 1

    def _step(self, size: int, visible: int) -> None:
        room, beams = self.room, self.beams
        slots_N = room.base + room.step_1 * beams + room.beams_N
        for layer in self.cache.layers:
            layer.slots_N, layer.visible = slots_N, visible
        own_PN1 = slots_N[None, :, None].expand(size, -1, -1)
        room.mask_PNS[:size].scatter_(2, own_PN1, 0.0)  # each beam sees its own token
        lengths_P1 = room.lengths_B1[:size]
        now_P1 = lengths_P1 + room.step_1
        slots_S = room.slots_S[:visible]
        places_PS = room.depths_S[:visible] + (slots_S >= room.base) * lengths_P1
        seen = Seen(room.mask_PNS[:size, :, :visible], (now_P1 - places_PS)[:, None])
        positions_R1 = now_P1.repeat_interleave(beams, 0, output_size=size * beams)
        with attention(self.model, ATTENTION):
            logits_RV = self._model(room.input_B1[: size * beams], positions_R1, seen=seen)[:, -1]
        room.write_logits(logits_RV, room.rows * beams)

    def logits(self) -> torch.Tensor:
        self.forward()
        assert self.room.logits_BV is not None
        return self.room.logits_BV[: self.rows * self.beams].clone()

    def read(self) -> torch.Tensor:
        self.spread(1)
        return self.logits()

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        if self.steps == 0:
            self.forward()  # the last tokens of the prompts
        self.room.input_B1[: len(tokens_B)] = tokens_B[:, None]
        return self.logits()

    def swap(self, rows_R: torch.Tensor) -> None:
        """Let row r continue row `rows[r]` of the same prompt."""
        mask_RS = self.room.mask_PNS[: len(rows_R) // self.beams].flatten(0, 1)
        mask_RS.copy_(mask_RS[rows_R])

    def select_prompts(self, prompts: torch.Tensor) -> None:
        """Keep the beams of these prompts."""
        room, count, beams = self.room, len(prompts), self.beams
        for layer in self.cache.layers:
            layer.keep(prompts, room.base + self.steps * beams)
        for held in (room.lengths_B1, room.mask_PNS, *room.of_prompts):
            held[:count] = held[prompts]
        input_PN = room.input_B1.view(-1, beams)
        input_PN[:count] = input_PN[prompts]
        self.resize(count)
