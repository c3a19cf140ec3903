"""Train one model in several processes (ranks), one for each GPU, as one process trains it.

Each rank computes the gradients of its part of a batch. Their sum, over ranks and micro-batches, is
the gradient of the mean over the whole batch, also if its sequences do not divide among the ranks.
With `ddp`, each rank holds the model (arXiv 2006.15704). With `fsdp`, each rank holds a part of
weights, gradients and moments, and gathers one layer at a time (FSDP2; arXiv 2304.11277).
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from pollination.core import artifacts, causes
from pollination.core.artifacts import atomic
from pollination.models.checkpoint import empty_model, save_model
from pollination.models.device import without_kernel
from pollination.models.layers import layers_of
from pollination.models.loss import Loss
from pollination.models.paths import next_token_loss
from pollination.models.trainer import BEST, ONE_EXCEEDS, Result, State, Trainer

POINTER = "checkpoint.json"  # names the folder of the last whole checkpoint


class Retry(Exception):
    """The ranks must start again, with a smaller micro-batch or without torch.compile."""

    def __init__(self, micro: int | None = None, why: str = "") -> None:
        super().__init__(why)
        self.micro = micro


class Told:
    """The request to stop that the launcher writes into a file. As core.job.StopRequest."""

    def __init__(self, file: Path) -> None:
        self.file, self.reason, self.may_save = file, "", True

    def __bool__(self) -> bool:
        if not self.reason and self.file.exists():
            told = artifacts.read_json(self.file)
            self.reason, self.may_save = told["reason"], told["may_save"]
        return bool(self.reason)


class Whole(nn.Module):
    """A model whose forward pass is any function of it, as FSDP and DDP need it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable, *given):
        return function(*given)


