"""Compare the GPU code paths with their peers: `python -m benchmarks.gpu`, under 8 minutes.

It measures two limits of the device, its rate of matrix products and its memory bandwidth. Each
result shows its share of the limits that the vendor publishes, or of the measured ones if the GPU
is not known here. MFU counts the FLOPs of the model's matrix products and attention (three times
the forward pass in training). Bandwidth counts the bytes that each step must read once: the weights
in their precision, and keys and values at their length in that step. --tiny runs on any machine.
"""

import argparse
import contextlib
import copy
import gc
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu_processes import (
    BATCH,
    OF_A_GROUP,
    SHARED,
    sampled_by_vllm,
    save_member,
    scored,
    sequences,
)
from benchmarks.gpu_profile import Profile, profiled
from benchmarks.harness import OURS, ROOT, call
from pollination.core import artifacts
from pollination.core.commit import git_commit
from pollination.models.inference import Inference
from pollination.models.precision import choose, set_products

RESULTS, DRY_RUN = ROOT / "results/gpu.json", ROOT / "results/gpu.dry-run.json"
BUDGET_S = 450.0
SLOWER = 3.0  # than its estimate a row may be, before it ends for the sake of the others
GRACE_S = 15.0  # after the budget, before a call that cannot be interrupted ends the process
# (FLOP/s of dense bf16 products, bytes/s of memory); source: NVIDIA's data sheets
PUBLISHED = {
    "H200": (989e12, 4.8e12),
    "H100 80GB HBM3": (989e12, 3.35e12),
    "H100 PCIe": (756e12, 2.0e12),
    "A100-SXM4-80GB": (312e12, 2.039e12),
}
BEAMS, TARGETS, VLLM = 5, 4, "vLLM"
MEMBERS, EXTRAPOLATED = 16, 100_000  # models per generation, sequences per model
TRAINING, SAMPLING, SEARCH, SCORING = "training", "sampling", f"{BEAMS} beams", "scoring"
WHOLE_JOB = "scoring job"  # with the start of its process
TRAIN_STEP, DECODE_STEP = "training step", "decoding step"


def is_ours(row: dict, path: str) -> bool:
    return row["path"] == path and row["side"] == OURS


@dataclass(frozen=True)
class Goal:
    """A figure of a row of ours that one H200 should reach."""

    path: str
    figure: str
    least: float
    words: str

    def judged(self, rows: list[dict]) -> dict:
        found = next(
            (
                row.get(self.figure)
                for row in rows
                if (row["path"], row["side"]) == (self.path, OURS)
            ),
            None,
        )
        met = None if found is None else found >= self.least
        return {"path": self.path, "goal": self.words, "least": self.least} | {
            "found": found,
            "met": met,
        }


GOALS = (
    Goal(TRAINING, "rate", 400_000, "400,000 tokens/s"),
    Goal(SAMPLING, "bandwidth", 0.6, "60 % of the bandwidth's roofline"),
    Goal(SEARCH, "ratio", 10, "10 times transformers"),
)


@dataclass(frozen=True)
class Size:
    """The amount of work: the model, and the batch of each path."""

    model: dict
    context: int
    train_sequences: int
    train_steps: int
    rows: int  # sampled side by side
    peer_rows: tuple[int, ...]  # batch sizes of the peer; the best one counts
    profiled: tuple[int, int]  # new tokens of two samplings, whose difference is profiled
    searched: int
    search_tokens: int
    scored: int  # sequences
    process_scored: int  # sequences that a process of its own scores
    product: int  # width of the matrices multiplied
    copied: int  # bytes moved to measure bandwidth


