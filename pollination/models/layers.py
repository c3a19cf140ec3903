"""The layers of a model, and activation checkpointing by layer."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers: the items of the model's list of modules with the most parameters.

    ValueError: it has no such list.
    """
    lists: list[nn.ModuleList] = [
        module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers")
    sizes = [sum(p.numel() for p in found.parameters()) for found in lists]
    return list(lists[sizes.index(max(sizes))])  # the first of equal ones is the outermost


def checkpoint_activations(model: nn.Module) -> None:
    """Keep only the input of each layer for the backward pass, which computes the layer again.

    The results stay bit-identical (arXiv 1604.06174). ValueError as in `layers_of`.
    """
    for layer in layers_of(model):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
