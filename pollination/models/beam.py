"""Beam search with the results of transformers' `generate(num_beams=...)`, token for token.

If the model's contract allows it, all beams of a prompt share its keys and values
(`shared_prompt`). Transformers reads every prompt once per beam. Prompts whose search has ended
leave the batch.

Shapes: P prompts, N beams, C candidates (2 N if a text has one end), V vocabulary, T new tokens so
far.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import torch
from transformers import PreTrainedModel

from pollination.core import resume
from pollination.core.job import Stopped
from pollination.data.special import end_ids
from pollination.models.drawing import Decoding, forbid, penalise
from pollination.models.paths import decoder_of
from pollination.models.sampling import KEPT_SHARE, cut_after, sample

NEVER = -1e9  # score of a forbidden choice, as in transformers, so that edge cases rank alike


class Search:
    """The state of a beam search, and the update of all prompts by one token.

    All tensors stay where they are, and no number is read on the host: a GPU captures the update.
    """

    def __init__(
        self,
        prompts: int,
        beams: int,
        ends: list[int],
        max_new_tokens: int,
        min_new_tokens: int = 0,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.beams, self.max_new_tokens, self.min_new_tokens = beams, max_new_tokens, min_new_tokens
        self.early_stopping, self.eos_id = early_stopping, ends[0]
        self.ends_E = torch.tensor(ends, device=device)
        self.candidates = max(2, 1 + len(ends)) * beams  # at least `beams` of them do not end
        # only the N best candidates may end
        self.ranked_C = torch.arange(self.candidates, device=device) < beams
        self.norms_T = torch.tensor(
            [length**length_penalty for length in range(1, max_new_tokens + 1)], device=device
        )
        self.reaches_end = early_stopping == "never" and length_penalty > 0
        self.index_1 = torch.zeros(1, dtype=torch.long, device=device)  # tokens of each text so far
        self.sound = torch.ones((), dtype=torch.bool, device=device)
        self.scores_PN = torch.zeros((prompts, beams), device=device)
        self.ended_scores_PN = torch.zeros_like(self.scores_PN)
        self.ended_PN = torch.zeros_like(self.scores_PN, dtype=torch.bool)
        self.written_PNT = torch.zeros(
            (prompts, beams, max_new_tokens), dtype=torch.long, device=device
        )
        self.ended_ids_PNT = torch.zeros_like(self.written_PNT)
        self.improvable_P = torch.ones(prompts, dtype=torch.bool, device=device)
        self.of_prompts = [self.scores_PN, self.ended_scores_PN, self.ended_PN]
        self.of_prompts += [self.written_PNT, self.ended_ids_PNT, self.improvable_P]
        self.begin(prompts)

    def begin(self, prompts: int) -> None:
        """Begin with so many prompts. Their beams are equal, and the first one alone counts."""
        self.index_1.zero_()
        self.sound.fill_(True)
        self.scores_PN.fill_(NEVER)
        self.scores_PN[:, 0] = 0
        self.ended_scores_PN.fill_(NEVER)
        self.ended_PN.fill_(False)
        for ids_PNT in (self.written_PNT, self.ended_ids_PNT):
            ids_PNT.fill_(self.eos_id)
        self.improvable_P.fill_(True)
        self.improvable_P[prompts:] = False

    def keep(self, places_P: torch.Tensor) -> None:
        """Move these prompts to the first places. The others have ended."""
        for held in self.of_prompts:
            held[: len(places_P)] = held[places_P]
        self.improvable_P[len(places_P) :] = False

    def advance(self, scores_BV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Extend the beams of the first prompts by one token, given its log-probabilities.

        Return which beam each row continues (B), and its token (B). This overwrites the scores.
        """
        beams, ends_E, index_1 = self.beams, self.ends_E, self.index_1
        prompts, vocabulary = len(scores_BV) // beams, scores_BV.shape[1]
        scores_PN, ended_scores_PN, ended_PN, written_PNT, ended_ids_PNT, improvable_P = (
            held[:prompts] for held in self.of_prompts
        )
        if self.min_new_tokens:
            early_1 = index_1 < self.min_new_tokens
            ending_BE = scores_BV.index_select(1, ends_E).masked_fill(early_1, -torch.inf)
            scores_BV.index_copy_(1, ends_E, ending_BE)
        totals_PV = scores_BV.view(prompts, beams, vocabulary) + scores_PN[:, :, None]
        scores_PC, flat_PC = totals_PV.flatten(1).topk(self.candidates)
        self.sound &= ~(scores_PC.isnan() | scores_PC.isposinf()).any()
        beam_PC, token_PC = flat_PC // vocabulary, flat_PC % vocabulary
        last_1 = index_1 == self.max_new_tokens - 1
        ends_PC = (token_PC[:, :, None] == ends_E).any(-1) | last_1

        # the beams that continue: the best candidates that did not end
        best_PN, place_PN = (scores_PC + ends_PC * NEVER).topk(beams)
        scores_PN.copy_(best_PN)
        beam_PN, token_PN = beam_PC.gather(1, place_PN), token_PC.gather(1, place_PN)
        from_PCT = beam_PC[:, :, None].expand(-1, -1, self.max_new_tokens)
        candidates_PCT = written_PNT.gather(1, from_PCT)
        candidates_PCT.index_copy_(2, index_1, token_PC[:, :, None])
        from_PNT = place_PN[:, :, None].expand(-1, -1, self.max_new_tokens)
        written_PNT.copy_(candidates_PCT.gather(1, from_PNT))

        # the best candidates that ended, now or before
        norm_1 = self.norms_T.index_select(0, index_1)
        may_end_PC = ends_PC & self.ranked_C & improvable_P[:, None]
        merged_PM = torch.cat([ended_scores_PN, scores_PC / norm_1 + ~may_end_PC * NEVER], 1)
        best_PN, place_PN = merged_PM.topk(beams)
        ended_scores_PN.copy_(best_PN)
        ended_PN.copy_(torch.cat([ended_PN, ends_PC & self.ranked_C], 1).gather(1, place_PN))
        merged_PMT = torch.cat([ended_ids_PNT, candidates_PCT], 1)
        from_PNT = place_PN[:, :, None].expand(-1, -1, self.max_new_tokens)
        ended_ids_PNT.copy_(merged_PMT.gather(1, from_PNT))

        # a prompt is done when its best running beam cannot exceed the worst ended beam
        reach_1 = self.norms_T[-1:] if self.reaches_end else norm_1
        worst_PN = torch.where(ended_PN, ended_scores_PN.amin(1, keepdim=True), NEVER)
        improvable_P &= (scores_PN[:, :1] / reach_1 > worst_PN).any(1)
        if self.early_stopping is True:
            improvable_P &= ~ended_PN.all(1)
        improvable_P &= ~last_1
        index_1 += 1
        first_P1 = torch.arange(0, len(scores_BV), beams, device=scores_BV.device)[:, None]
        return (first_P1 + beam_PN).flatten(), token_PN.flatten()

    def check(self, stop) -> None:
        """Raise ValueError if logits were not finite, and Stopped if `stop` is truthy."""
        if not self.sound:
            raise ValueError(
                "the model produced non-finite logits (NaN or infinity) within "
                f"{int(self.index_1)} new tokens. Its weights are broken, or its training "
                "diverged. Lower train.learning_rate"
            )
        if stop:
            raise Stopped("stopped while searching beams")

    def best(self, places: list[int]) -> list[list[int]]:
        """Return the best text of prompts."""
        return [cut_after(ids, self.eos_id) for ids in self.ended_ids_PNT[places, 0].tolist()]


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    prompts: list[list[int]],
    beams: int,
    max_new_tokens: int,
    min_new_tokens: int,
    repetition_penalty: float,
    eos_id: int,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    stop=None,
    never: torch.Tensor | None = None,
) -> list[list[int]]:
    """Return the best completion of each prompt (token ids, with its end of text if chosen).

    A text ends at `eos_id`, or at another id of the model's list (data/special.py's `end_ids`).
    The score is the sum of the new tokens' log-probabilities, divided by their number to the power
    `length_penalty`. `early_stopping` is True, False or "never", as in transformers. If `stop` is
    truthy, Stopped is raised between tokens. No id of `never` is chosen
    (`limits.ids_without_token`).
    ValueError: logits are not finite, or a prompt and `max_new_tokens` exceed the model's context.
    """
    if beams == 1:
        greedy = Decoding("greedy", repetition_penalty, min_new_tokens, max_new_tokens)
        seeds, size = [0] * len(prompts), len(prompts)
        return list(sample(model, prompts, seeds, greedy, eos_id, size, stop, never=never))
    device = model.device
    decoder = decoder_of(model, prompts, max_new_tokens, beams=True)
    search = Search(
        len(prompts),
        beams,
        end_ids(model, eos_id),
        max_new_tokens,
        min_new_tokens,
        length_penalty,
        early_stopping,
        device,
    )
    results: list[list[int]] = [[] for _ in prompts]
    index = list(range(len(prompts)))  # the prompts whose search continues
    logits = decoder.read()
    while True:
        # the other ids share the probability of these, as in a draw
        logits = forbid(logits, never)
        scores_BV = penalise(logits.log_softmax(-1), decoder.tokens_BT, repetition_penalty)
        if decoder.tokens_BT.shape[1] == decoder.longest:  # the beams share the prompt until here
            decoder.spread(beams)
            scores_BV = scores_BV.repeat_interleave(beams, 0)
        rows_B, tokens_B = search.advance(scores_BV)
        search.check(stop)
        going = search.improvable_P[: len(index)].tolist()
        if sum(going) <= KEPT_SHARE * len(index):
            leaving = [place for place, goes in enumerate(going) if not goes]
            for place, ids in zip(leaving, search.best(leaving), strict=True):
                results[index[place]] = ids
        if not any(going):
            return results
        decoder.swap(rows_B)
        if sum(going) <= KEPT_SHARE * len(index):
            kept = [place for place, goes in enumerate(going) if goes]
            keep = torch.tensor(kept, device=device)
            index = [index[place] for place in kept]
            tokens_B = tokens_B.view(-1, beams)[keep].flatten()
            search.keep(keep)
            decoder.select_prompts(keep)
        logits = decoder.step(tokens_B)


def decode(
    model: PreTrainedModel,
    prompts: list[list[int]],
    row_seeds: list[int],
    settings: dict,
    eos_id: int,
    stop=None,
    never: torch.Tensor | None = None,
) -> Iterator[list[int]]:
    """Yield the best completions in order, with `batch_size` beams at a time.

    `settings` are keys of a `generate` block. The seeds are not used.
    """
    decoding = Decoding.from_settings(settings)
    step = max(1, settings["batch_size"] // decoding.num_beams)
    unused = [] if never is None else never.tolist()
    for start in range(0, len(prompts), step):
        chosen = prompts[start : start + step]
        batch = partial(
            beam_search,
            model,
            chosen,
            decoding.num_beams,
            decoding.max_new_tokens,
            decoding.min_new_tokens,
            decoding.repetition_penalty,
            eos_id,
            stop=stop,
            never=never,
        )
        inputs = [chosen, asdict(decoding), eos_id, unused]
        yield from resume.texts(model, "beams", inputs, batch)
