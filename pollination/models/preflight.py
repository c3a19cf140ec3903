"""Check before the first GPU job of a run that its GPU is usable, and note what jobs will use."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pollination.core import artifacts, gpus
from pollination.core.job import Job
from pollination.models.device import prepare, why_no_gpu
from pollination.models.precision import choose, set_products
from pollination.plan.config.values import by_member
from pollination.plan.plan import Plan

TRAINING_BYTES = 16  # per parameter in fp32: weight, gradient and both moments of AdamW
LEAST_VOCABULARY = 1000  # of a tokenizer that is not trained yet
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def preflight(job: Job, config: dict) -> None:
    """Write preflight.json: the device, its software, and what the jobs of the run will use.

    ValueError: the GPU is unusable, too small for a model, or lacks a precision of the config.
    """
    path = Path(job.output.found)
    plan = Plan(config, str(path.parent.parent))
    if gpus.taken() and not torch.cuda.is_available() and job.device != "cpu":
        raise ValueError(
            f"device: {job.device!r}: nvidia-smi lists a GPU, but torch cannot use it"
            f"{why_no_gpu()}. Install a driver and a build of torch that fit, or set device: cpu"
        )
    device = prepare(job.device, config["cpu_threads"])
    found: dict[str, Any] = {"device": described(device)}
    found["use"] = used(plan, device, compiler())
    if device.type == "cuda":
        check_memory(parameters(plan), torch.cuda.get_device_properties(device))
        precisions = {entry["precision"] for entry in found["use"].values()}
        found["attention"] = {name: tried(name, device) for name in sorted(precisions)}
    for section, entries in found.items():
        for name, value in entries.items():
            job.log.info("%s: %s: %s", section, name, _said(value))
    artifacts.write_json(path, found)


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return "none" if value is None else str(value)


def described(device: torch.device) -> dict[str, Any]:
    """Return the GPU, its driver and its software; of a CPU, that it is one."""
    if device.type != "cuda":
        return {"name": "CPU: no job uses a GPU", "torch": torch.__version__}
    about = torch.cuda.get_device_properties(device)
    return {
        "name": about.name,
        "capability": f"{about.major}.{about.minor}",
        "memory_gib": round(about.total_memory / 2**30, 1),
        "driver": driver(),
        "cuda": torch.version.cuda or torch.version.hip,
        "nccl": nccl(),
        "torch": torch.__version__,
        "compiler": compiler(),
    }


def driver() -> str | None:
    """Return the version of NVIDIA's driver; None if nvidia-smi does not say."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return next(iter(said.split()), None)


