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
    device, end_list = model.device, end_ids(model, eos_id)
    ends = torch.tensor(end_list, device=device)
    candidates = max(2, 1 + len(end_list)) * beams  # at least `beams` of them do not end
    decoder = decoder_of(model, prompts, max_new_tokens, beams=True)
    prompt_tokens = decoder.longest
    results: list[list[int]] = [[] for _ in prompts]
    index_P = torch.arange(len(prompts), device=device)  # the prompts whose search continues
    scores_PN = torch.tensor([0.0] + [NEVER] * (beams - 1), device=device).repeat(len(prompts), 1)
    ended_scores_PN = torch.full_like(scores_PN, NEVER)
    ended_PN = torch.zeros_like(scores_PN, dtype=torch.bool)
    ended_ids_PNT = torch.full((len(prompts), beams, max_new_tokens), eos_id, device=device)
    improvable_P = torch.ones(len(prompts), dtype=torch.bool, device=device)
    ranked_C = torch.arange(candidates, device=device) < beams  # only the N best candidates may end

    logits = decoder.read()
    for length in range(1, max_new_tokens + 1):
        # the other ids share the probability of these, as in a draw
        logits = forbid(logits, never)
        scores_BV = penalise(logits.log_softmax(-1), decoder.tokens_BT, repetition_penalty)
        if length <= min_new_tokens:
            scores_BV[:, ends] = -torch.inf
        if length == 1:  # the beams share the prompt and separate here
            decoder.spread(beams)
            scores_BV = scores_BV.repeat_interleave(beams, 0)
        searched, vocabulary = len(index_P), scores_BV.shape[1]
        totals_PV = scores_BV.view(searched, beams, vocabulary) + scores_PN[:, :, None]
        scores_PC, flat_PC = totals_PV.flatten(1).topk(candidates)
        if (scores_PC.isnan() | scores_PC.isposinf()).any():
            raise ValueError(
                f"the model produced non-finite logits (NaN or infinity) at new token {length}. "
                "Its weights are broken, or its training diverged. Lower train.learning_rate"
            )
        if stop:
            raise Stopped("stopped while searching beams")
        beam_PC, token_PC = flat_PC // vocabulary, flat_PC % vocabulary
        ends_PC = torch.isin(token_PC, ends) | (length == max_new_tokens)

        # the beams that continue: the best candidates that did not end
        scores_PN, place_PN = (scores_PC + ends_PC * NEVER).topk(beams)
        beam_PN, token_PN = beam_PC.gather(1, place_PN), token_PC.gather(1, place_PN)

        # the best candidates that ended, now or before
        may_end_PC = ends_PC & ranked_C & improvable_P[:, None]
        merged_PM = torch.cat(
            [ended_scores_PN, scores_PC / length**length_penalty + ~may_end_PC * NEVER], 1
        )
        ended_scores_PN, place_PN = merged_PM.topk(beams)
        ended_PN = torch.cat([ended_PN, ends_PC & ranked_C], 1).gather(1, place_PN)
        written_PNT = decoder.tokens_BT[:, prompt_tokens:].view(searched, beams, length - 1)
        candidates_PCT = ended_ids_PNT.new_full((searched, candidates, max_new_tokens), eos_id)
        candidates_PCT[:, :, : length - 1] = written_PNT.gather(
            1, beam_PC[:, :, None].expand(-1, -1, length - 1)
        )
        candidates_PCT[:, :, length - 1] = token_PC
        merged_PMT = torch.cat([ended_ids_PNT, candidates_PCT], 1)
        ended_ids_PNT = merged_PMT.gather(1, place_PN[:, :, None].expand(-1, -1, max_new_tokens))

        # a prompt is done when its best running beam cannot exceed the worst ended beam
        reach = max_new_tokens if early_stopping == "never" and length_penalty > 0 else length
        best_P1 = scores_PN[:, :1] / reach**length_penalty
        worst_PN = torch.where(ended_PN, ended_scores_PN.amin(1, keepdim=True), NEVER)
        improvable_P &= (best_P1 > worst_PN).any(1)
        if early_stopping is True:
            improvable_P &= ~ended_PN.all(1)
        going = int(improvable_P.sum()) if length < max_new_tokens else 0
        leaving_P = ~improvable_P if going else torch.ones_like(improvable_P)
        if going <= KEPT_SHARE * searched:
            for prompt, ids in zip(
                index_P[leaving_P].tolist(), ended_ids_PNT[leaving_P, 0].tolist(), strict=True
            ):
                results[prompt] = cut_after(ids, eos_id)
        if not going:
            break
        rows_PN = torch.arange(searched, device=device)[:, None] * beams + beam_PN
        decoder.swap(rows_PN.flatten())
        if going <= KEPT_SHARE * searched:
            keep = improvable_P.nonzero().squeeze(1)
            index_P, scores_PN, token_PN, improvable_P = (
                index_P[keep],
                scores_PN[keep],
                token_PN[keep],
                improvable_P[keep],
            )
            ended_scores_PN, ended_PN, ended_ids_PNT = (
                ended_scores_PN[keep],
                ended_PN[keep],
                ended_ids_PNT[keep],
            )
            decoder.select_prompts(keep)
        logits = decoder.step(token_PN.flatten())
    return results


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
