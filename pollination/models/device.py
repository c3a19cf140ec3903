"""Choose the device of a job and set its threads and deterministic algorithms."""

import logging
import os
import re

import torch

from pollination.core import gpus
from pollination.models.onednn import by_onednn

log = logging.getLogger("pollination")
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_CUBLAS = (":4096:8", ":16:8")  # the values that torch accepts
NO_KERNEL = re.compile(r"(\S+) does not have a deterministic implementation")


def pick_device(wanted: str) -> torch.device:
    """Return the device for the config's `device`.

    ValueError: a requested or allocated GPU is unusable.
    """
    usable = torch.cuda.is_available()
    if wanted == "cuda" and not usable:
        raise ValueError(
            "device: 'cuda' needs a usable GPU, but torch finds none; allowed: auto, cpu, cuda. "
            "Check nvidia-smi and that torch is a CUDA build, or set device: cpu"
        )
    if wanted == "auto" and gpus.allocated() and not usable:
        raise ValueError(
            "device: 'auto' inside a GPU allocation needs a usable GPU, but torch finds none; "
            "allowed: auto, cpu, cuda. Check the node's driver, or set device: cpu"
        )
    return torch.device("cuda" if usable and wanted != "cpu" else "cpu")


def prepare(device: str, cpu_threads: int, determinism: str | bool = "auto") -> torch.device:
    """Set threads, deterministic algorithms and the CPU's matrix products. Return the device.

    `determinism` is the config's `train.determinism`.
    ValueError: a GPU is unusable, or the environment forbids deterministic matrix products.
    """
    torch.set_num_threads(cpu_threads)
    picked = pick_device(device)
    set_determinism(determinism, picked)
    by_onednn()
    if picked.type == "cuda":
        torch.cuda.init()  # so that the job can name its GPU
        seen = range(torch.cuda.device_count())
        gpus.confirm([str(torch.cuda.get_device_properties(i).uuid) for i in seen], log)
    elif gpus.taken():
        log.warning("torch can use no GPU of this machine (nvidia-smi -L), so the CPU computes")
    return picked


def set_determinism(determinism: str | bool, device: torch.device) -> None:
    """Make this process's kernels deterministic with `strict`, and not with `off` (False in YAML).

    With `auto`, a CPU takes deterministic kernels where there are some, and a GPU the fastest ones.
    ValueError: with `strict`, the environment forbids deterministic matrix products.
    """
    strict = determinism == "strict"
    if strict:
        given = os.environ.setdefault(CUBLAS, DETERMINISTIC_CUBLAS[0])
        if device.type == "cuda" and given not in DETERMINISTIC_CUBLAS:
            raise ValueError(
                f"train.determinism: 'strict' needs the environment variable {CUBLAS}, which is "
                f"{given!r}; allowed: {', '.join(DETERMINISTIC_CUBLAS)}. Type unset {CUBLAS}, or "
                "set train.determinism: off"
            )
    wanted = strict or (determinism == "auto" and device.type == "cpu")
    torch.use_deterministic_algorithms(wanted, warn_only=not strict)
    if strict:
        from torch._inductor import config  # takes long to import

        config.deterministic = True  # compiled code depends on no measured speed


def is_strict() -> bool:
    """Return whether operations without a deterministic kernel fail in this process."""
    return (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )


def without_kernel(error: BaseException) -> str | None:
    """Return the line for an error of an operation that has no deterministic kernel, or None."""
    if not is_strict() or not (found := NO_KERNEL.search(str(error))):
        return None
    return (
        f"train.determinism: 'strict': {found[1]} has no deterministic kernel on this device; "
        "allowed: auto, strict, off. Set train.determinism: off, or use another architecture"
    )
