"""Train on packed blocks by next-token prediction. A resume is bit-identical on a CPU.

B = sequences per step, T = context tokens. Each epoch reads the blocks in a seeded permutation.
Dropout, if there is any (`train.dropout`; study A, D.1 has none), draws the numbers of its step. So
a resume needs only the step, the weights and the optimizer's state.
"""

import gc
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from pollination.core import causes, resume
from pollination.core.artifacts import atomic
from pollination.core.job import Stopped, StopRequest
from pollination.core.seeds import derive_seed
from pollination.data.mixture import Blocks
from pollination.models.contract import CHUNKED, contract_of, why_masked
from pollination.models.device import without_kernel
from pollination.models.dropout import Dropout
from pollination.models.layers import checkpoint_activations
from pollination.models.limits import embedding_rows
from pollination.models.loss import Loss
from pollination.models.paths import next_token_loss
from pollination.models.precision import choose, set_products

BEST = "best.safetensors"
ONE_EXCEEDS = (
    "train.micro_batch_size: 1: one sequence exceeds the GPU's memory. Lower context_tokens, or "
    "use a smaller model or a larger GPU"
)
ADVICE = "lower train.learning_rate or raise train.warmup_steps"
# Steps x parameters from which on compiling gains: 1,500 steps of 138M parameters. An estimate, not
# measured: compiling takes a minute, and saves 40 ms of such a step (64 x 1,024 tokens; H200).
COMPILED_WORK = 200_000_000_000
Result = TypeVar("Result")
SAVE_EVERY_S = 600.0  # of checkpoints; not a key of the config, because it changes no result


