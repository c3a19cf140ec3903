"""Mutate a parent's weights (study A, section 3): theta + scale * sd(theta) * U(-0.5, 0.5)."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pollination.core.artifacts import atomic
from pollination.core.seeds import derive_seed
from pollination.models.checkpoint import read_weights
from pollination.plan.operators import MUTATION


def mutate(
    state: dict[str, torch.Tensor], scale: float, per: str, seed: int
) -> dict[str, torch.Tensor]:
    """Return theta + scale * std(theta) * U(-0.5, 0.5) (study A, appendix C).

    `per` says whether std is taken over each tensor or over all weights. Each tensor has its own
    random stream, seeded with its name, so the result does not depend on the file's order. Tensors
    of integers, such as a routing table, are no weights and stay as they are.
    """
    tables = {name: tensor for name, tensor in state.items() if not tensor.is_floating_point()}
    state = {name: tensor for name, tensor in state.items() if name not in tables}
    together = MUTATION[per].together
    if together:
        zero = torch.zeros((), dtype=torch.float64)
        count = sum(tensor.numel() for tensor in state.values())
        mean = sum((tensor.double().sum() for tensor in state.values()), zero) / count
        squares = (((tensor.double() - mean) ** 2).sum() for tensor in state.values())
        overall = (sum(squares, zero) / (count - 1)).sqrt()
    mutated = {}
    for name, tensor in state.items():
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        noise = torch.rand(tensor.shape, generator=generator) - 0.5
        if together:
            spread = overall
        else:
            spread = tensor.double().std() if tensor.numel() > 1 else torch.zeros(())
        mutated[name] = (tensor.double() + scale * spread * noise.double()).to(tensor.dtype)
    return mutated | tables


def write_parent(source: Path, target: Path, scale: float, per: str, seed: int) -> None:
    """Write the weights that a parent's children inherit: mutated, or unchanged if scale is 0.

    ValueError: a weight is not finite.
    """
    state = read_weights(source)
    with safe_open(str(source), "pt") as file:
        metadata = file.metadata()
    handed_on = mutate(state, scale, per, seed) if scale > 0 else state
    for name, tensor in handed_on.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"mutate.scale: {scale}: weight {name!r} of {source} is not finite after the "
                "mutation. Lower mutate.scale, or train.learning_rate if it was not finite before"
            )
    with atomic(target) as temporary:
        save_file(handed_on, str(temporary), metadata=metadata)
