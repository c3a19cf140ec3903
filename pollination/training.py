"""Training: next-token prediction on packed blocks, resumable at any step, bit for bit on a CPU.

B = sequences a step, T = context tokens. The order of blocks is a seeded permutation an epoch, and no random number is
drawn inside the loop (no dropout: study A, D.1), so step, weights and optimizer state are all that a resume needs.
"""

import json
import math
import os
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from pollination.artifacts import atomic
from pollination.job import Stopped, StopRequest
from pollination.losses import next_token_loss, whole_logits
from pollination.seeds import derive_seed

ADVICE = "lower train.learning_rate or lengthen train.warmup_steps"
SAVE_EVERY_S = 600.0  # work in progress; no setting of the config, because it changes no result


class Blocks(Protocol):
    """Training text: `len` blocks, `blocks(indices)` an int64 array (B, T)."""

    def __len__(self) -> int: ...
    def blocks(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass
class Mixture:
    """Blocks of which some are taken from other text: `human[i]` (or -1: keep) replaces synthetic block i."""

    synthetic: Blocks
    other: Blocks
    human: np.ndarray

    def __len__(self) -> int:
        return len(self.synthetic)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        rows = self.synthetic.blocks(indices)
        chosen = self.human[indices]
        if (chosen >= 0).any():
            rows[chosen >= 0] = self.other.blocks(chosen[chosen >= 0])
        return rows


@dataclass
class Subset:
    """Some blocks of another text, in the order of `chosen`."""

    source: Blocks
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        return self.source.blocks(self.chosen[indices])


@dataclass
class Joined:
    """Texts one after another."""

    parts: list[Blocks]

    def __post_init__(self) -> None:
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        where = np.searchsorted(self.ends, indices, side="right")
        order = np.argsort(where, kind="stable")  # each text is read once
        rows = [self.parts[i].blocks(indices[where == i] - (self.ends[i] - len(self.parts[i]))) for i in np.unique(where)]
        return np.concatenate(rows)[np.argsort(order)]


def mix(synthetic: Blocks, other: Blocks, fraction: float, seed: int) -> Mixture:
    """Replace a share of blocks by human blocks, both drawn without replacement. ValueError: not enough human text."""
    count = round(fraction * len(synthetic))
    if count > len(other):
        raise ValueError(
            f"human.fraction: {fraction} of {len(synthetic)} blocks is {count}, but the corpus has {len(other)} training blocks; allowed: less, or add text"
        )
    generator = np.random.default_rng(seed)
    human = np.full(len(synthetic), -1, dtype=np.int64)
    human[generator.choice(len(synthetic), count, replace=False)] = generator.choice(len(other), count, replace=False)
    return Mixture(synthetic, other, human)


def join(parts: list[Blocks]) -> Blocks:
    """Several texts as one, end to end."""
    return parts[0] if len(parts) == 1 else Joined(parts)


def sample(blocks: Blocks, count: int, seed: int) -> Subset:
    """`count` of the blocks (all, where there are fewer), drawn without replacement."""
    return Subset(blocks, np.random.default_rng(seed).permutation(len(blocks))[:count])


def segment(blocks: Blocks, context_tokens: int, spec: dict, member: int, seed: int) -> Subset:
    """The human text of founder `member`. `spec`: pool, tokens, segments, of (config keys of a pool). ValueError: text runs out.

    Blocks are shuffled (by the data seed), because neighbours in a corpus are of one book: founders shall differ by chance alone.
    Without `of`, segment m is the m-th `tokens` tokens; with it, the first `tokens` (None: all) are cut into `of` segments whose
    lengths differ by one block at most (study B, section 3: n = N / M).
    """
    pool, tokens, of, order = spec["pool"], spec["tokens"], spec["of"], np.random.default_rng(seed).permutation(len(blocks))
    number = {"distinct": member, "same": 0}[spec["segments"]] if isinstance(spec["segments"], str) else spec["segments"][member]
    count = len(blocks) if tokens is None else tokens // context_tokens
    first, last = (0, count) if of else (number * count, (number + 1) * count)
    if last > len(blocks):
        raise ValueError(
            f"founders.{pool}.train.tokens: founder {member} needs blocks {first} to {last} of its corpus, which has {len(blocks)}"
            f" ({len(blocks) * context_tokens:,} tokens); lower train.tokens, add text, or set segments: same"
        )
    chosen = np.array_split(order[:count], of)[number] if of else order[first:last]
    if len(chosen) == 0:
        raise ValueError(
            f"founders.{pool}.train.tokens: {tokens} give founder {member} less than one block of {context_tokens} tokens; allowed: at least that"
        )
    return Subset(blocks, chosen)


def learning_rate(step: int, steps: int, settings: dict) -> float:
    """Linear warm-up, then cosine to `final_learning_rate` of the peak (study A, table 1) or constant."""
    peak, warmup = settings["learning_rate"], settings["warmup_steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings["schedule"] == "constant":
        return peak
    progress = (step - warmup) / max(1, steps - warmup)
    floor = settings["final_learning_rate"]
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@dataclass
class State:
    """What a resume needs: the step, the running loss, the metrics so far, and the best epoch's loss."""

    step: int = 0
    smoothed: float = math.nan
    best: float = math.inf
    metrics: list[dict] = field(default_factory=list)


class Trainer:
    """One model's training. `key` is the digest of settings and inputs: a checkpoint of another key is never taken up."""

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
                "there is not one whole block of text to train on; raise generate.tokens (or train.tokens), or shorten context_tokens"
            )
        self.model, self.blocks, self.settings, self.seed = model.to(device), blocks, settings, seed
        self.device, self.work, self.key, self.log, self.stop = device, work, key, log, stop
        self.validation = validation
        self.batch = min(settings["batch_sequences"], len(blocks))
        self.micro = settings["micro_batch_sequences"] or self.batch
        self.epoch_steps = math.ceil(len(blocks) / self.batch)
        self.steps = settings["epochs"] * self.epoch_steps
        self.context_tokens = blocks.blocks(np.array([0])).shape[1]
        decayed = [p for p in model.parameters() if p.dim() >= 2]
        other = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": other, "weight_decay": 0.0}]
        betas = tuple(settings["betas"])
        self.optimizer = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=betas, eps=settings["epsilon"], fused=True)
        on_gpu = device.type == "cuda"
        compiled = settings["compile"] if settings["compile"] is not None else on_gpu
        self.loss, self.validation_loss = next_token_loss(self.model, compiled), next_token_loss(self.model)
        bf16 = settings["precision"] == "bf16" or (settings["precision"] == "auto" and on_gpu)
        self.autocast = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
        self.names = {name: p for name, p in model.named_parameters()}
        self.state = State()
        self.following: tuple[int, torch.Tensor] | None = None  # (step, its tokens), read ahead

    # --- work in progress --------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint.safetensors"

    def save(self) -> None:
        """Weights, both moments, step and metrics in one file, replaced atomically."""
        tensors = {f"weights.{name}": p.detach() for name, p in self.names.items()}
        for name, p in self.names.items():
            moments = self.optimizer.state.get(p, {})
            tensors |= {f"{kind}.{name}": moments[kind] for kind in ("exp_avg", "exp_avg_sq", "step") if kind in moments}
        tensors = {name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}
        metadata = {"key": self.key, "state": json.dumps(vars(self.state))}
        with atomic(self.checkpoint) as temporary:
            save_file(tensors, str(temporary), metadata=metadata)

    def resume(self) -> None:
        """Take up the checkpoint if there is one. ValueError: it belongs to other settings or inputs."""
        if not self.checkpoint.exists():
            return
        try:
            file = safe_open(str(self.checkpoint), "pt")
        except (SafetensorError, OSError, ValueError) as error:
            self.log.warning("%s: not readable (%s); training starts anew", self.checkpoint, str(error).splitlines()[0])
            return
        with file:
            metadata = file.metadata()
            if metadata["key"] != self.key:
                raise ValueError(
                    f"{self.checkpoint}: it was saved with settings and inputs {metadata['key'][:12]}, this job has {self.key[:12]}; delete it to start anew"
                )
            with torch.no_grad():
                for name, p in self.names.items():
                    p.copy_(file.get_tensor(f"weights.{name}"))
                    if f"exp_avg.{name}" in file.keys():
                        kinds = {kind: file.get_tensor(f"{kind}.{name}") for kind in ("exp_avg", "exp_avg_sq", "step")}
                        self.optimizer.state[p] = {"step": kinds["step"]} | {k: kinds[k].to(p.device) for k in ("exp_avg", "exp_avg_sq")}
        if self.device.type == "cuda":  # the fused optimizer keeps its step counter on the GPU
            for moments in self.optimizer.state.values():
                moments["step"] = moments["step"].to(self.device)
        self.state = State(**json.loads(metadata["state"]))
        self.log.info("resumed at step %d of %d from %s", self.state.step, self.steps, self.checkpoint)

    # --- one step ----------------------------------------------------------------------------------------------

    def batch_of(self, step: int) -> np.ndarray:
        """Block indices of a step: its part of the epoch's permutation, which depends on seed and epoch alone."""
        epoch, position = divmod(step, self.epoch_steps)
        if getattr(self, "_order_epoch", None) != epoch:
            self._order = np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(len(self.blocks))
            self._order_epoch = epoch
        return np.sort(self._order[position * self.batch : (position + 1) * self.batch])

    def read(self, step: int) -> torch.Tensor:
        """Tokens (B, T) of a step on the device; the copy to a GPU goes on while it computes."""
        tokens_BT = torch.from_numpy(self.blocks.blocks(self.batch_of(step)))
        return tokens_BT.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tokens_BT

    def gradients(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Accumulate the gradients of a batch in micro-batches; returns its mean loss. A GPU short of memory halves them."""
        while True:
            try:
                total = torch.zeros((), device=self.device)
                for part in tokens_BT.split(self.micro):
                    with self.autocast:
                        loss = self.loss(part) * (len(part) / len(tokens_BT))
                    loss.backward()
                    total += loss.detach()
                return total
            except torch.OutOfMemoryError:
                if self.micro == 1:
                    raise ValueError(
                        "train.micro_batch_sequences: one sequence does not fit this GPU's memory; use a smaller context or model"
                    ) from None
                self.micro = math.ceil(self.micro / 2)
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                self.log.warning("GPU memory is too small: going on with %d sequences a forward pass", self.micro)

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimizer step: (loss, norm of the gradient before clipping), both still on the device."""
        rate = learning_rate(self.state.step, self.steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        ahead = self.following is not None and self.following[0] == self.state.step
        loss = self.gradients(self.following[1] if ahead else self.read(self.state.step))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["clip_norm"])
        self.optimizer.step()
        self.state.step += 1
        if self.state.step < self.steps:  # a GPU is still at work on this step
            self.following = self.state.step, self.read(self.state.step)
        return loss, norm

    def check(self, loss: float, norm: float) -> None:
        """ValueError where the loss is not finite, or has grown beyond what a model that knows nothing has."""
        step, ceiling = self.state.step, 1.5 * math.log(self.model.config.vocab_size) + 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ValueError(f"training stopped at step {step}: the loss is {loss}, the gradient's norm {norm}; {ADVICE}")
        self.state.smoothed = loss if math.isnan(self.state.smoothed) else 0.9 * self.state.smoothed + 0.1 * loss
        if self.state.smoothed > ceiling and step >= 20:
            raise ValueError(
                f"training diverged at step {step}: the loss is {loss:.2f} nats (a uniform guess has {math.log(self.model.config.vocab_size):.2f}); {ADVICE}"
            )

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss on the first `validation_blocks` validation blocks, in nats a token."""
        count = min(len(self.validation), self.settings["validation_blocks"])
        losses = []
        for indices in np.array_split(np.arange(count), math.ceil(count / self.micro)):
            rows = torch.from_numpy(self.validation.blocks(indices)).to(self.device)
            with self.autocast:
                losses.append(float(self.validation_loss(rows)) * len(indices))
        return sum(losses) / count

    # --- the whole ---------------------------------------------------------------------------------------------

    def announce(self) -> None:
        parameters = sum(p.numel() for p in self.names.values())
        tokens = len(self.blocks) * self.context_tokens * self.settings["epochs"]
        self.log.info(
            "device %s, %s parameters, %s tokens (%.1f a parameter)", self.device, f"{parameters:,}", f"{tokens:,}", tokens / parameters
        )
        self.log.info(
            "%d steps of %d sequences x %d tokens; about %.2e FLOPs", self.steps, self.batch, self.context_tokens, 6.0 * parameters * tokens
        )
        if whole_logits(self.model):
            self.log.info("the loss is computed from all logits at once, which takes more memory: %s", whole_logits(self.model))
        if self.settings["warmup_steps"] >= self.steps:
            self.log.warning(
                "train.warmup_steps %d is not less than the %d steps: the peak is never reached", self.settings["warmup_steps"], self.steps
            )

    def end_of_epoch(self) -> None:
        loss = self.validate()
        if not math.isfinite(loss):
            raise ValueError(f"training stopped at step {self.state.step}: the validation loss is {loss}; {ADVICE}")
        self.state.metrics.append({"step": self.state.step, "validation_loss": loss})
        self.log.info("step %d: validation loss %.4f", self.state.step, loss)
        if loss < self.state.best:
            self.state.best = loss
            with atomic(self.work / "best.safetensors") as temporary:
                save_file({name: p.detach().contiguous().cpu().clone() for name, p in self.names.items()}, str(temporary))

    def run(self) -> list[dict]:
        """Train to the end; returns the metrics (one dict a logged step). Stopped: asked to stop, and saved."""
        self.announce()
        self.resume()
        every = max(1, self.steps // 200)
        started = saved = logged = time.monotonic()
        first = self.state.step
        interval = 1 if self.device.type == "cpu" else 10  # a GPU is not made to wait for the host at every step
        while self.state.step < self.steps:
            loss, norm = self.step()
            step, now = self.state.step, time.monotonic()
            last = step == self.steps
            if step % interval == 0 or step % every == 0 or last:
                self.check(loss.item(), norm.item())
            if step % every == 0 or last:
                row = {"step": step, "tokens": step * self.batch * self.context_tokens, "loss": loss.item()}
                self.state.metrics.append(row | {"learning_rate": self.optimizer.param_groups[0]["lr"], "gradient_norm": norm.item()})
            if now - logged > 10 or last:
                rate = (step - first) * self.batch * self.context_tokens / (now - started)
                left = (self.steps - step) * (now - started) / (step - first)
                self.log.info("step %d/%d loss %.4f, %.0f tokens/s, %.0f s left", step, self.steps, loss.item(), rate, left)
                logged = now
            if self.validation is not None and step % self.epoch_steps == 0:
                self.end_of_epoch()
            if self.stop:
                if self.stop.may_save:
                    self.save()
                raise Stopped(f"stopped by {self.stop.reason} at step {step} of {self.steps}; saved, the next start goes on from there")
            if now - saved > float(os.environ.get("POLLINATION_SAVE_EVERY_S", SAVE_EVERY_S)):
                self.save()
                saved = now
        if self.validation is not None:
            with safe_open(str(self.work / "best.safetensors"), "pt") as file, torch.no_grad():
                for name, p in self.names.items():
                    p.copy_(file.get_tensor(name))
        for name, p in self.names.items():  # the last step's update is in no loss yet
            if not torch.isfinite(p).all():
                raise ValueError(f"training stopped at step {self.state.step}: weight {name!r} holds NaN or infinity; {ADVICE}")
        return self.state.metrics


def write_metrics(path: Path, metrics: Iterable[dict]) -> None:
    """train.jsonl: one JSON object a line; no times in it, so equal training gives an equal file."""
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in metrics), encoding="utf-8")
