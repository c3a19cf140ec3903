"""Average the weights of several models of one architecture (model soups, Wortsman et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pollination.core.artifacts import atomic
from pollination.models.checkpoint import read_weights


def write_average(sources: Sequence[Path], shares: Sequence[float], target: Path) -> None:
    """Write sum of share * theta, in float64 and in the order of the sources.

    Tensors of integers, such as a routing table, are no weights and are those of the first model.
    ValueError: the models differ in a tensor's name or shape, or a weight is not finite.
    """
    first = read_weights(sources[0])
    total = {
        name: shares[0] * tensor.double()
        for name, tensor in first.items()
        if tensor.is_floating_point()
    }
    for source, share in zip(sources[1:], shares[1:], strict=True):
        state = read_weights(source)
        names = first.keys() ^ state.keys()
        names |= {name for name in total.keys() & state if total[name].shape != state[name].shape}
        if names:
            raise ValueError(
                f"weights: soup: {sources[0]} and {source} differ in tensor {min(names)!r}; only "
                "models of one architecture can be averaged"
            )
        for name, tensor in total.items():
            tensor += share * state[name].double()
    for name, tensor in total.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"weights: soup: weight {name!r} of the average of {', '.join(map(str, sources))} "
                "is not finite. Lower train.learning_rate"
            )
    with safe_open(str(sources[0]), "pt") as file:
        metadata = file.metadata()
    average = {
        name: total[name].to(tensor.dtype) if name in total else tensor
        for name, tensor in first.items()
    }
    with atomic(target) as temporary:
        save_file(average, str(temporary), metadata=metadata)
