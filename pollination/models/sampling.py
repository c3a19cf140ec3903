"""Sample from any causal language model of transformers.

A row's text depends on its seed and prompt alone (`drawing`).

Shapes: B rows of the batch, T tokens, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import torch
from transformers import PreTrainedModel

from pollination.core import resume
from pollination.core.job import Stopped
from pollination.data.special import end_ids
from pollination.models.drawing import Decoding, cut_after, draw, forbid, penalise, row_keys
from pollination.models.paths import decoder_of, steps_are_fixed
from pollination.models.refill import CHECK_STEPS, QUEUE, rows_at_once, write_refilled

KEPT_SHARE = 0.75  # finished rows leave the batch if at most this share is unfinished


@torch.inference_mode()
def _sample_batch(
    model, prompts, row_seeds, decoding: Decoding, eos_id: int, stop, draw, never
) -> list[list[int]]:
    device, count = model.device, decoding.max_new_tokens
    decoder = decoder_of(model, prompts, count)
    ends_E = torch.tensor(end_ids(model, eos_id), device=device)
    keys_BT = row_keys(row_seeds, count).to(device)
    written_BT = torch.full_like(keys_BT, eos_id)
    rows_B = torch.arange(len(prompts), device=device)  # rows of `written_BT` in the decoder
    ended_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    sound = torch.ones((), dtype=torch.bool, device=device)
    logits_BV = decoder.read()
    for t in range(count):
        logits_BV = forbid(logits_BV, never)
        logits_BV = penalise(logits_BV, decoder.tokens_BT, decoding.repetition_penalty)
        if t < decoding.min_new_tokens:
            logits_BV = forbid(logits_BV, ends_E)
        tokens_B, sound_B = draw(logits_BV, keys_BT[rows_B, t], decoding)
        written_BT[rows_B, t] = tokens_B
        ended_B |= tokens_B == eos_id
        sound &= sound_B.all()
        if t == count - 1 or (t + 1) % CHECK_STEPS.get(device.type, 1) == 0:
            if not sound:
                raise ValueError(
                    f"the model produced non-finite logits (NaN or infinity) within {t + 1} new "
                    "tokens. Its weights are broken, or its training diverged. Lower "
                    "train.learning_rate"
                )
            if stop:
                raise Stopped("stopped while sampling")
            going = (~ended_B).nonzero().squeeze(1)
            if t == count - 1 or len(going) == 0:
                break
            if len(going) <= KEPT_SHARE * len(rows_B):
                decoder.select(going)
                rows_B, ended_B, tokens_B = rows_B[going], ended_B[going], tokens_B[going]
        logits_BV = decoder.step(tokens_B)
    return [cut_after(ids, eos_id) for ids in written_BT.tolist()]


def batches(prompts: list[list[int]], batch_size: int) -> list[list[int]]:
    """Return the prompts' indices in batches, longest prompts first, to limit padding."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def sample(
    model: PreTrainedModel,
    prompts: list[list[int]],
    row_seeds: list[int],
    decoding: Decoding,
    eos_id: int,
    batch_size: int,
    stop=None,
    draw=draw,
    never: torch.Tensor | None = None,
) -> Iterator[list[int]]:
    """Yield completions (token ids, with `eos_id` at the end if drawn) in the order of the prompts.

    `prompts` are token ids, none empty. `row_seeds` holds one seed in [0, 2**128) per prompt.
    `batch_size` rows are written side by side, on a GPU as many as its free memory holds. If `stop`
    becomes truthy during sampling, Stopped is raised. `draw` chooses the tokens of one step. No id
    of `never` is drawn (`limits.ids_without_token`).
    ValueError: logits are not finite, or a prompt is too long for the context.
    """
    done: dict = {}
    following = 0
    unused = [] if never is None else never.tolist()
    write = _sample_batch
    if prompts and steps_are_fixed(model):
        tokens = max(map(len, prompts)) + decoding.max_new_tokens
        write = partial(write_refilled, rows=rows_at_once(model, tokens, batch_size))
        batch_size = QUEUE
    for rows in batches(prompts, batch_size):
        chosen, seeds = [prompts[r] for r in rows], [row_seeds[r] for r in rows]
        batch = partial(write, model, chosen, seeds, decoding, eos_id, stop, draw, never)
        drawn = getattr(draw, "__qualname__", str(draw))
        inputs = [chosen, seeds, asdict(decoding), eos_id, unused, drawn]
        texts = resume.texts(model, "sample", inputs, batch)
        done.update(zip(rows, texts, strict=True))
        while following in done:
            yield done.pop(following)
            following += 1


def decode(
    model: PreTrainedModel,
    prompts: list[list[int]],
    row_seeds: list[int],
    settings: dict,
    eos_id: int,
    stop=None,
    never: torch.Tensor | None = None,
) -> Iterator[list[int]]:
    """Yield the completions of `sample`. `settings` are keys of a `generate` block."""
    decoding, batch_size = Decoding.from_settings(settings), settings["batch_size"]
    return sample(model, prompts, row_seeds, decoding, eos_id, batch_size, stop, never=never)
