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
            f"device: 'cuda' needs a usable GPU, but torch finds none{why_no_gpu()}; allowed: "
            "auto, cpu, cuda. Check nvidia-smi and that torch is a CUDA build, or set device: cpu"
        )
    if wanted == "auto" and gpus.allocated() and not usable:
        raise ValueError(
            "device: 'auto' inside a GPU allocation needs a usable GPU, but torch finds "
            f"none{why_no_gpu()}; allowed: auto, cpu, cuda. Check the node's driver, or set "
            "device: cpu"
        )
    return torch.device("cuda" if usable and wanted != "cpu" else "cpu")


def why_no_gpu() -> str:
    """Return torch's reason why it can use no GPU, in brackets; nothing if it gives none."""
    try:
        torch.cuda.init()
    except Exception as error:  # of several classes, by the build of torch
        return f" ({' '.join(str(error).split('. ')[0].split())})"
    return ""


def runs_on(capability: tuple[int, int], builds: list[str]) -> bool:
    """Return whether code built for `builds` (torch.cuda.get_arch_list) runs on a GPU.

    sm_XY runs on capabilities of the same X from X.Y on, and compute_XY on all from X.Y on. A
    letter behind it binds the code to X.Y itself.
    """
    for build in builds:
        kind, _, number = build.partition("_")
        digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
        made = int(digits[:-1]), int(digits[-1])
        if made == capability:
            return True
        forward = kind == "compute" or made[0] == capability[0]
        if digits == number and made <= capability and forward:
            return True
    return False


def check_kernels(device: torch.device) -> None:
    """ValueError: torch has no kernels for the capability of the GPU."""
    capability, builds = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if torch.version.hip is None and builds and not runs_on(capability, builds):
        raise ValueError(
            f"device: {torch.cuda.get_device_name(device)} has capability "
            f"{capability[0]}.{capability[1]}, but torch {torch.__version__} has kernels for "
            f"{', '.join(builds)} alone. Install a build of torch for this GPU, or use another GPU"
        )


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
        check_kernels(picked)
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