def nccl() -> str | None:
    """Return the version of NCCL; None if torch has none."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))


def compiler() -> str | None:
    """Return the C compiler that torch.compile would call on a GPU; None without it or Triton."""
    if find_spec("triton") is None:
        return None
    return next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "gcc", "clang"))), None)


def used(plan: Plan, device: torch.device, compiler: str | None) -> dict[str, dict[str, str]]:
    """Return what trainings, writing and scoring use: precision, determinism, torch.compile.

    ValueError: the device lacks a precision that the config names.
    """
    trains = {f"founders.{name}.train": pool["train"] for name, pool in plan.used_pools.items()}
    writes = {}
    for name, experiment in plan.config["experiments"].items():
        if experiment["generations"] > 1:
            trains[f"experiments.{name}.train"] = experiment["train"]
            writes[f"experiments.{name}.generate"] = experiment["generate"]
    uses = {
        key: {
            "precision": choose(settings["precision"], device, f"{key}.precision"),
            "determinism": determinism(settings["determinism"], device),
            "compile": compiled(settings["compile"], device, compiler),
        }
        | shared(settings, device)
        for key, settings in trains.items()
    }
    for key, settings in (writes | {"evaluate": plan.config["evaluate"]}).items():
        uses[key] = {"precision": choose(settings["precision"], device, f"{key}.precision")}
    return uses


def shared(settings: dict, device: torch.device) -> dict[str, str]:
    """Return in words what the ranks of a training share, if it has several."""
    if settings["gpus"] == 1:
        return {}
    share = "one GPU each" if device.type == "cuda" else "which share the CPU"
    return {"ranks": f"{settings['gpus']} ({settings['parallel']}), {share}"}


def determinism(setting: str | bool, device: torch.device) -> str:
    if setting == "auto":
        return "off" if device.type == "cuda" else "deterministic kernels where there are some"
    return "strict" if setting == "strict" else "off"


def compiled(setting: str | bool | None, device: torch.device, compiler: str | None) -> str:
    """Return whether torch.compile compiles a training, in words."""
    if setting is False or (setting is not True and device.type != "cuda"):
        return "no"
    if device.type == "cuda" and compiler is None:
        return "no, because there is no C compiler or no Triton"
    if setting is True:
        return "yes"
    from pollination.models.trainer import COMPILED_WORK

    return f"if steps x parameters reach {COMPILED_WORK:.0e}"


def parameters(plan: Plan) -> dict[str, int]:
    """Return the number of parameters of each model that founders start from.

    A tokenizer that is not trained yet has at most its `vocab_size`. A model that starts from a
    founder has the architecture of that founder.
    """
    from transformers import AutoConfig

    from pollination.models.checkpoint import load_config, outline

    counts = {}
    names = {
        by_member(pool["model"], m)
        for name, pool in plan.used_pools.items()
        for m in range(plan.pool_sizes[name])
    }
    for name in sorted(names):
        spec, folder = plan.config["models"][name], Path(plan.results, "models", name)
        if (folder / "config.json").is_file():
            config = load_config(folder)
        elif not spec["pretrained"]:
            tokenizer = spec["tokenizer"]
            size = tokenizer["vocab_size"] if tokenizer["kind"] == "bpe" else LEAST_VOCABULARY
            settings = {"tie_word_embeddings": True, "vocab_size": size}
            config = AutoConfig.for_model(spec["architecture"], **settings | spec["settings"])
        else:
            continue
        counts[name] = sum(p.numel() for p in outline(config, f"models.{name}").parameters())
    return counts


def check_memory(counts: dict[str, int], about: Any) -> None:
    """ValueError: the training of a model exceeds the memory of the GPU `about`."""
    for name, count in counts.items():
        if count * TRAINING_BYTES > about.total_memory:
            raise ValueError(
                f"models.{name}: its training needs {count * TRAINING_BYTES / 2**30:,.1f} GiB for "
                f"weights, gradients and optimizer ({count:,} parameters), but {about.name} has "
                f"{about.total_memory / 2**30:,.1f} GiB. Use a smaller model or a larger GPU"
            )


def tried(precision: str, device: torch.device) -> str:
    """Compute a product and attention in a precision. Return the kernel that attention takes.

    ValueError: the GPU cannot compute them.
    """
    try:
        set_products(precision, device)
        x = torch.randn((1, 4, 64, 64), dtype=DTYPES[precision], device=device, requires_grad=True)
        functional = torch.nn.functional
        functional.scaled_dot_product_attention(x @ x, x, x, is_causal=True).sum().backward()
        asked = torch.backends.cuda.SDPAParams(x, x, x, None, 0.0, True, False)
        kernels = {
            "flash": torch.backends.cuda.can_use_flash_attention,
            "memory-efficient": torch.backends.cuda.can_use_efficient_attention,
        }
        torch.cuda.synchronize(device)
        return next((name for name, fits in kernels.items() if fits(asked)), "math")
    except RuntimeError as error:
        raise ValueError(
            f"device: {torch.cuda.get_device_name(device)} cannot compute in {precision} "
            f"({' '.join(str(error).split())[:200]}). Check its driver and torch's build, or use "
            "another GPU"
        ) from None
