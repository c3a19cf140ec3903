"""Load models to write text or to be scored, in the precision that the config asks for."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

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

    def member(
        self, folder: str | Path, instance: "Instance | None" = None
    ) -> tuple[PreTrainedModel, Any]:
        """Load (model, tokenizer) of a member's folder, into an instance if there is one.

        Errors as in `checkpoint.load_member`.
        """
        if instance is None:
            model, tokenizer = checkpoint.load_member(folder)
            return self.placed(model), tokenizer
        model, tokenizer = checkpoint.load_member(folder, build=instance.build)
        return instance.place(model, self), tokenizer


class Instance:
    """A model that takes the weights of one member after another.

    A member of another configuration, device or precision gets a model of its own. So does any
    member after a computation that changed buffers that no file holds, such as the frequencies of
    some rotary positions.
    """

    def __init__(self) -> None:
        self.settings: dict = {}
        self.inference: Inference | None = None
        self.loaded: PreTrainedModel | None = None  # fp32, on the CPU
        self.placed: PreTrainedModel | None = None  # the same, unless device or type differ
        self.buffers: dict[str, torch.Tensor] = {}
        self.reused = False  # by the last `build`

    def build(self, config: AutoConfig) -> PreTrainedModel:
        """Return the model that the weights replace, or an empty one of the configuration."""
        settings = copy.deepcopy(config.to_dict()) | {"_name_or_path": None}  # the folder's
        self.reused = settings == self.settings and self._is_unchanged()
        if self.loaded is None or not self.reused:
            self.settings, self.placed = settings, None
            self.loaded = checkpoint.empty_model(config)
        return self.loaded

    def place(self, model: PreTrainedModel, inference: Inference) -> PreTrainedModel:
        """Return the model on the device, in the precision."""
        if self.placed is None or inference != self.inference:
            on_cpu = inference.device.type == "cpu"
            own = model if on_cpu or inference.precision == "bf16" else copy.deepcopy(model)
            self.inference, self.placed = inference, inference.placed(own)
            self.buffers = _unsaved_buffers(self.placed)
        elif self.placed is not model:
            self.placed.load_state_dict(model.state_dict())
        return self.placed

    def _is_unchanged(self) -> bool:
        if self.placed is None:
            return False
        now = _unsaved_buffers(self.placed)
        return now.keys() == self.buffers.keys() and all(
            torch.equal(one, self.buffers[name]) for name, one in now.items()
        )


def _unsaved_buffers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return copies of the buffers that no state dict holds."""
    saved = model.state_dict().keys()
    return {name: one.clone() for name, one in model.named_buffers() if name not in saved}


def begin(
    job: Job,
    key: str,
    setting: str,
    folders: Iterable[str | Path],
    resumes: bool = False,
    engine: dict[str, str] | None = None,
) -> Inference:
    """Prepare the device and the precision for the models of `folders`, and note them.

    `setting` is the config's value of `key`. `resumes`: the job has saved work besides batches.
    `engine` is what the record says about another engine than this package.
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
    if device.type == "cuda" or precision != "fp32" or engine:
        job.used = {"precision": precision, **(engine or {})}
        job.log.info("precision %s", precision)
    job.note_hardware(resumes or resume.resumes())
    return Inference(device, precision)