def join_ranks(device: torch.device, timeout_s: float) -> None:
    """Connect this process with the other ranks that torchrun's agent has started."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        timeout=timedelta(seconds=timeout_s),
        device_id=device if device.type == "cuda" else None,
    )


def from_first(create: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """Return the model of `create` on rank 0. Other ranks get one without values.

    ValueError as in `create`.
    """
    model = create() if dist.get_rank() == 0 else None
    given = [model.config if model is not None else None]
    dist.broadcast_object_list(given, 0, device=torch.device("cpu"))
    if model is not None:
        return model
    model = empty_model(given[0])
    model.tie_weights()
    return model


class ParallelTrainer(Trainer):
    """A rank's part of a training. All ranks call the same methods at the same time.

    Rank 0 has the model's weights at the start, writes files, and decides when to stop and to save.
    `micro` is the largest micro-batch, after an earlier start that did not fit.
    """

    def __init__(self, model: PreTrainedModel, *given, micro: int | None = None) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        super().__init__(model, *given)
        largest = math.ceil(self.batch / self.ranks)
        self.asked = min(self.asked, largest)
        self.micro = min(self.asked, micro or largest)
        if self.sharded:
            self.validation_loss = partial(self.whole, self.validation_loss)

    @property
    def sharded(self) -> bool:
        return self.settings["parallel"] == "fsdp"

    @property
    def checkpoint(self) -> Path:
        return self.work / POINTER

    def place(self, model: PreTrainedModel) -> PreTrainedModel:
        self.whole = Whole(model)
        if not self.sharded:
            return model.to(self.device)
        values = {name: p.detach() for name, p in model.named_parameters()}
        self.mesh = init_device_mesh(self.device.type, (self.ranks,))
        # Residuals, the embedding and the head stay as in one process, under autocast.
        half = torch.bfloat16 if self.bf16 else None
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        for layer in layers_of(model):
            fully_shard(layer, mesh=self.mesh, mp_policy=policy)
        fully_shard(self.whole, mesh=self.mesh)
        for module in self.whole.modules():
            if isinstance(module, FSDPModule):  # the sum of gradients, not their mean
                module.set_force_sum_reduction_for_comms(True)
                module.set_gradient_divide_factor(1.0)
        with torch.no_grad():
            for name, p in model.named_parameters():
                value = values.pop(name)
                value = (
                    value.to(self.device)
                    if self.rank == 0
                    else torch.empty(p.shape, dtype=p.dtype, device=self.device)
                )
                part = distribute_tensor(value, self.mesh, p.placements)
                p.to_local().copy_(part.to_local())
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.broadcast(buffer, 0)
        return model

    def training_loss(self) -> Loss:
        loss = next_token_loss(self.model, self.compiled and not self.sharded)
        if self.sharded:
            self.compiled = self.to_compile = False
            return partial(self.whole, loss)
        self.replica = DistributedDataParallel(
            self.whole,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=self._has_unused(),
        )
        self.replica.register_comm_hook(None, _sum)
        return partial(self.replica, loss)

    def _has_unused(self) -> bool:
        """Return whether parameters have no gradient. DDP would wait for them."""
        tokens = torch.from_numpy(self.blocks.blocks(np.array([0]))[:, :16]).to(self.device)
        next_token_loss(self.model)(tokens).backward()
        unused = any(p.grad is None for p in self.model.parameters())
        self.model.zero_grad(set_to_none=True)
        return unused

    # --- one step

    def share(self, indices: np.ndarray) -> np.ndarray:
        """Return this rank's part of a batch; its first sequence, which does not count, if none."""
        own = np.array_split(indices, self.ranks)[self.rank]
        return own if len(own) else indices[:1]

    def parts(self, tokens_BT: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, float]]:
        """All ranks have equally many micro-batches. Those that a rank lacks count as 0."""
        batch = len(self.batch_of(self.state.step))
        own = len(np.array_split(np.arange(batch), self.ranks)[self.rank])
        parts = [(part, len(part) / batch) for part in tokens_BT[:own].split(self.micro) if own]
        count = math.ceil(math.ceil(batch / self.ranks) / self.micro)
        parts += [(tokens_BT[:1], 0.0)] * (count - len(parts))
        for index, (part, share) in enumerate(parts):
            if not self.sharded:  # the others' gradients are added once
                self.replica.require_backward_grad_sync = index == count - 1
            yield index * self.ranks + self.rank, part, share

    def accumulate(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        total = super().accumulate(tokens_BT)
        dist.all_reduce(total)
        return total

    def clip(self) -> torch.Tensor:
        norm = super().clip()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def fitted(
        self, compute: Callable[[], Result], sequences: int, compiled: bool = False
    ) -> Result:
        """Return `compute()`. If it does not fit, all ranks must start again (Retry)."""
        try:
            return compute()
        except Exception as error:
            if causes.gpu_is_full(error):
                micro = min(self.micro, sequences)
                if micro == 1:
                    raise ValueError(ONE_EXCEEDS) from None
                raise Retry(math.ceil(micro / 2)) from None
            if line := without_kernel(error):
                raise ValueError(line) from None
            if compiled and not isinstance(error, dist.DistError) and not is_loss(error):
                raise Retry(why=" ".join(str(error).split())[:300]) from error
            raise

    def validation_mean(self, count: int) -> float:
        assert self.validation is not None
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        chunks = np.array_split(np.arange(count), math.ceil(count / self.micro))
        for first in range(0, len(chunks), self.ranks):
            own = first + self.rank
            indices = chunks[min(own, len(chunks) - 1)]
            rows = torch.from_numpy(self.validation.blocks(indices)).to(self.device)
            with self.autocast:
                loss = self.validation_loss(rows)
            if own < len(chunks):
                total += loss * len(indices)
        dist.all_reduce(total)
        return float(total) / count

    def check_dropout(self) -> None:
        if self.sharded:
            self.whole(super().check_dropout)
        else:
            super().check_dropout()

    # --- decisions of rank 0

    def decide(self, due: bool) -> tuple[bool, bool]:
        assert isinstance(self.stop, Told)
        flags = torch.tensor([bool(self.stop), self.stop.may_save, due], dtype=torch.int32)
        dist.broadcast(flags, 0)
        stop, self.stop.may_save, save = (bool(flag) for flag in flags.tolist())
        return stop, save

    # --- weights

    def gathered(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the whole parameter on the CPU."""
        whole = parameter.detach()
        return (whole.full_tensor() if isinstance(whole, DTensor) else whole).cpu()

    def put(self, parameter: torch.Tensor, whole: torch.Tensor) -> None:
        if isinstance(parameter, DTensor):
            whole = whole.to(self.device)
            part = distribute_tensor(whole, self.mesh, parameter.placements, src_data_rank=None)
            parameter.to_local().copy_(part.to_local())
        else:
            parameter.copy_(whole)

    def is_finite(self, parameter: torch.Tensor) -> bool:
        own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        return super().is_finite(own)

    def save_best(self) -> None:
        whole = {}
        for name, p in self.names.items():
            value = self.gathered(p)  # all ranks take part
            if self.rank == 0:
                whole[name] = value.contiguous().clone()
        if self.rank == 0:
            with atomic(self.work / BEST) as temporary:
                save_file(whole, str(temporary))
        dist.barrier()

    @torch.no_grad()
    def write(self, folder: Path) -> None:
        """Write the model into `folder`, in one file, as one process does."""
        if not self.sharded:
            if self.rank == 0:
                save_model(self.model, folder)
            return
        plain = empty_model(self.model.config) if self.rank == 0 else None
        if plain is not None:
            plain.tie_weights()
        targets = dict(plain.named_parameters()) if plain is not None else {}
        for name, p in self.names.items():
            value = self.gathered(p)
            if plain is not None:
                targets[name].copy_(value)
        if plain is not None:
            for name, buffer in plain.named_buffers():
                buffer.copy_(self.model.get_buffer(name))
            save_model(plain, folder)

    # --- work in progress

    def tensors(self) -> dict[str, Any]:
        """Return weights and moments by name. Each rank saves and loads its part of them."""
        found: dict[str, Any] = {f"weights.{name}": p.detach() for name, p in self.names.items()}
        for name, p in self.names.items():
            found |= {
                f"{kind}.{name}": value for kind, value in self.optimizer.state.get(p, {}).items()
            }
        return found

    def save(self) -> None:
        """Save the checkpoint in a folder of its own. Then replace the pointer atomically."""
        self.state.micro = self.micro
        folder = self.work / f"checkpoint.{self.state.step}"
        if self.rank == 0:  # left by a start that was killed
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        with plain_errors():
            dcp.save(self.tensors(), checkpoint_id=str(folder))
        if self.rank == 0:
            sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
            about = {"key": self.key, "folder": folder.name, "sizes": sizes}
            with atomic(self.checkpoint) as temporary:
                temporary.write_text(json.dumps(about | {"state": vars(self.state)}))
            for other in self.work.glob("checkpoint.*"):
                if other.is_dir() and other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        dist.barrier()

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one.

        ValueError: it has other settings or inputs, or torch cannot read it.
        """
        given = [self._saved() if self.rank == 0 else None]
        dist.broadcast_object_list(given, 0, device=torch.device("cpu"))
        if not (about := given[0]):
            return
        if "refusal" in about:
            raise ValueError(about["refusal"])
        folder = self.work / about["folder"]
        try:
            reader = dcp.FileSystemReader(str(folder))
            with torch.no_grad():
                for name, p in self.names.items():
                    if f"exp_avg.{name}" in reader.read_metadata().state_dict_metadata:
                        on_gpu = self.device if self.device.type == "cuda" else None
                        self.optimizer.state[p] = {
                            "step": torch.zeros((), device=on_gpu),
                            "exp_avg": torch.zeros_like(p),
                            "exp_avg_sq": torch.zeros_like(p),
                        }
            with plain_errors():
                dcp.load(self.tensors(), storage_reader=reader)
        except Exception as error:  # pickles and files fail in many ways
            if causes.of_system(error) or is_loss(error):
                raise
            raise ValueError(
                f"{folder}: not a readable checkpoint ({str(error).splitlines()[0][:200]}). Delete "
                "the folder to restart at step 0"
            ) from None
        self.state = State(**about["state"])
        self.micro = min(self.state.micro or self.micro, self.micro)
        step = self.state.step
        self.log.info("resumed at step %d of %d from %s", step, self.steps, folder)

    def _saved(self) -> dict | None:
        """Return what the pointer says; None if there is no whole checkpoint."""
        if not self.checkpoint.exists():
            return None
        try:
            about = json.loads(self.checkpoint.read_text())
            folder, sizes = self.work / about["folder"], about["sizes"]
            found = {p.name: p.stat().st_size for p in folder.iterdir()} if folder.is_dir() else {}
            if found != sizes:
                raise ValueError("files are missing or truncated")
        except (ValueError, LookupError, TypeError) as error:
            self.log.warning(
                "%s: not readable (%s); training restarts at step 0", self.checkpoint, error
            )
            return None
        if about["key"] != self.key:
            return {"refusal": self.other_key(about["key"])}
        return about


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what failed in a rank in place of CheckpointException, which is no Exception."""
    try:
        yield
    except dcp.CheckpointException as error:
        first = min(error.failures)
        raise error.failures[first][0] from None


def is_loss(error: BaseException) -> bool:
    """Return whether an error only says that another rank has ended or does not answer."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in ("gloo", "nccl", "timed out", "connection", "socket", "broken pipe")
    )


def _sum(_state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Add up the gradients of the ranks; DDP alone would take their mean."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])
