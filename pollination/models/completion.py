"""Continue prompts: encode them, run a decoding method and decode the completions."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from inspect import signature

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pollination.core.seeds import derive_seed
from pollination.data.encoding import encode
from pollination.data.special import SpecialTokens, end_ids, special_tokens
from pollination.models.drawing import Decoding
from pollination.models.limits import context_limit, ids_without_token
from pollination.models.static_decoder import release
from pollination.plan.decoding import DECODINGS


def prompt_limit(model: PreTrainedModel, settings: dict) -> int | None:
    """Return the maximum number of tokens of a prompt.

    It is `max_prompt_tokens`. The default is half the context, or less if completions need more
    room. It is None if neither the setting nor the model has a limit.
    ValueError: prompt and completion together exceed the context.
    """
    context, new = context_limit(model.config), settings["max_new_tokens"]
    limit = settings.get("max_prompt_tokens")
    if context is None:
        return limit
    if new >= context:
        raise ValueError(
            f"max_new_tokens: {new} leaves no room for a prompt in a context of {context} tokens; "
            f"allowed: 1 to {context - 1}. Lower max_new_tokens (of generate or evaluate.samples)"
        )
    if limit is None:
        return max(1, min(context // 2, context - new))
    if limit + new > context:
        raise ValueError(
            f"generate.max_prompt_tokens: {limit} and max_new_tokens {new} exceed the model's "
            f"context of {context} tokens; allowed: at most {context - new}, or null. Lower one of "
            "them"
        )
    return limit


def complete(
    model,
    prompts_ids: list[list[int]],
    seeds: list[int],
    settings: dict,
    eos_id: int,
    stop=None,
    never=None,
) -> Iterator[list[int]]:
    """Yield one completion (token ids) per prompt, in order.

    `model` is one of transformers, or of another engine (`vllm_engine.VllmModel`).

    An empty prompt is continued from the end-of-text token. A completion ends at the first token
    that ends a text of the model (`end_ids`), but not before `min_new_tokens`. If this is another
    token than `eos_id`, `eos_id` replaces it, because a text of a training ends with `eos_id`. No
    completion holds an id of `never`, the model's ids without a token (`limits.ids_without_token`).
    """
    method = DECODINGS[Decoding.from_settings(settings).decoding]
    if isinstance(model, PreTrainedModel):
        module, function = method.function.split(".")
        decode = partial(getattr(import_module(f"pollination.models.{module}"), function), model)
    else:
        decode = model.decode  # of another engine
    prompts_ids = [ids or [eos_id] for ids in prompts_ids]
    arguments = prompts_ids, seeds, settings, eos_id, stop
    if never is None:
        completions = decode(*arguments)
    elif "never" in signature(decode).parameters:
        completions = decode(*arguments, never=never)
    else:
        raise ValueError(
            f"generate.decoding: {method.function} has no parameter `never`, but the model has "
            f"{len(never)} ids without a token, which it must not write. Add the parameter and "
            "hand it on to `sample`, or use another decoding"
        )
    others, least = set(end_ids(model, eos_id)[1:]), settings.get("min_new_tokens", 0)

    def ended(ids: list[int]) -> list[int]:
        end = next((n for n in range(least, len(ids)) if ids[n] in others), None)
        return ids if end is None else [*ids[:end], eos_id]

    return map(ended, completions) if others else completions


def _encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str | list[int]], limit: int | None
) -> list[list[int]]:
    """Return the token ids of prompts (text or token ids), with bos in front, cut to `limit`."""
    special = special_tokens(tokenizer)
    ids_of_each: Iterable = prompts
    if texts := [prompt for prompt in prompts if isinstance(prompt, str)]:
        ids_of_each = (ids.tolist() for ids in encode(texts, tokenizer))
    return [special.begun(ids[:limit])[:limit] for ids in ids_of_each]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], special: SpecialTokens) -> str:
    """Return the text of token ids, without bos and without a final end-of-text token."""
    ids = special.text(ids)
    ids = ids[:-1] if ids and ids[-1] == special.eos_id else ids
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[tuple[str, str]],
    settings: dict,
    seed: int,
    by_name: bool = False,
) -> pd.DataFrame:
    """Write one completion per prompt, however short: columns prompt_id, prompt, completion, seed.

    `prompts` are (prompt_id, text). `settings` are keys of a `generate` block. A row's seed follows
    from its place, or with `by_name` from its prompt_id.
    ValueError: logits are not finite, or lengths do not fit the context.
    """
    settings = {"batch_size": 128} | settings
    special = special_tokens(tokenizer)
    ids = _encode(tokenizer, [text for _, text in prompts], prompt_limit(model, settings))
    seeds = [
        derive_seed(seed, "sample", name if by_name else n) for n, (name, _) in enumerate(prompts)
    ]
    never = ids_without_token(model, tokenizer)
    texts = list(complete(model, ids, seeds, settings, special.eos_id, never=never))
    release()  # the model is scored next
    return pd.DataFrame(
        {
            "prompt_id": [name for name, _ in prompts],
            "prompt": [_decode(tokenizer, row, special) for row in ids],
            "completion": [_decode(tokenizer, row, special) for row in texts],
            "seed": seeds,
        }
    )
