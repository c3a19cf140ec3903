"""Choose the precision in which a model computes: fp32, tf32 or bf16.

fp32 is the reproducible one. tf32 is fp32 whose products on a GPU round their factors to 10 bits.
bf16 takes half the memory and has 7 bits.
"""

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

FAST_CAPABILITY = (8, 0)  # of NVIDIA's Ampere, the first with units for bf16 and TF32


def has_fast_units(device: torch.device) -> bool:
    """Return whether a GPU computes bf16 and TF32 itself. Older ones emulate bf16, slowly."""
    return torch.cuda.get_device_capability(device) >= FAST_CAPABILITY


def choose(setting: str, device: torch.device, key: str) -> str:
    """Return fp32, tf32 or bf16 for the value of a config's key.

    ValueError: the device does not have the precision that the config names.
    """
    on_gpu = device.type == "cuda"
    fast = on_gpu and has_fast_units(device)
    if setting == "auto":
        return "bf16" if fast else "fp32"
    if setting == "fp32" or fast or (setting == "bf16" and not on_gpu):
        return setting
    if on_gpu:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        said = f"of capability 8.0 or higher, but {torch.cuda.get_device_name(device)} has {found}"
    else:
        said = "of capability 8.0 or higher, but this job computes on a CPU"
    raise ValueError(
        f"{key}: {setting!r} needs a GPU {said}; allowed here: auto, fp32"
        f"{'' if on_gpu else ', bf16'}. Set {key}: auto"
    )


def set_products(precision: str, device: torch.device) -> None:
    """Let a GPU's fp32 products and convolutions use TF32 with `tf32`, and not otherwise."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model with weights of another type, in evaluation mode; itself if they have it.

    Transformers builds it, so that what its code keeps in fp32 stays so, e.g. the frequencies of
    rotary positions.
    """
    if model.dtype == dtype:
        return model
    with no_init_weights():
        other = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=dtype).eval()
    other.tie_weights()
    other.load_state_dict(model.state_dict())
    return other
