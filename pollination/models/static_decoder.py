"""Decode with fixed shapes, so that a GPU captures each step once and replays it.

Row b's token s is always in slot s of row b, so no row is padded and each has a length of its own.
A row whose text has ended takes the next prompt, whatever the other rows do. Attention reads whole
buckets of slots; a mask hides those that a row has not written. All tensors of a step stay where
they are: a `Room` holds them, and the process keeps the room of its model, with the graphs.

Shapes: B rows, T tokens, S slots that a step reads, V vocabulary.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from pollination.models.attention import attention
from pollination.models.decoder import Decoder, cache_of
from pollination.models.graphs import Graphs
from pollination.models.shared_prompt import ATTENTION, Seen
from pollination.models.written import Written

# A step reads a multiple of this. Larger buckets waste reads, smaller ones need more captures.
BUCKET_TOKENS = 256
ROOM_SHARE = 0.8  # of the free memory; the rest is for reading prompts
ROUND = 32  # rows
READ_TOKENS = 16_384  # of prompts, in one forward pass


class StaticLayer(DynamicLayer):
    """Keys and values of one layer, (rows, capacity, heads, head width).

    Attention gets them as (rows, heads, capacity, head width), and reads `visible` slots at most.
    """

    def __init__(self, rows: int, capacity_tokens: int) -> None:
        super().__init__()
        self.shape = rows, capacity_tokens
        self.places_B: torch.Tensor | None = None  # rows that read prompts; None in a step
        self.lengths_B1: torch.Tensor | None = None  # slots that the rows of a step write
        self.visible = 0

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *_, **__
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            rows, capacity = self.shape
            self.room = [
                x.new_zeros(rows, capacity, x.shape[1], x.shape[3]) for x in (keys, values)
            ]
        if self.places_B is not None:
            for room, new in zip(self.room, (keys, values), strict=True):
                room[self.places_B, : new.shape[2]] = new.transpose(1, 2)
            return keys, values
        written = map(self.write, self.room, (keys, values))
        seen_keys, seen_values = (room.transpose(1, 2) for room in written)
        return seen_keys, seen_values

    def write(self, room: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Write new keys or values (B, heads, 1, head width). Return the rows of the room."""
        assert self.lengths_B1 is not None
        new_B1KD, room = new.transpose(1, 2), room[: len(new)]
        room.scatter_(1, self.lengths_B1[:, :, None, None].expand_as(new_B1KD), new_B1KD)
        return room

    def get_seq_length(self) -> int:
        return 0 if self.places_B is not None else self.visible

    def keep(self, places_B: torch.Tensor, tokens: int) -> None:
        """Move the first `tokens` tokens of these rows to the first rows."""
        for room in self.room if self.is_initialized else ():
            room[: len(places_B), :tokens] = room[places_B, :tokens]


