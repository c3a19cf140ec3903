"""Write a queue of texts in steps of fixed shapes. A row whose text ends takes the next prompt.

What a row writes depends on its seed and prompt alone. The host waits for the device only when it
checks which texts have ended; between checks it starts steps that are captured as CUDA graphs.

Shapes: B rows, T tokens, V vocabulary, N new tokens of a text.
"""

from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from pollination.core.job import Stopped
from pollination.data.special import end_ids
from pollination.models.drawing import Decoding, cut_after, draw, fixed, forbid, penalise, row_keys
from pollination.models.graphs import Graphs
from pollination.models.limits import logit_rows
from pollination.models.paths import steps_are_fixed
from pollination.models.static_decoder import Room, StaticDecoder, fitting_rows

# Steps between checks for ended texts. On a GPU each check waits for the device.
CHECK_STEPS = {"cpu": 1, "cuda": 16}
FREE_SHARE = 1 / 16  # of the rows; so many read new prompts together
ROWS = 1024  # side by side at most
QUEUE = 2 * ROWS  # texts that are written, and saved for a resume, together
CHOICE_BYTES = 64  # for each logit, while tokens are chosen

Draw = Callable[[torch.Tensor, torch.Tensor, Decoding], tuple[torch.Tensor, torch.Tensor]]


class Choice:
    """Chooses the next token of each row of a room, and writes it down. It stays on the device."""

    def __init__(
        self,
        room: Room,
        decoding: Decoding,
        eos_id: int,
        ends: list[int],
        never: torch.Tensor | None,
        choose: Draw,
    ) -> None:
        self.room, self.decoding, self.eos_id, self.choose = room, decoding, eos_id, choose
        self.never, device = never, room.input_B1.device
        self.ends = torch.tensor(ends, device=device)
        shape = room.rows, decoding.max_new_tokens
        self.keys_BN = torch.zeros(shape, dtype=torch.long, device=device)
        self.written_BN = torch.zeros(shape, dtype=torch.long, device=device)
        self.count_B1 = torch.zeros((room.rows, 1), dtype=torch.long, device=device)
        self.done_B1 = torch.ones((room.rows, 1), dtype=torch.bool, device=device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)
        # one row for each row of the room
        self.held = [self.keys_BN, self.written_BN, self.count_B1, self.done_B1]
        if decoding.repetition_penalty != 1.0:
            # the text so far; unused slots repeat its first token, which changes no penalty
            self.text_BT = torch.zeros(
                (room.rows, room.capacity_tokens), dtype=torch.long, device=device
            )
            self.held.append(self.text_BT)
        # a draw of an extension may read numbers on the host, so it runs as it is
        self.graphs = Graphs(device) if choose is draw and fixed(device) else None

    def begin(self, places: list[int], prompts: list[list[int]], seeds: list[int]) -> None:
        device = self.keys_BN.device
        where_B = torch.tensor(places, device=device)
        self.keys_BN[where_B] = row_keys(seeds, self.keys_BN.shape[1]).to(device)
        self.written_BN[where_B] = self.eos_id
        self.count_B1[where_B] = 0
        self.done_B1[where_B] = False
        if self.decoding.repetition_penalty != 1.0:
            capacity = self.room.capacity_tokens
            texts = [prompt + prompt[:1] * (capacity - len(prompt)) for prompt in prompts]
            self.text_BT[where_B] = torch.tensor(texts, device=device)

    def step(self, size: int) -> None:
        """Choose one token for each of the first `size` rows, given the room's logits."""
        if self.graphs is None:
            self._step(size)
        else:
            self.graphs.run(size, lambda: self._step(size))

    def _step(self, size: int) -> None:
        assert self.room.logits_BV is not None
        decoding, lengths_B1 = self.decoding, self.room.lengths_B1[:size]
        count_B1, done_B1 = self.count_B1[:size], self.done_B1[:size]
        logits_BV = forbid(self.room.logits_BV[:size], self.never)
        if decoding.repetition_penalty != 1.0:
            logits_BV = penalise(logits_BV, self.text_BT[:size], decoding.repetition_penalty)
        if decoding.min_new_tokens:
            early_B1 = count_B1 < decoding.min_new_tokens
            ends_BE = logits_BV.index_select(1, self.ends).masked_fill(early_B1, -torch.inf)
            logits_BV.index_copy_(1, self.ends, ends_BE)
        # a row that is done keeps its last token and place
        at_B1 = count_B1.clamp(max=decoding.max_new_tokens - 1)
        tokens_B, sound_B = self.choose(
            logits_BV, self.keys_BN[:size].gather(1, at_B1)[:, 0], decoding
        )
        self.sound &= (sound_B | done_B1[:, 0]).all()
        written_BN = self.written_BN[:size]
        tokens_B1 = torch.where(done_B1, written_BN.gather(1, at_B1), tokens_B[:, None])
        written_BN.scatter_(1, at_B1, tokens_B1)
        going_B1 = ~done_B1
        self.room.input_B1[:size] = torch.where(done_B1, self.room.input_B1[:size], tokens_B1)
        count_B1 += going_B1
        lengths_B1 += going_B1
        if decoding.repetition_penalty != 1.0:
            text_BT = self.text_BT[:size]
            text_BT.scatter_(
                1, lengths_B1, torch.where(going_B1, tokens_B1, text_BT.gather(1, lengths_B1))
            )
        done_B1 |= (tokens_B1 == self.eos_id) | (count_B1 >= decoding.max_new_tokens)

    def keep(self, places_B: torch.Tensor) -> None:
        """Move these rows to the first rows. The others are done."""
        for held in self.held:
            held[: len(places_B)] = held[places_B]
        self.done_B1[len(places_B) :] = True


