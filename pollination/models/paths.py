"""Choose the fastest path that a model's contract allows."""

from transformers import PreTrainedModel

from pollination.models.contract import (
    CHUNKED,
    DECODERS,
    SHARED,
    STATIC,
    STATIC_BEAMS,
    contract_of,
    why_masked,
)
from pollination.models.decoder import Decoder
from pollination.models.loss import Loss, chunked_loss, unmasked, whole_loss
from pollination.models.shared_prompt import SharedPromptDecoder
from pollination.models.slow_decoder import ByLength
from pollination.models.static_decoder import StaticDecoder

STATIC_DEVICES = ("cuda",)  # on a CPU a graph gains nothing, and hidden slots cost time


def decoder_of(
    model: PreTrainedModel, prompts: list[list[int]], new_tokens: int, beams: bool = False
) -> Decoder | ByLength:
    """Return a decoder of prompts. With `beams`, each prompt continues as several beams.

    ValueError as in Decoder.
    """
    contract = contract_of(model)
    if beams and contract.allows(SHARED):
        return SharedPromptDecoder(model, prompts, new_tokens)
    if not beams and steps_are_fixed(model):
        return StaticDecoder(model, prompts, new_tokens)
    kind = next(kind for name, kind in DECODERS.items() if contract.allows(name))
    return kind(model, prompts, new_tokens)


def steps_are_fixed(model: PreTrainedModel, beams: bool = False) -> bool:
    """Return whether texts are written in steps of fixed shapes, which a GPU captures."""
    path = STATIC_BEAMS if beams else STATIC
    return model.device.type in STATIC_DEVICES and contract_of(model).allows(path)


def slower_decoding(model: PreTrainedModel, beams: bool) -> str | None:
    """Return why decoding does not take the fastest path, or None."""
    faster = [next(iter(DECODERS))]
    faster += [SHARED] * beams
    if model.device.type in STATIC_DEVICES:
        faster += [STATIC_BEAMS if beams else STATIC]
    return contract_of(model).why(*faster)


def next_token_loss(model: PreTrainedModel, compiled: bool = False) -> Loss:
    """Return a function from tokens (B, T) to their mean next-token cross-entropy (nats, float32).

    It can be differentiated once. It works in chunks if the contract allows it. With `compiled`,
    torch.compile compiles the model. Its attention then has no mask, if that gives its gradients.
    """
    contract = contract_of(model)
    if contract.head is not None and contract.allows(CHUNKED):
        loss = chunked_loss(model, contract.head, compiled)
    else:
        loss = whole_loss(model, compiled)
    return unmasked(model, loss) if compiled and not why_masked(model.config) else loss
