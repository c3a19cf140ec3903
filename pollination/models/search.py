"""The update of a beam search by one token, with the results of transformers, token for token.

Shapes: P prompts, N beams, B = P N rows, C candidates (2 N if a text has one end), M candidates and
ended beams, E ids that end a text, V vocabulary, T new tokens.
"""

import torch

from pollination.core.job import Stopped
from pollination.models.drawing import cut_after

NEVER = -1e9  # score of a forbidden choice, as in transformers, so that edge cases rank alike


class Search:
    """The state of a beam search, and the update of all prompts by one token.

    All tensors stay where they are, and no number is read on the host: a GPU captures the update.
    """

    def __init__(
        self,
        beams: int,
        ends: list[int],
        max_new_tokens: int,
        min_new_tokens: int,
        length_penalty: float,
        early_stopping: bool | str,
        device: torch.device,
        prompts: int,
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