STUDY_A = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
SMALL = {
    "vocab_size": 211,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SIZES = {
    "full": Size(STUDY_A, 1024, 32, 10, 256, (64, 256), (16, 80), 32, 128, 512, 2048, 8192, 2**31),
    "tiny": Size(SMALL, 32, 4, 2, 4, (4,), (2, 4), 2, 4, 8, 8, 64, 2**16),
}


class Ended(BaseException):
    """A row used its time. It is no Exception, so that no library takes it for its own."""


@dataclass(frozen=True)
class Task:
    """A row: `measure` returns (amount, seconds); `flops` and `read` (bytes) are of the amount.

    It starts if `needed_s`, an estimate for one H200, are left.
    """

    path: str
    side: str
    needed_s: float
    measure: Callable[[], tuple[float, float]]
    unit: str = "tokens"
    flops: float = 0.0
    read: float = 0.0
    apart: bool = False  # in a process of its own, whose memory is not known


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Ended in this block after so many seconds."""

    def end(*_) -> None:
        raise Ended

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """A device, a size, and the results so far."""

    def __init__(self, size: Size, device: torch.device, folder: Path) -> None:
        self.size, self.device, self.folder = size, device, folder
        self.rows: list[dict] = []
        self.profiles: list[dict] = []
        self.left_out: list[dict] = []
        config = LlamaConfig(
            **size.model, max_position_embeddings=size.context, tie_word_embeddings=True
        )
        torch.manual_seed(0)
        self.trained = LlamaForCausalLM(config).eval()  # in fp32
        # on a CPU bf16 tests the code
        self.precision = choose("auto" if device.type == "cuda" else "bf16", device, "precision")
        set_products(self.precision, device)
        self.model = Inference(device, self.precision).placed(copy.deepcopy(self.trained))
        self.parameters = self.model.num_parameters()
        self.prompts = (
            np.random.default_rng(0)
            .integers(1, config.vocab_size, (max(size.rows, size.searched), size.context // 4))
            .tolist()
        )
        self.member = folder / "member"
        self.scores: dict[str, list[float]] = {}  # of the scoring jobs, by side
        self.trainer = None
        self.flops_per_s, self.bytes_per_s = self.limits()
        known = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.published = next((both for name, both in PUBLISHED.items() if name in known), None)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        self.wait()
        begun_s = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - begun_s) / times

    def add(self, task: Task, left_s: float) -> None:
        """Measure a row in at most `left_s` seconds. A row that fails says why."""
        on_gpu = self.device.type == "cuda"
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        row = {"path": task.path, "side": task.side, "unit": task.unit}
        try:
            with limited(left_s):
                amount, seconds = task.measure()
        except Ended:
            self.leave(task, f"it did not end within {left_s:.0f} s")
            return
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            full = isinstance(error, torch.OutOfMemoryError)
            self.rows.append(row | {"failed": "out of memory" if full else reason})
        else:
            flops_per_s, bytes_per_s = self.published or (self.flops_per_s, self.bytes_per_s)
            self.rows.append(
                row
                | {
                    "rate": amount / seconds,
                    "seconds": seconds,
                    "peak_mib": torch.cuda.max_memory_allocated() / 2**20
                    if on_gpu and not task.apart
                    else None,
                    "mfu": task.flops / seconds / flops_per_s or None,
                    "bandwidth": task.read / seconds / bytes_per_s or None,
                }
            )
        print(line(self.rows[-1]), flush=True)

    def leave(self, task: Task, reason: str) -> None:
        self.left_out.append({"path": task.path, "side": task.side, "reason": reason})
        print(f"{task.path}, {task.side}: left out: {reason}", flush=True)

    def tasks(self) -> list[Task]:
        """Return all rows, the most important first: the budget may leave out the last."""
        tasks = [*self.search(), *self.training(), *self.sampling(), *self.score()]
        return sorted(tasks, key=lambda task: (task.side != OURS) + (task.side == VLLM))  # stable

    # --- the device and the lower bounds

    def limits(self) -> tuple[float, float]:
        """Measure matrix products in the precision, and the bandwidth of a copy."""
        precision = torch.bfloat16 if self.precision == "bf16" else torch.float32
        a, b = (
            torch.randn(self.size.product, self.size.product, device=self.device, dtype=precision)
            for _ in range(2)
        )
        _ = a @ b
        flops_per_s = 2 * self.size.product**3 / self.seconds(lambda: a @ b, 10)
        source = torch.zeros(self.size.copied, dtype=torch.uint8, device=self.device)
        target = source.clone()
        bytes_per_s = 2 * self.size.copied / self.seconds(lambda: target.copy_(source), 10)
        print(
            f"{flops_per_s / 1e12:.3g} TFLOP/s in {precision}, {bytes_per_s / 1e9:.3g} GB/s",
            flush=True,
        )
        return flops_per_s, bytes_per_s

    def forward(self, tokens: float, contexts: float, heads: float) -> float:
        """Return the FLOPs of `tokens`, whose contexts sum to `contexts`, and `heads` logits."""
        shape = self.size.model
        width, layers = shape["hidden_size"], shape["num_hidden_layers"]
        blocks = 8 * width**2 + 6 * width * shape["intermediate_size"]
        return (
            layers * (blocks * tokens + 4 * width * contexts)
            + 2 * width * shape["vocab_size"] * heads
        )

    @property
    def weight_bytes(self) -> int:
        return sum(p.numel() * p.itemsize for p in self.model.parameters())

    @property
    def cache_bytes(self) -> int:
        """The keys and values of one token."""
        config = self.model.config
        heads = config.num_key_value_heads * config.head_dim
        return 2 * config.num_hidden_layers * heads * self.model.dtype.itemsize

    def written(self, rows: int, prompt: int, new: int, beams: int = 1) -> dict[str, float]:
        """Return the FLOPs and the bytes read of writing `new` tokens for each of `rows` prompts.

        The prompt gives the first token, and each further step reads the weights and the cache: the
        prompt once for its beams, and what each beam has written.
        """
        steps = range(1, new)
        contexts = rows * beams * sum(prompt + step for step in steps)
        flops = self.forward(rows * prompt, rows * prompt * (prompt + 1) / 2, rows)
        decoded = rows * beams * len(steps)
        flops += self.forward(decoded, contexts, decoded)
        cached = rows * sum(prompt + beams * step for step in steps)
        return {"flops": flops, "read": new * self.weight_bytes + cached * self.cache_bytes}

    # --- training

    def blocks(self, count: int) -> "Text":
        shape = (count, self.size.context)
        return Text(np.random.default_rng(1).integers(0, self.size.model["vocab_size"], shape))

    def training(self) -> Iterator[Task]:
        size = self.size
        read = size.context - 1  # the last token of a block is only predicted
        rows = size.train_sequences * read
        step = 3 * self.forward(rows, rows * (read + 1) / 2, rows)
        yield Task(TRAINING, OURS, 60, self.train_ours, flops=step)
        yield Task(TRAIN_STEP, OURS, 10, self.profile_training, "steps")
        peer = "transformers Trainer"
        yield Task(TRAINING, peer, 75, self.train_peer, flops=step * size.train_steps)

    def train_ours(self) -> tuple[float, float]:
        from pollination.core.settings import definition, with_defaults
        from pollination.models.trainer import Trainer

        size = self.size
        on_gpu = self.device.type == "cuda"  # compiled, as a long training is
        settings = with_defaults(
            {"batch_size": size.train_sequences, "epochs": 1, "compile": on_gpu},
            definition("train"),
        )
        text = self.blocks((size.train_steps + 8) * size.train_sequences)
        quiet = logging.getLogger("gpu")
        self.trainer = trainer = Trainer(
            self.fresh(), text, settings, 0, self.device, self.folder / "work", "gpu", quiet
        )
        for _ in range(3):  # compilation
            trainer.step()
        seconds = self.seconds(trainer.step, size.train_steps)
        return size.train_sequences * size.context, seconds

    def profile_training(self) -> tuple[float, float]:
        trainer, self.trainer = self.trainer, None
        if trainer is None:
            raise ValueError("the training before it failed")
        seconds = self.seconds(trainer.step, 2)
        self.note(TRAIN_STEP, profiled(trainer.step, self.device), seconds)
        return 1, seconds

    def train_peer(self) -> tuple[float, float]:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        size, ends_s = self.size, []
        wait = self.wait

        class Ends(TrainerCallback):
            def on_step_end(self, arguments, state, *_, **__) -> None:
                if state.global_step in (3, size.train_steps + 3):
                    wait()
                    ends_s.append(time.perf_counter())

        on_gpu = self.device.type == "cuda"
        arguments = TrainingArguments(
            output_dir=str(self.folder / "peer"),
            per_device_train_batch_size=size.train_sequences,
            max_steps=size.train_steps + 3,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            bf16=on_gpu and self.precision == "bf16",
            torch_compile=on_gpu,
            use_cpu=not on_gpu,
            logging_steps=10**6,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        arguments._n_gpu = 1  # else a machine with several trains on all of them
        rows = [
            {"input_ids": row, "labels": row}
            for row in self.blocks((size.train_steps + 3) * size.train_sequences).tokens_NT
        ]
        with contextlib.redirect_stdout(sys.stderr):
            Trainer(self.fresh(), arguments, train_dataset=rows, callbacks=[Ends()]).train()
        return size.train_steps * size.train_sequences * size.context, ends_s[-1] - ends_s[0]

    def fresh(self) -> LlamaForCausalLM:
        """Return a copy to train, so that all other paths use the same weights."""
        return copy.deepcopy(self.trained).to(self.device)

    # --- writing

    def sampling(self) -> Iterator[Task]:
        """The prompt fills a quarter of the context, and new tokens the rest."""
        size, prompt = self.size, self.size.context // 4
        new = size.context - prompt
        work = self.written(size.rows, prompt, new)
        yield Task(SAMPLING, OURS, 25, partial(self.sample_ours, new), **work)
        yield Task(DECODE_STEP, OURS, 20, self.profile_decoding, "steps")
        choices = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
        for batch in reversed(size.peer_rows):
            peer = partial(self.generate, self.prompts[:batch], new, **choices)
            side = f"transformers generate, batch {batch}"
            yield Task(SAMPLING, side, 40, peer, **self.written(batch, prompt, new))
        vllm = partial(self.sample_vllm, prompt, new)
        yield Task(SAMPLING, VLLM, 100, vllm, **work, apart=True)

    def write(self, rows: int, new: int) -> list[list[int]]:
        from pollination.models.sampling import Decoding, sample

        decoding = Decoding(
            "nucleus", min_new_tokens=new, max_new_tokens=new, temperature=0.7, top_p=0.9
        )
        prompts = self.prompts[:rows]
        return list(sample(self.model, prompts, list(range(rows)), decoding, 0, rows))

    def sample_ours(self, new: int) -> tuple[float, float]:
        self.write(2, new)
        rows = self.size.rows
        return rows * new, self.seconds(lambda: self.write(rows, new))

    def profile_decoding(self) -> tuple[float, float]:
        """Profile the difference of two lengths: it has no prompt and no capture of a graph."""
        few, many = self.size.profiled
        works = [partial(self.write, self.size.rows, new) for new in (few, many)]
        works[1]()
        seconds = [self.seconds(work) for work in works]
        first, second = (profiled(work, self.device) for work in works)
        steps = many - few
        launches = second.launches - first.launches
        busy_s = (second.busy_s - first.busy_s) / steps
        longer_s = seconds[1] - seconds[0]
        one_s = longer_s / steps if longer_s > 0 else seconds[1] / many
        self.note(DECODE_STEP, Profile(launches, busy_s, second.calls), one_s, steps)
        return 1, one_s

    def note(self, step: str, found: Profile, seconds: float, steps: int = 1) -> None:
        """Add a profile of `steps` steps. `found.busy_s` and `seconds` are of one step.

        The seconds are measured without the profiler, which slows the host down.
        """
        on_gpu = self.device.type == "cuda"
        self.profiles.append(
            {
                "step": step,
                "counted": "kernels" if on_gpu else "operations",
                "count": found.kernels / steps,
                "seconds": seconds,
                "idle": max(0.0, 1 - found.busy_s / seconds) if on_gpu else None,
                "attention": found.attention,
                "most": [[name[:80], n / steps] for name, n in found.launches.most_common(5)],
            }
        )
        print(profile_line(self.profiles[-1]), flush=True)

    def generate(self, prompts: list[list[int]], new: int, **choices) -> tuple[float, float]:
        ids_BT = torch.tensor(prompts, device=self.device)

        def write(ids_BT: torch.Tensor, new: int) -> None:
            lengths = {"min_new_tokens": new, "max_new_tokens": new}
            self.model.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                pad_token_id=0,
                eos_token_id=0,
                **lengths,
                **choices,
            )

        write(ids_BT[:2], 4)
        return len(prompts) * new, self.seconds(lambda: write(ids_BT, new))

    def sample_vllm(self, prompt: int, new: int) -> tuple[float, float]:
        found = self.process(sampled_by_vllm, self.saved(), self.size.rows, prompt, new)
        return found["amount"], found["seconds"]

    def search(self) -> Iterator[Task]:
        from pollination.models.beam import beam_search

        new = self.size.search_tokens
        prompts = [row[:new] for row in self.prompts[: self.size.searched]]
        work = self.written(len(prompts), len(prompts[0]), new, BEAMS)

        def ours() -> tuple[float, float]:
            beam_search(self.model, prompts[:2], BEAMS, 4, 4, 1.0, 0)
            search = partial(beam_search, self.model, prompts, BEAMS, new, new, 1.0, 0)
            return len(prompts) * new, self.seconds(search)

        peer = partial(self.generate, prompts, new, num_beams=BEAMS, do_sample=False)
        yield Task(SEARCH, OURS, 20, ours, **work)
        yield Task(SEARCH, "transformers generate", 40, peer, **work)

    # --- scoring

    def score(self) -> Iterator[Task]:
        """Groups of eight share three quarters, like few-shot examples."""
        from pollination.models.prefix_tree import continuation_logprobs

        size = self.size
        texts = sequences(size.scored, size.context, size.model["vocab_size"])
        targets = [row[-TARGETS:] for row in texts]

        def shared_once() -> None:
            continuation_logprobs(self.model, texts, targets)

        @torch.inference_mode()
        def whole() -> None:
            for start in range(0, len(texts), BATCH):
                ids_BT = torch.from_numpy(np.stack(texts[start : start + BATCH])).to(self.device)
                logits = self.model(ids_BT, use_cache=False, logits_to_keep=TARGETS).logits
                logits.float().log_softmax(-1)

        def timed(work: Callable[[], None]) -> tuple[float, float]:
            work()
            return len(texts), self.seconds(work)

        length, long = size.context, int(size.context * SHARED)
        groups, heads = -(-len(texts) // OF_A_GROUP), len(texts) * TARGETS
        together = long * (long + 1) / 2  # the sum of the contexts of a shared beginning
        every = length * (length + 1) / 2
        own = len(texts) * (length - long), len(texts) * (every - together)
        needed = self.forward(groups * long + own[0], groups * together + own[1], heads)
        flops = self.forward(len(texts) * length, len(texts) * every, heads)
        side = f"whole sequences, batch {BATCH}"
        yield Task(SCORING, OURS, 20, partial(timed, shared_once), "sequences", needed)
        ours = partial(self.score_process, OURS)
        yield Task(WHOLE_JOB, OURS, 40, ours, "sequences", apart=True)
        yield Task(SCORING, side, 20, partial(timed, whole), "sequences", flops)
        peer = f"lm-eval HFLM, batch {BATCH}"
        theirs = partial(self.score_process, peer)
        yield Task(WHOLE_JOB, peer, 60, theirs, "sequences", apart=True)

    def score_process(self, side: str) -> tuple[float, float]:
        self.saved()
        size, begun_s = self.size, time.perf_counter()
        work = size.process_scored, size.context, TARGETS
        found = self.process(scored, self.member, side, self.device.type, *work)
        self.scores[side] = found["result"]
        return found["amount"], time.perf_counter() - begun_s

    @property
    def scores_apart(self) -> float | None:
        """The largest difference of a log-likelihood between the two scoring jobs, in nats."""
        if len(self.scores) < 2:
            return None
        one, other = map(np.array, self.scores.values())
        return float(np.abs(one - other).max())

    # --- processes of their own

    def saved(self) -> Path:
        if not self.member.exists():
            save_member(self.trained, self.member)
        return self.member

    def process(self, function: Callable[..., dict], *arguments) -> dict:
        """Return the result of a function in a new process, which ends with the row.

        RuntimeError: it failed; the message is its last line.
        """
        command = call(function, *arguments)
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
        env = os.environ | offline | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise RuntimeError(said[-1] if said else f"exit status {done.returncode}")
        return json.loads(done.stdout.splitlines()[-1])


class Text:
    """Blocks of token ids held in memory."""

    def __init__(self, tokens_NT: np.ndarray) -> None:
        self.tokens_NT = tokens_NT

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        return self.tokens_NT[indices]


def line(row: dict) -> str:
    """Return a row of the table."""
    head = f"{row['path']:14} {row['side']:34}"
    if "failed" in row:
        return f"{head} failed: {row['failed']}"

    def share(key: str) -> str:
        return "" if row[key] is None else f"{row[key]:.0%}"

    peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f} MiB"
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    return (
        f"{head} {row['rate']:12,.0f} {row['unit'] + '/s':12} MFU {share('mfu'):5} bandwidth "
        f"{share('bandwidth'):5} {peak:12} {ratio}"
    )


def profile_line(found: dict) -> str:
    idle = "" if found["idle"] is None else f", the GPU is idle for {found['idle']:.0%} of it"
    attention = ", ".join(found["attention"]) or "not recognised"
    return (
        f"{found['step']}: {found['count']:,.1f} {found['counted']}, {found['seconds'] * 1e3:,.2f} "
        f"ms{idle}; attention: {attention}"
    )


def with_ratios(rows: list[dict]) -> list[dict]:
    """Add to our rows the ratio of our rate to that of the best peer of the same path."""
    peers: dict[str, list[float]] = {}
    for row in rows:
        if row["side"] != OURS and "rate" in row:
            peers.setdefault(row["path"], []).append(row["rate"])

    def with_ratio(row: dict) -> dict:
        if row["side"] != OURS or "rate" not in row or row["path"] not in peers:
            return row
        return row | {"ratio": row["rate"] / max(peers[row["path"]])}

    return [with_ratio(row) for row in rows]


def about(device: torch.device, dry_run: bool) -> dict:
    """Return the machine and the versions of a measurement."""
    on_gpu = device.type == "cuda"
    return {
        "dry_run": dry_run,
        "device": torch.cuda.get_device_name(device)
        if on_gpu
        else platform.processor() or platform.machine(),
        "cuda": torch.version.cuda if on_gpu else None,
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "commit": git_commit(ROOT),
    }


def report(bench: Bench, seconds: float) -> dict:
    """Return everything measured so far."""
    rows = with_ratios(bench.rows)
    rate = next((row.get("rate") for row in rows if is_ours(row, SCORING)), None)
    return {
        "parameters": bench.parameters,
        "size": vars(bench.size),
        "precision": bench.precision,
        "measured": {"flops_per_s": bench.flops_per_s, "bytes_per_s": bench.bytes_per_s},
        "published": bench.published
        and dict(zip(("flops_per_s", "bytes_per_s"), bench.published, strict=True)),
        "seconds": seconds,
        "rows": rows,
        "scores_apart_nats": bench.scores_apart,
        "profiles": bench.profiles,
        "left_out": bench.left_out,
        # a dry run judges none
        "goals": [goal.judged(rows if bench.device.type == "cuda" else []) for goal in GOALS],
        "scoring_members_s_extrapolated": MEMBERS * EXTRAPOLATED / rate if rate else None,
    }


def measure_all(bench: Bench, budget_s: float, begun_s: float, write: Callable[[], None]) -> None:
    """Measure the rows for which time is left, and write what is known after each."""
    tasks = bench.tasks()

    def give_up() -> None:  # a call into a library does not return
        for task in tasks:
            bench.leave(task, f"{budget_s:.0f} s were over")
        write()
        os._exit(1)

    last = threading.Timer(max(0.0, begun_s + budget_s + GRACE_S - time.monotonic()), give_up)
    last.daemon = True
    last.start()
    try:
        while tasks:
            task, left_s = tasks[0], begun_s + budget_s - time.monotonic()
            needed_s, most_s = task.needed_s, SLOWER * task.needed_s
            if bench.device.type != "cuda":  # unknown
                needed_s, most_s = 0.0, left_s
            if task.side == VLLM and find_spec("vllm") is None:
                bench.leave(task, "it is not installed")
            elif left_s < max(needed_s, 0.001):
                bench.leave(task, f"of {budget_s:.0f} s, {max(0, left_s):.0f} were left")
            else:
                bench.add(task, min(left_s, most_s))
            tasks.pop(0)
            write()
    finally:
        last.cancel()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="a dry run: a tiny model on the CPU; it tests the code and measures nothing",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET_S,
        metavar="S",
        help=f"leave out the rows that do not fit in S seconds (default {BUDGET_S:.0f})",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help="add the results to this file of benchmarks.gpu_checks",
    )
    arguments = parser.parse_args(words)
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("no usable GPU; allowed: a machine with one, or --tiny")
    begun_s = time.monotonic()
    device = torch.device("cpu" if arguments.tiny else "cuda")
    results = arguments.into or (DRY_RUN if arguments.tiny else RESULTS)
    before = artifacts.read_json(results) if arguments.into and results.exists() else {}
    here = about(device, arguments.tiny)
    if other := [key for key, value in here.items() if before and before.get(key) != value]:
        parser.error(
            f"--into {results}: its {other[0]} is {before.get(other[0])!r}, but this one is "
            f"{here[other[0]]!r}. Run benchmarks.gpu_checks here first"
        )
    known = before | here
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(SIZES["tiny" if arguments.tiny else "full"], device, Path(folder))

        def write() -> None:
            artifacts.write_json(results, known | report(bench, time.monotonic() - begun_s))

        measure_all(bench, arguments.budget, begun_s, write)
    found = report(bench, time.monotonic() - begun_s)
    print(
        f"\n{known['device']}, {bench.parameters:,} parameters, context {bench.size.context}, "
        f"{found['seconds']:.0f} s"
    )
    print("\n".join(line(row) for row in found["rows"] if "step" not in row["unit"]))
    print("\n".join(profile_line(one) for one in bench.profiles))
    for goal in found["goals"]:
        met = {None: "not measured", True: "yes", False: "no"}[goal["met"]]
        print(f"goal on one H200: {goal['path']}: {goal['goal']}: {met}")
    if seconds := found["scoring_members_s_extrapolated"]:
        print(
            f"Extrapolated: scoring {MEMBERS} models on {EXTRAPOLATED:,} sequences each takes "
            f"{seconds / 60:,.1f} min"
        )
    return int(any("failed" in row for row in found["rows"]))


if __name__ == "__main__":
    sys.exit(main())