def _choice(room: Room, decoding, eos_id, ends, never, choose) -> Choice:
    """Return the room's choice of this kind. Only the package's own draw is kept and captured."""
    key = decoding, eos_id, tuple(ends), None if never is None else tuple(never.tolist())
    if choose is not draw or key not in room.kept:
        choice = Choice(room, decoding, eos_id, ends, never, choose)
        if choose is not draw:
            return choice
        room.kept = {key: choice}
    return room.kept[key]


def rows_of_a_batch(model: PreTrainedModel, batch_size: int) -> int:
    """Return for how many texts a job should ask. It is the same for GPUs of any size."""
    return max(batch_size, ROWS) if steps_are_fixed(model) else batch_size


@torch.inference_mode()
def rows_at_once(model: PreTrainedModel, tokens: int, batch_size: int) -> int:
    """Return how many texts of `tokens` tokens are written side by side.

    On a CPU it is `batch_size`, on a GPU what its free memory holds.
    """
    return fitting_rows(model, tokens, logit_rows(model) * CHOICE_BYTES, ROWS) or batch_size


@torch.inference_mode()
def write_refilled(
    model: PreTrainedModel,
    prompts: list[list[int]],
    row_seeds: list[int],
    decoding: Decoding,
    eos_id: int,
    stop,
    choose: Draw,
    never: torch.Tensor | None,
    rows: int,
) -> list[list[int]]:
    """Return the completion of each prompt, with `eos_id` at the end if drawn.

    `rows` prompts are continued side by side, and the others wait.
    Errors as in `sampling.sample`.
    """
    new_tokens, ends = decoding.max_new_tokens, end_ids(model, eos_id)
    decoder = StaticDecoder(model, prompts, new_tokens, rows)
    choice = _choice(decoder.room, decoding, eos_id, ends, never, choose)
    choice.done_B1.fill_(True)
    choice.sound.fill_(True)
    texts: list[list[int]] = [[] for _ in prompts]
    queue = list(range(len(prompts)))[::-1]
    owners = np.full(decoder.rows, -1)  # the prompt of each row
    steps_B = np.zeros(decoder.rows, dtype=int)  # of each text
    while True:
        free = np.flatnonzero(owners < 0)
        if queue and len(free) >= min(len(owners), FREE_SHARE * len(owners)):
            places = free[: len(queue)].tolist()
            taken = [queue.pop() for _ in places]
            owners[places], steps_B[places] = taken, 0
            chosen = [prompts[n] for n in taken]
            decoder.place(places, chosen)
            choice.begin(places, chosen, [row_seeds[n] for n in taken])
        active = np.flatnonzero(owners >= 0)
        if not len(active):
            return texts
        if not queue and decoder.fits_less(len(active)):
            going_B = torch.from_numpy(active).to(model.device)
            decoder.select(going_B)
            choice.keep(going_B)
            owners, steps_B = owners[active], steps_B[active]
            active = np.arange(len(active))
        left = new_tokens - steps_B[active]
        for step in range(min(CHECK_STEPS.get(model.device.type, 1), left.max())):
            decoder.forward()
            choice.step(decoder.size)
            decoder.lengths[active] += step < left  # a text that is full has ended
        steps_B[active] += step + 1
        done_B = choice.done_B1[: len(owners), 0].cpu().numpy()
        if not choice.sound:
            raise ValueError(
                f"the model produced non-finite logits (NaN or infinity) within {steps_B.max()} "
                "new tokens. Its weights are broken, or its training diverged. Lower "
                "train.learning_rate"
            )
        if stop:
            raise Stopped("stopped while sampling")
        ended = np.flatnonzero(done_B & (owners >= 0))
        if len(ended):
            written_BN = choice.written_BN[torch.from_numpy(ended).to(model.device)]
            for row, ids in zip(ended, written_BN.tolist(), strict=True):
                texts[owners[row]] = cut_after(ids, eos_id)
            owners[ended] = -1
            decoder.lengths[ended] = 0