class Room:
    """All tensors of a model's steps, and their graphs."""

    layer = StaticLayer

    def __init__(self, model: PreTrainedModel, rows: int, capacity_tokens: int) -> None:
        self.rows, self.addresses = rows, addresses(model)
        self.capacity_tokens = -(-capacity_tokens // BUCKET_TOKENS) * BUCKET_TOKENS
        self.cache = cache_of(model, lambda: self.layer(rows, self.capacity_tokens))
        self.graphs = Graphs(model.device)
        self.slots_S = torch.arange(self.capacity_tokens, device=model.device)
        self.queries = torch.arange(rows + 1, dtype=torch.int32, device=model.device)
        self.starts = self.queries * self.capacity_tokens  # of rows in the cache
        # of each row: the number of tokens in the cache, and the token that the next step reads
        self.lengths_B1 = torch.zeros((rows, 1), dtype=torch.long, device=model.device)
        self.input_B1 = torch.zeros_like(self.lengths_B1)
        self.logits_BV: torch.Tensor | None = None  # float32; the result of a step
        self.key: tuple = ()
        self.kept: dict = {}  # what belongs to a way to choose tokens

    def write_logits(self, logits_BV: torch.Tensor, rows: int) -> None:
        """Write the first of `rows` rows of logits."""
        if self.logits_BV is None:
            shape = rows, logits_BV.shape[1]
            self.logits_BV = logits_BV.new_empty(shape, dtype=torch.float32)
        self.logits_BV[: len(logits_BV)].copy_(logits_BV)

    def sizes(self) -> list[int]:
        """Return the numbers of rows that a step may have, in descending order: halves."""
        return [self.rows >> n for n in range(self.rows.bit_length())]


_rooms: WeakKeyDictionary[PreTrainedModel, Room] = WeakKeyDictionary()
_fitting: WeakKeyDictionary[PreTrainedModel, tuple[int, int, int]] = WeakKeyDictionary()


def addresses(model: PreTrainedModel) -> list[int]:
    """Return where the weights lie: a graph reads them there."""
    return [parameter.data_ptr() for parameter in model.parameters()]


def room_of(model: PreTrainedModel, rows: int, capacity_tokens: int) -> Room:
    """Return a room of `rows` rows at least. The process keeps that of one model."""
    return kept_room(
        model,
        lambda room: (
            type(room) is Room and room.rows >= rows and room.capacity_tokens >= capacity_tokens
        ),
        lambda: Room(model, rows, capacity_tokens),
    )


def kept_room(
    model: PreTrainedModel, fits: Callable[[Room], bool], new: Callable[[], Room]
) -> Room:
    """Return the model's room if it fits, else a new one. The process keeps one room."""
    room = _rooms.get(model)
    if room is None or room.addresses != addresses(model) or not fits(room):
        room = None
        _rooms.clear()  # frees its memory first
        room = _rooms[model] = new()
    return room


def release() -> None:
    """Free the room that the process keeps, and its graphs. Count anew what fits."""
    _rooms.clear()
    _fitting.clear()


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that new tensors can take, or None on a CPU."""
    if device.type != "cuda":
        return None
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def fitting_rows(
    model: PreTrainedModel, tokens: int, other_bytes: int, most: int, free=free_bytes
) -> int | None:
    """Return how many rows of `tokens` tokens fit into free memory, up to `most`; None on a CPU.

    A row takes its keys and values, and `other_bytes`. Longer rows of the model are counted anew.
    """
    known_tokens, known_bytes, rows = _fitting.get(model, (0, 0, 0))
    if known_tokens >= tokens and known_bytes == other_bytes:
        return rows
    if free(model.device) is None:
        return None
    _rooms.clear()
    available = free(model.device) or 0
    cache = cache_of(model, DynamicLayer)
    one_token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    model(input_ids=one_token, past_key_values=cache, use_cache=True)
    held = [x for layer in cache.layers for x in (layer.keys, layer.values)]
    slots = -(-tokens // BUCKET_TOKENS) * BUCKET_TOKENS
    row_bytes = other_bytes + slots * sum(x.numel() * x.itemsize for x in held)
    rows = int(ROOM_SHARE * available // row_bytes)
    rows = max(1, min(most, rows if rows < ROUND else rows // ROUND * ROUND))
    _fitting[model] = slots, other_bytes, rows
    return rows


class StaticDecoder(Decoder):
    """A Decoder whose steps have fixed shapes. It may have fewer rows than prompts."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: list[list[int]],
        new_tokens: int,
        rows: int | None = None,
    ) -> None:
        self.rows = len(prompts) if rows is None else min(rows, len(prompts))
        super().__init__(model, prompts, new_tokens)
        self.prompts = prompts
        self.lengths = np.zeros(self.room.rows, dtype=int)  # what lengths_B1 holds at most
        self.resize(self.rows)

    def new_cache(self):
        self.room = room_of(self.model, self.rows, self.longest + self.new_tokens)
        return self.room.cache

    def resize(self, rows: int) -> None:
        """Let steps have the least size that holds `rows` rows."""
        self.rows = rows
        self.size = min(size for size in self.room.sizes() if size >= rows)
        self.lengths[rows:] = 0

    def fits_less(self, rows: int) -> bool:
        """Return whether a smaller step holds so many rows."""
        return any(rows <= size < self.size for size in self.room.sizes())

    def _read(self, places: list[int], prompts: list[list[int]]) -> None:
        """Write keys and values of prompts, without their last tokens, into rows."""
        device = self.model.device
        read = [(place, ids[:-1]) for place, ids in zip(places, prompts, strict=True) if ids[1:]]
        at_once = max(1, READ_TOKENS // max(map(len, prompts)))
        for start in range(0, len(read), at_once):
            chosen = read[start : start + at_once]
            width = max(len(ids) for _, ids in chosen)
            # later tokens change nothing, and the row overwrites their slots before it sees them
            padded = [ids + [0] * (width - len(ids)) for _, ids in chosen]
            for layer in self.cache.layers:
                layer.places_B = torch.tensor([place for place, _ in chosen], device=device)
            self._model(
                torch.tensor(padded, device=device), torch.arange(width, device=device)[None]
            )
        for layer in self.cache.layers:
            layer.places_B = None

    def place(self, places: list[int], prompts: list[list[int]]) -> None:
        """Let rows begin with prompts. The next step reads the last token of each."""
        self._read(places, prompts)
        device = self.model.device
        lengths = [len(prompt) - 1 for prompt in prompts]
        where_B = torch.tensor(places, device=device)
        self.lengths[places] = lengths
        self.room.lengths_B1[where_B, 0] = torch.tensor(lengths, device=device)
        self.room.input_B1[where_B, 0] = torch.tensor([p[-1] for p in prompts], device=device)

    def _model(self, tokens_BT: torch.Tensor, positions_BT: torch.Tensor, **extra) -> torch.Tensor:
        positions = {"position_ids": positions_BT} if self.takes_positions else {}
        return self.model(
            input_ids=tokens_BT,
            use_cache=True,
            **{self.cache_name: self.cache},
            **positions,
            **self.last_only,
            **extra,
        ).logits

    def forward(self) -> None:
        """Read the next token of each row. The room then has the logits of the token after it."""
        tokens = int(self.lengths[: self.size].max()) + 1
        visible = -(-tokens // BUCKET_TOKENS) * BUCKET_TOKENS
        self.room.graphs.run((self.size, visible), lambda: self._step(self.size, visible))

    def _step(self, size: int, visible: int) -> None:
        room = self.room
        lengths_B1 = room.lengths_B1[:size]
        for layer in self.cache.layers:
            layer.lengths_B1, layer.visible = lengths_B1, visible
        ages_BS = lengths_B1 - room.slots_S[:visible]
        mask_BS = torch.zeros_like(ages_BS, dtype=self.model.dtype)
        mask_BS.masked_fill_(ages_BS < 0, -torch.inf)
        used_B = lengths_B1[:, 0].int() + 1
        written = Written(used_B, room.queries[: size + 1], room.starts[: size + 1], visible)
        seen = Seen(mask_BS[:, None], ages_BS[:, None], written)
        with attention(self.model, ATTENTION):
            logits_BV = self._model(room.input_B1[:size], lengths_B1, seen=seen)[:, -1]
        room.write_logits(logits_BV, room.rows)

    def logits(self) -> torch.Tensor:
        self.forward()
        assert self.room.logits_BV is not None
        return self.room.logits_BV[: self.rows].clone()

    def read(self) -> torch.Tensor:
        self.place(list(range(self.rows)), self.prompts[: self.rows])
        return self.logits()

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        self.room.input_B1[: self.rows] = tokens_B[:, None]
        self.room.lengths_B1[: self.rows] += 1
        self.lengths[: self.rows] += 1
        return self.logits()

    def select(self, rows: torch.Tensor) -> None:
        places, tokens = rows.tolist(), int(self.lengths.max()) + 1
        for layer in self.cache.layers:
            layer.keep(rows, tokens)
        for held in (self.room.lengths_B1, self.room.input_B1):
            held[: len(rows)] = held[rows]
        self.lengths[: len(rows)] = self.lengths[places]
        self.resize(len(rows))