def learning_rate(step: int, steps: int, settings: dict) -> float:
    """Return the learning rate of a step (study A, table 1).

    It rises linearly, then stays constant or follows a cosine to `min_lr_ratio` of the peak.
    """
    peak, warmup = settings["learning_rate"], settings["warmup_steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings["schedule"] == "constant":
        return peak
    progress = (step - warmup) / max(1, steps - warmup)
    floor = settings["min_lr_ratio"]
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def compiles(setting: bool | str | None, work: int, device: torch.device) -> bool:
    """Return whether torch.compile compiles a training, by the config's `train.compile`.

    `work` is the number of steps times that of parameters.
    """
    if isinstance(setting, bool):
        return setting
    return device.type == "cuda" and work >= COMPILED_WORK


@dataclass
class State:
    """The state that a resume restores.

    These are step, smoothed loss, best epoch's loss, metrics so far and the micro-batch's size.
    """

    step: int = 0
    smoothed: float = math.nan
    best: float = math.inf
    metrics: list[dict] = field(default_factory=list)
    micro: int | None = None  # None: a checkpoint of an earlier version


class Trainer:
    """The training of one model. It resumes only from a checkpoint with its `key`.

    `key` is the digest of settings and inputs.
    ValueError: the text is shorter than one block.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        blocks: Blocks,
        settings: dict,
        seed: int,
        device: torch.device,
        work: Path,
        key: str,
        log: Any,
        stop: StopRequest | None = None,
        validation: Blocks | None = None,
    ) -> None:
        if len(blocks) == 0:
            raise ValueError(
                "the training text is shorter than one block. Raise generate.tokens or "
                "train.tokens, or lower context_tokens"
            )
        self.blocks, self.settings, self.seed = blocks, settings, seed
        self.device, self.work, self.key, self.log, self.stop = device, work, key, log, stop
        self.validation = validation
        self.batch = min(settings["batch_size"], len(blocks))
        self.micro = self.asked = min(settings["micro_batch_size"] or self.batch, self.batch)
        self.epoch_steps = math.ceil(len(blocks) / self.batch)
        self.steps = settings["epochs"] * self.epoch_steps
        self.context_tokens = blocks.blocks(np.array([0])).shape[1]
        self.precision = choose(settings["precision"], device, "train.precision")
        self.bf16 = self.precision == "bf16"
        if settings["activation_checkpointing"]:
            checkpoint_activations(model)
        self.model = self.place(model)
        decayed = [p for p in model.parameters() if p.dim() >= 2]
        undecayed = [p for p in model.parameters() if p.dim() < 2]
        groups = [
            {"params": decayed, "weight_decay": settings["weight_decay"]},
            {"params": undecayed, "weight_decay": 0.0},
        ]
        betas = tuple(settings["betas"])
        self.optimizer = torch.optim.AdamW(
            groups, lr=settings["learning_rate"], betas=betas, eps=settings["epsilon"], fused=True
        )
        parameters = sum(p.numel() for p in model.parameters())
        self.to_compile = compiles(settings["compile"], self.steps * parameters, device)
        self.compiled = self.to_compile
        dropout = settings["dropout"]
        self.dropout = Dropout(self.model, dropout, seed) if dropout else None
        self.loss, self.validation_loss = self.training_loss(), next_token_loss(self.model)
        set_products(self.precision, device)
        self.autocast = torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()
        self.names = dict(model.named_parameters())
        self.state = State()
        self.following: tuple[int, torch.Tensor] | None = None  # the next step and its tokens

    # --- what several processes do otherwise (parallel.py)

    def place(self, model: PreTrainedModel) -> PreTrainedModel:
        """Put the model on the device, before the optimizer takes its parameters."""
        return model.to(self.device)

    def training_loss(self) -> Loss:
        return next_token_loss(self.model, self.compiled)

    def share(self, indices: np.ndarray) -> np.ndarray:
        """Return the part of a batch that this process reads."""
        return indices

    def parts(self, tokens_BT: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, float]]:
        """Yield (number, tokens, share of the whole batch) of each micro-batch."""
        for number, part in enumerate(tokens_BT.split(self.micro)):
            yield number, part, len(part) / len(tokens_BT)

    def clip(self) -> torch.Tensor:
        """Clip the gradients. Return their norm before that."""
        limit = self.settings["max_grad_norm"]
        return torch.nn.utils.clip_grad_norm_(self.names.values(), limit)

    def check_dropout(self) -> None:
        if self.dropout:
            self.dropout.check(self.read(0)[:1])

    def put(self, parameter: torch.Tensor, whole: torch.Tensor) -> None:
        parameter.copy_(whole)

    def is_finite(self, parameter: torch.Tensor) -> bool:
        return bool(torch.isfinite(parameter).all())

    def decide(self, due: bool) -> tuple[bool, bool]:
        """Return whether to stop, and whether to save a checkpoint, which may be `due`."""
        return bool(self.stop), due

    def save_best(self) -> None:
        with atomic(self.work / BEST) as temporary:
            save_file(
                {name: p.detach().contiguous().cpu().clone() for name, p in self.names.items()},
                str(temporary),
            )

    # --- work in progress

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint.safetensors"

    @property
    def used(self) -> dict[str, int | str]:
        """What the machine made of the settings, for the record."""
        values = {"micro_batch_size": (self.asked, self.micro)}
        values["compiled"] = (self.to_compile, self.compiled)
        on_gpu = self.device.type == "cuda"
        used = {name: used for name, (asked, used) in values.items() if on_gpu or used != asked}
        return used | ({"precision": self.precision} if on_gpu else {})

    def save(self) -> None:
        """Save weights, both moments, step and metrics in one file. Replace it atomically."""
        self.state.micro = self.micro
        tensors = {f"weights.{name}": p.detach() for name, p in self.names.items()}
        for name, p in self.names.items():
            moments = self.optimizer.state.get(p, {})
            tensors |= {
                f"{kind}.{name}": moments[kind]
                for kind in ("exp_avg", "exp_avg_sq", "step")
                if kind in moments
            }
        tensors = {name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}
        metadata = {"key": self.key, "state": json.dumps(vars(self.state))}
        with atomic(self.checkpoint) as temporary:
            save_file(tensors, str(temporary), metadata=metadata)

    @torch.no_grad()
    def restore(self, file: Any, prefix: str) -> None:
        """Copy the weights of an open safetensors file. ValueError: they are not the model's."""
        saved = {name.removeprefix(prefix) for name in file.keys() if name.startswith(prefix)}
        for name, p in self.names.items():
            tensor = file.get_tensor(prefix + name) if name in saved else None
            if tensor is None or tensor.shape != p.shape or len(saved) != len(self.names):
                raise ValueError(
                    f"{self.work}: its checkpoint does not hold the weights of this model, e.g. "
                    f"{name!r}. Delete the folder to restart at step 0"
                )
            self.put(p, tensor)

    def other_key(self, key: str) -> str:
        return (
            f"{self.checkpoint}: the digest of its settings and inputs is {key[:12]}, but this job "
            f"has {self.key[:12]}. Delete the file to restart at step 0"
        )

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one.

        ValueError: it has other settings or inputs.
        """
        if not self.checkpoint.exists():
            return
        try:
            file = safe_open(str(self.checkpoint), "pt")
        except (SafetensorError, OSError, ValueError) as error:
            if causes.of_system(error):  # the checkpoint may be whole
                raise
            self.log.warning(
                "%s: not readable (%s); training restarts at step 0",
                self.checkpoint,
                str(error).splitlines()[0],
            )
            return
        with file:
            metadata = file.metadata()
            if metadata["key"] != self.key:
                raise ValueError(self.other_key(metadata["key"]))
            self.restore(file, "weights.")
            with torch.no_grad():
                for name, p in self.names.items():
                    if f"exp_avg.{name}" in file.keys():
                        kinds = {
                            kind: file.get_tensor(f"{kind}.{name}")
                            for kind in ("exp_avg", "exp_avg_sq", "step")
                        }
                        self.optimizer.state[p] = {"step": kinds["step"]} | {
                            k: kinds[k].to(p.device) for k in ("exp_avg", "exp_avg_sq")
                        }
        if self.device.type == "cuda":  # the fused optimizer keeps its step counter on the GPU
            for moments in self.optimizer.state.values():
                moments["step"] = moments["step"].to(self.device)
        self.state = State(**json.loads(metadata["state"]))
        self.micro = self.state.micro or self.micro  # as before, on a larger GPU too
        self.log.info(
            "resumed at step %d of %d from %s", self.state.step, self.steps, self.checkpoint
        )

    # --- one step

    def batch_of(self, step: int) -> np.ndarray:
        """Return the block indices (B,) of a step: its slice of the epoch's permutation, sorted."""
        epoch, position = divmod(step, self.epoch_steps)
        if getattr(self, "_order_epoch", None) != epoch:
            self._order = np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(
                len(self.blocks)
            )
            self._order_epoch = epoch
        return np.sort(self._order[position * self.batch : (position + 1) * self.batch])

    def read(self, step: int) -> torch.Tensor:
        """Return the tokens (B, T) of a step on the device. A GPU computes during the copy."""
        tokens_BT = torch.from_numpy(self.blocks.blocks(self.share(self.batch_of(step))))
        return (
            tokens_BT.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else tokens_BT
        )

    def gradients(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Accumulate the gradients of a batch in micro-batches. Return its mean loss (nats).

        ValueError as in `fitted`.
        """
        return self.fitted(lambda: self.accumulate(tokens_BT), len(tokens_BT), self.compiled)

    def accumulate(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        for number, part, share in self.parts(tokens_BT):
            place = self.state.step, number
            with self.dropout.on(*place) if self.dropout else nullcontext():
                with self.autocast:
                    loss = self.loss(part) * share
                loss.backward()
            total += loss.detach()
        return total

    def fitted(
        self, compute: Callable[[], Result], sequences: int, compiled: bool = False
    ) -> Result:
        """Return `compute()`. Halve the micro-batches until it fits into the GPU's memory.

        If it is `compiled` and fails otherwise, the training continues without torch.compile.
        ValueError: one sequence does not fit, or `train.determinism: strict` cannot be kept.
        """
        while True:
            failure = None
            try:
                return compute()
            except Stopped:
                raise
            except Exception as error:
                if not causes.gpu_is_full(error):
                    if line := without_kernel(error):
                        raise ValueError(line) from None
                    if not compiled:
                        raise
                    failure = " ".join(str(error).split())[:300] or type(error).__name__
            # Only here, after the error and the frames that it held, can the failed graph be freed.
            self.optimizer.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
            if failure:
                self.log.warning(
                    "torch.compile failed (%s); the job trains without it, which is slower", failure
                )
                compiled = self.compiled = False
                self.loss = self.training_loss()
                continue
            self.micro = min(self.micro, sequences)
            if self.micro == 1:
                raise ValueError(ONE_EXCEEDS)
            self.micro = math.ceil(self.micro / 2)
            self.log.warning(
                "GPU memory is full; the job continues with a micro-batch size of %d",
                self.micro,
            )

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one optimizer step. Return (loss, gradient norm before clipping) on the device."""
        rate = learning_rate(self.state.step, self.steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        if self.following is not None and self.following[0] == self.state.step:
            loss = self.gradients(self.following[1])
        else:
            loss = self.gradients(self.read(self.state.step))
        norm = self.clip()
        self.optimizer.step()
        self.state.step += 1
        if self.state.step < self.steps:  # a GPU still computes this step
            self.following = self.state.step, self.read(self.state.step)
        return loss, norm

    def check(self, loss: float, norm: float) -> None:
        """Check a step's loss (nats per token) and gradient norm.

        ValueError: one is not finite, or the smoothed loss far exceeds that of a uniform guess.
        """
        step, uniform = self.state.step, math.log(embedding_rows(self.model))
        ceiling = 1.5 * uniform + 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ValueError(
                f"training stopped at step {step}: the loss is {loss}, the gradient norm {norm}; "
                f"allowed: finite numbers; {ADVICE}"
            )
        self.state.smoothed = (
            loss if math.isnan(self.state.smoothed) else 0.9 * self.state.smoothed + 0.1 * loss
        )
        if self.state.smoothed > ceiling and step >= 20:
            raise ValueError(
                f"training diverged at step {step}: the smoothed loss is "
                f"{self.state.smoothed:.2f} nats per token; allowed: at most {ceiling:.2f} (a "
                f"uniform guess has {uniform:.2f}); {ADVICE}"
            )

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean loss on the first `validation_blocks` blocks, in nats per token.

        ValueError as in `fitted`.
        """
        assert self.validation is not None
        count = min(len(self.validation), self.settings["validation_blocks"])
        return self.fitted(lambda: self.validation_mean(count), count)

    def validation_mean(self, count: int) -> float:
        assert self.validation is not None
        losses = []
        for indices in np.array_split(np.arange(count), math.ceil(count / self.micro)):
            rows = torch.from_numpy(self.validation.blocks(indices)).to(self.device)
            with self.autocast:
                losses.append(float(self.validation_loss(rows)) * len(indices))
        return sum(losses) / count

    # --- the whole training

    def announce(self) -> None:
        parameters = sum(p.numel() for p in self.names.values())
        tokens = len(self.blocks) * self.context_tokens * self.settings["epochs"]
        self.log.info(
            "device %s, %s parameters, %s tokens (%.1f per parameter)",
            self.device,
            f"{parameters:,}",
            f"{tokens:,}",
            tokens / parameters,
        )
        self.log.info(
            "%d steps of %d sequences x %d tokens; about %.2e FLOPs",
            self.steps,
            self.batch,
            self.context_tokens,
            6.0 * parameters * tokens,
        )
        if reason := contract_of(self.model).why(CHUNKED):
            self.log.info("the loss holds all logits at once, which takes more memory: %s", reason)
        if self.compiled and (reason := why_masked(self.model.config)):
            self.log.info("attention builds a mask, which is slower on a GPU: %s", reason)
        if self.dropout:
            self.fitted(self.check_dropout, 1)
            self.log.info("dropout: %s", self.dropout)
        if self.settings["warmup_steps"] >= self.steps:
            self.log.warning(
                "train.warmup_steps: %d is not below the %d steps, so the learning rate never "
                "reaches its peak; lower it",
                self.settings["warmup_steps"],
                self.steps,
            )

    def end_of_epoch(self) -> None:
        loss = self.validate()
        if not math.isfinite(loss):
            raise ValueError(
                f"training stopped at step {self.state.step}: the validation loss is {loss}; "
                f"{ADVICE}"
            )
        self.state.metrics.append({"step": self.state.step, "validation_loss": loss})
        self.log.info("step %d: validation loss %.4f", self.state.step, loss)
        if loss < self.state.best:
            self.state.best = loss
            self.save_best()

    def run(self) -> list[dict]:
        """Train to the end. Return the metrics, one dict per logged step.

        Stopped: a stop was requested. The checkpoint is saved if the request allows it.
        """
        self.announce()
        self.resume()
        every = max(1, self.steps // 200)
        started = saved = logged = time.monotonic()
        first = self.state.step
        interval = 1 if self.device.type == "cpu" else 10  # each check waits for the GPU
        while self.state.step < self.steps:
            loss, norm = self.step()
            step, now = self.state.step, time.monotonic()
            last = step == self.steps
            if step % interval == 0 or step % every == 0 or last:
                self.check(loss.item(), norm.item())
            if step % every == 0 or last:
                row = {
                    "step": step,
                    "tokens": step * self.batch * self.context_tokens,
                    "loss": loss.item(),
                    "learning_rate": self.optimizer.param_groups[0]["lr"],
                    "gradient_norm": norm.item(),
                }
                self.state.metrics.append(row)
            if now - logged > 10 or last:
                rate = (step - first) * self.batch * self.context_tokens / (now - started)
                left = (self.steps - step) * (now - started) / (step - first)
                self.log.info(
                    "step %d/%d loss %.4f, %.0f tokens/s, %.0f s left",
                    step,
                    self.steps,
                    loss.item(),
                    rate,
                    left,
                )
                logged = now
            if self.validation is not None and step % self.epoch_steps == 0:
                self.end_of_epoch()
            every_s = resume.save_every_s(SAVE_EVERY_S)
            stop, save = self.decide(now - saved > every_s)
            if stop:
                assert self.stop is not None
                outcome = "no checkpoint saved"
                if self.stop.may_save:
                    self.save()
                    outcome = "checkpoint saved; run the same command to resume"
                raise Stopped(
                    f"stopped by {self.stop.reason} at step {step} of {self.steps}; {outcome}"
                )
            if save:
                self.save()
                saved = now
        if self.validation is not None:
            with safe_open(str(self.work / BEST), "pt") as file:
                self.restore(file, "")
        for name, p in self.names.items():  # no loss has checked the last step's update
            if not self.is_finite(p):
                raise ValueError(
                    f"training stopped at step {self.state.step}: weight {name!r} holds NaN or "
                    f"infinity; {ADVICE}"
                )
        return self.state.metrics


def write_metrics(path: Path, metrics: Iterable[dict]) -> None:
    """Write train.jsonl, one JSON object per line.

    It holds no times, so equal runs have equal files.
    """
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in metrics), encoding="utf-8")
