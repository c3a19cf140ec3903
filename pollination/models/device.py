"""Choose the device of a job and set its threads and deterministic algorithms."""

import logging
import os

import torch

from pollination.core import gpus
from pollination.models.onednn import by_onednn

log = logging.getLogger("pollination")


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


def prepare(device: str, cpu_threads: int) -> torch.device:
    """Set threads, deterministic algorithms and the CPU's matrix products. Return the device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(cpu_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    by_onednn()
    picked = pick_device(device)
    if picked.type == "cuda":
        torch.cuda.init()  # so that the job can name its GPU
        seen = range(torch.cuda.device_count())
        gpus.confirm([str(torch.cuda.get_device_properties(i).uuid) for i in seen], log)
    elif gpus.taken():
        log.warning("torch can use no GPU of this machine (nvidia-smi -L), so the CPU computes")
    return picked
