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
from pollination.data.special import end_ids
from pollination.models.drawing import Decoding, forbid, penalise
from pollination.models.fixed_search import FixedSearch, prompts_at_once
from pollination.models.paths import decoder_of, steps_are_fixed
from pollination.models.sampling import KEPT_SHARE, sample
from pollination.models.search import Search


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
    about = beams, end_ids(model, eos_id), max_new_tokens, min_new_tokens, length_penalty
    new_search = partial(Search, *about, early_stopping, device)
    if steps_are_fixed(model, beams=True):
        key = (*about[2:], early_stopping, *about[1], repetition_penalty)
        unused = () if never is None else tuple(never.tolist())
        fixed = FixedSearch(model, prompts, max_new_tokens, beams)
        fixed.begin((*key, unused), new_search, repetition_penalty, never)
        return fixed.run(stop)
    decoder = decoder_of(model, prompts, max_new_tokens, beams=True)
    search = new_search(prompts=len(prompts))
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

    A GPU searches as many beams as its free memory holds. `settings` are keys of a `generate`
    block. The seeds are not used.
    """
    decoding = Decoding.from_settings(settings)
    step = max(1, settings["batch_size"] // decoding.num_beams)
    if decoding.num_beams > 1 and prompts and steps_are_fixed(model, beams=True):
        longest = max(map(len, prompts))
        step = prompts_at_once(model, longest, decoding.num_beams, decoding.max_new_tokens) or step
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
