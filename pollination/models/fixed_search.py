"""Run a beam search in steps of fixed shapes: forward pass, update and change of places in one.

A GPU captures such a step once for each number of prompts and bucket, and the process keeps it.

Shapes: as in `static_beams` and `search`.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from pollination.models.drawing import forbid, penalise
from pollination.models.graphs import Graphs
from pollination.models.limits import logit_rows
from pollination.models.refill import CHECK_STEPS, CHOICE_BYTES, ROWS
from pollination.models.search import Search
from pollination.models.static_beams import StaticBeams, base_of
from pollination.models.static_decoder import fitting_rows


@torch.inference_mode()
def prompts_at_once(
    model: PreTrainedModel, longest: int, beams: int, new_tokens: int
) -> int | None:
    """Return how many prompts are searched side by side; None on a CPU."""
    choice_bytes = beams * logit_rows(model) * CHOICE_BYTES
    slots = base_of(longest) + beams * new_tokens
    return fitting_rows(model, slots, choice_bytes, max(1, ROWS // beams))


class FixedSearch(StaticBeams):
    """A beam search over all its prompts at once."""

    search: Search

    def begin(self, key: tuple, new_search: Callable[..., Search], penalty: float, never) -> None:
        """Begin a search. Its room keeps the tensors of the last one with this `key`."""
        self.spread(self.beams)
        room = self.room
        if key not in room.kept:
            room.kept = {key: (new_search(prompts=room.rows), never)}
            room.graphs = Graphs(self.model.device)
            shape = room.rows, room.base + 1
            room.of_prompts = [torch.zeros(shape, dtype=torch.long, device=self.model.device)]
        self.search, self.never = room.kept[key]
        self.search.begin(self.rows)
        self.penalty = penalty
        # a prompt's first token is the padding: it is not new to the repetition penalty
        width = room.base + 1
        padded = [prompt[:1] * (width - len(prompt)) + prompt for prompt in self.prompts]
        room.of_prompts[0][: self.rows] = torch.tensor(padded, device=self.model.device)

    def advance(self, size: int) -> None:
        """Extend the beams of the first `size` prompts, given the room's logits."""
        room, search = self.room, self.search
        assert room.logits_BV is not None
        scores_RV = forbid(room.logits_BV[: size * self.beams], self.never).log_softmax(-1)
        if self.penalty != 1.0:
            prompts_P1T = room.of_prompts[0][:size, None]
            steps_T = room.slots_S[: search.max_new_tokens]
            new_PNT = torch.where(
                steps_T < search.index_1, search.written_PNT[:size], prompts_P1T[:, :, :1]
            )
            texts_PNT = torch.cat([prompts_P1T.expand(-1, self.beams, -1), new_PNT], 2)
            scores_RV = penalise(scores_RV, texts_PNT.flatten(0, 1), self.penalty)
        rows_R, tokens_R = search.advance(scores_RV)
        self.swap(rows_R)
        room.input_B1[: size * self.beams] = tokens_R[:, None]

    def run(self, stop) -> list[list[int]]:
        """Return the best text of each prompt. Errors as in `beam.beam_search`."""
        search, left = self.search, self.search.max_new_tokens
        results: list[list[int]] = [[] for _ in self.prompts]
        index = list(range(self.rows))  # the prompts whose search continues
        while True:
            steps = min(left, CHECK_STEPS.get(self.model.device.type, 1))
            for _ in range(steps):
                self.forward(self.advance)
            left -= steps
            search.check(stop)
            going = search.improvable_P[: len(index)].tolist()
            kept = [place for place, goes in enumerate(going) if goes]
            if kept and not self.fits_less(len(kept)):
                continue
            leaving = [place for place, goes in enumerate(going) if not goes]
            for place, ids in zip(leaving, search.best(leaving), strict=True):
                results[index[place]] = ids
            if not kept:
                return results
            index = [index[place] for place in kept]
            keep_P = torch.tensor(kept, device=self.model.device)
            search.keep(keep_P)
            self.select_prompts(keep_P)
