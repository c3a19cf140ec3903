"""Load models to write text or to be scored, in the precision that the config asks for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from pollination.core import resume
from pollination.core.job import Job
from pollination.models import checkpoint
from pollination.models.contract import why_not_bf16
from pollination.models.device import prepare
from pollination.models.precision import cast, choose, set_products


@dataclass(frozen=True)
class Inference:
    """The device and the precision (fp32, tf32 or bf16) of a job that trains nothing."""

    device: torch.device
    precision: str

    def placed(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a model of fp32 on the device, in the precision."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return cast(model, dtype).to(self.device)

    def model(self, folder: str | Path) -> PreTrainedModel:
        """Load the model of a member's folder. Errors as in `checkpoint.load_model`."""
        return self.placed(checkpoint.load_model(folder))

    def member(self, folder: str | Path) -> tuple[PreTrainedModel, Any]:
        """Load (model, tokenizer) of a member's folder. Errors as in `checkpoint.load_member`."""
        model, tokenizer = checkpoint.load_member(folder)
        return self.placed(model), tokenizer


def begin(
    job: Job, key: str, setting: str, folders: Iterable[str | Path], resumes: bool = False
) -> Inference:
    """Prepare the device and the precision for the models of `folders`, and note them.

    `setting` is the config's value of `key`. `resumes`: the job has saved work besides batches.
    With `auto`, an architecture that bf16 would change is computed in fp32.
    ValueError: a GPU is unusable or lacks the precision, or bf16 would change the architecture.
    """
    device = prepare(job.device, job.params.cpu_threads)
    precision = choose(setting, device, key)
    configs = map(checkpoint.load_config, folders if precision == "bf16" else ())
    if reason := next(filter(None, map(why_not_bf16, configs)), None):
        if setting == "bf16":
            raise ValueError(
                f"{key}: 'bf16' changes this architecture ({reason}); allowed: auto, fp32. Set "
                f"{key}: fp32"
            )
        job.log.info("%s: fp32, because bf16 changes this architecture: %s", key, reason)
        precision = "fp32"
    set_products(precision, device)
    if device.type == "cuda" or precision != "fp32":
        job.used = {"precision": precision}
        job.log.info("precision %s", precision)
    job.note_hardware(resumes or resume.resumes())
    return Inference(device, precision)
