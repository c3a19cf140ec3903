"""Compare the GPU code paths with their peers in one process: `python -m benchmarks.gpu`.

It takes minutes; --tiny runs on any machine. First it measures two limits of the device: its rate
of matrix products and its memory bandwidth. Each result shows which share of these limits the work
needs as a lower bound. MFU counts the FLOPs of the model's matrix products and attention (three
times the forward pass in training). Bandwidth counts the bytes of weights, keys and values that
must be read once per generated token.
"""

import argparse
import contextlib
import gc
import logging
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import ROOT
from pollination.core import artifacts

RESULTS = ROOT / "results/gpu.json"


@dataclass(frozen=True)
class Size:
    """The amount of work: the model, and the batch of each path."""

    model: dict
    context: int
    train_sequences: int
    train_steps: int
    rows: int  # sampled side by side
    peer_rows: tuple[int, ...]  # batch sizes of the peer; the best one counts
    searched: int
    search_tokens: int
    scored: int  # sequences
    score_batch: int
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
    "full": Size(STUDY_A, 1024, 32, 10, 256, (64, 256), 32, 128, 512, 32, 8192, 2**31),
    "tiny": Size(SMALL, 32, 4, 3, 8, (4,), 2, 8, 8, 4, 64, 2**16),
}
BEAMS = 5
MEMBERS, EXTRAPOLATED = 16, 100_000  # models per generation, sequences per model


class Bench:
    """A device, a size, and the results so far."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device, self.rows = size, device, []
        self.flops_per_s = self.bytes_per_s = 0.0
        config = LlamaConfig(
            **size.model, max_position_embeddings=size.context, tie_word_embeddings=True
        )
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(config).eval().to(device)
        self.parameters = self.model.num_parameters()
        self.prompts = (
            np.random.default_rng(0)
            .integers(1, config.vocab_size, (max(size.rows, size.searched), size.context // 4))
            .tolist()
        )

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

    def add(
        self,
        path: str,
        side: str,
        measure: Callable[[], tuple[float, float]],
        unit: str,
        flops: float = 0.0,
        read: float = 0.0,
    ) -> None:
        """Add a row. `measure` returns (amount, seconds).

        `flops` and `read` (bytes) are lower bounds of what a unit needs.
        """
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        row = {"path": path, "side": side, "unit": unit}
        try:
            amount, seconds = measure()
        except torch.OutOfMemoryError:
            self.rows.append(row | {"failed": "out of memory"})
        else:
            rate = amount / seconds
            peak = torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else None
            shares = {
                "mfu": rate * flops / self.flops_per_s,
                "bandwidth": rate * read / self.bytes_per_s,
            }
            self.rows.append(
                row
                | {"rate": rate, "seconds": seconds, "peak_mib": peak}
                | {k: v or None for k, v in shares.items()}
            )
        print(line(self.rows[-1]), flush=True)

    # --- the device

    def limits(self) -> None:
        """Measure matrix products in the training precision, and the bandwidth of a copy."""
        precision = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        a, b = (
            torch.randn(self.size.product, self.size.product, device=self.device, dtype=precision)
            for _ in range(2)
        )
        _ = a @ b
        self.flops_per_s = 2 * self.size.product**3 / self.seconds(lambda: a @ b, 10)
        source = torch.zeros(self.size.copied, dtype=torch.uint8, device=self.device)
        target = source.clone()
        self.bytes_per_s = 2 * self.size.copied / self.seconds(lambda: target.copy_(source), 10)
        print(
            f"{self.flops_per_s / 1e12:.3g} TFLOP/s in {precision}, {self.bytes_per_s / 1e9:.3g} "
            "GB/s",
            flush=True,
        )

    def forward_flops(self, mean_context: float) -> float:
        """Return the FLOPs per token: blocks, head, and attention to `mean_context` tokens."""
        shape = self.size.model
        per_layer = (
            8 * shape["hidden_size"] ** 2
            + 6 * shape["hidden_size"] * shape["intermediate_size"]
            + 4 * shape["hidden_size"] * mean_context
        )
        return (
            shape["num_hidden_layers"] * per_layer + 2 * shape["hidden_size"] * shape["vocab_size"]
        )

    def token_bytes(self, rows: int, mean_context: float) -> float:
        """Return a lower bound of the bytes read per token of one row, in the weights' precision.

        They are its share of the weights, and its own keys and values.
        """
        shape, width = self.size.model, self.model.dtype.itemsize
        return width * (
            self.parameters / rows
            + 2 * shape["num_hidden_layers"] * shape["hidden_size"] * mean_context
        )

    # --- training

    def blocks(self, count: int) -> "Text":
        shape = (count, self.size.context)
        return Text(np.random.default_rng(1).integers(0, self.size.model["vocab_size"], shape))

    def train(self) -> None:
        flops = 3 * self.forward_flops(self.size.context / 2)
        self.add("training", "pollination", self.train_ours, "tokens", flops)
        self.add("training", "transformers Trainer", self.train_peer, "tokens", flops)

    def train_ours(self) -> tuple[float, float]:
        from pollination.core.settings import definition, with_defaults
        from pollination.models.trainer import Trainer

        size = self.size
        on_gpu = self.device.type == "cuda"  # compiled, as a long training is
        settings = with_defaults(
            {"batch_size": size.train_sequences, "epochs": 1, "compile": on_gpu},
            definition("train"),
        )
        if not on_gpu:
            settings |= {"precision": "fp32"}
        text = self.blocks((size.train_steps + 3) * size.train_sequences)
        quiet = logging.getLogger("gpu")
        trainer = Trainer(
            fresh(self.model), text, settings, 0, self.device, Path("work"), "benchmark", quiet
        )
        for _ in range(3):  # compilation
            trainer.step()
        seconds = self.seconds(trainer.step, size.train_steps)
        return size.train_sequences * size.context, seconds

    def train_peer(self) -> tuple[float, float]:
        import tempfile

        from transformers import Trainer, TrainerCallback, TrainingArguments

        size, ends_s = self.size, []
        wait = self.wait

        class Ends(TrainerCallback):
            def on_step_end(self, arguments, state, *_, **__) -> None:
                if state.global_step in (3, size.train_steps + 3):
                    wait()
                    ends_s.append(time.perf_counter())

        on_gpu = self.device.type == "cuda"
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=size.train_sequences,
                max_steps=size.train_steps + 3,
                optim="adamw_torch_fused",
                max_grad_norm=1.0,
                bf16=on_gpu,
                torch_compile=on_gpu,
                use_cpu=not on_gpu,
                logging_steps=10**6,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            rows = [
                {"input_ids": row, "labels": row}
                for row in self.blocks((size.train_steps + 3) * size.train_sequences).tokens_NT
            ]
            with contextlib.redirect_stdout(sys.stderr):
                Trainer(
                    fresh(self.model), arguments, train_dataset=rows, callbacks=[Ends()]
                ).train()
        return size.train_steps * size.train_sequences * size.context, ends_s[-1] - ends_s[0]

    # --- writing

    def sample(self) -> None:
        """Measure sampling: the prompt fills a quarter of the context, new tokens the rest.

        The mean context of a new token is five eighths of the context.
        """
        mean, new = self.size.context * 5 / 8, self.size.context - self.size.context // 4
        path = f"sampling, mean context {mean:.0f}"

        def needs(rows: int) -> dict[str, float]:
            return {"flops": self.forward_flops(mean), "read": self.token_bytes(rows, mean)}

        ours = partial(self.sample_ours, new)
        self.add(path, "pollination", ours, "tokens", **needs(self.size.rows))
        choices = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
        for batch in self.size.peer_rows:
            peer = partial(self.generate, self.prompts[:batch], new, **choices)
            side = f"transformers generate, batch {batch}"
            self.add(path, side, peer, "tokens", **needs(batch))

    def sample_ours(self, new: int) -> tuple[float, float]:
        from pollination.models.sampling import Decoding, sample

        rows = self.size.rows
        decoding = Decoding(
            "nucleus", min_new_tokens=new, max_new_tokens=new, temperature=0.7, top_p=0.9
        )

        def write(prompts: list[list[int]]) -> list[list[int]]:
            return list(sample(self.model, prompts, list(range(len(prompts))), decoding, 0, rows))

        write(self.prompts[:2])
        return rows * new, self.seconds(lambda: write(self.prompts[:rows]))

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

    def search(self) -> None:
        from pollination.models.beam import beam_search

        path, new = f"{BEAMS} beams", self.size.search_tokens
        prompts = [row[:new] for row in self.prompts[: self.size.searched]]

        def ours() -> tuple[float, float]:
            search = partial(beam_search, self.model, prompts, BEAMS, new, new, 1.0, 0)
            return len(prompts) * new, self.seconds(search)

        peer = partial(self.generate, prompts, new, num_beams=BEAMS, do_sample=False)
        mean = 1.5 * new  # of a new token; all its beams are computed
        needs = {
            "flops": BEAMS * self.forward_flops(mean),
            "read": BEAMS * self.token_bytes(BEAMS * len(prompts), mean),
        }
        self.add(path, "pollination", ours, "tokens", **needs)
        self.add(path, "transformers generate", peer, "tokens", **needs)

    # --- scoring

    def score(self) -> None:
        """Measure scoring: groups of eight share three quarters, like few-shot examples."""
        from pollination.models.prefix_tree import continuation_logprobs

        size, generator = self.size, np.random.default_rng(2)
        vocabulary = size.model["vocab_size"]
        shared = generator.integers(1, vocabulary, (size.scored // 8, size.context * 3 // 4))
        own = generator.integers(1, vocabulary, (size.scored, size.context // 4))
        sequences = [np.concatenate([shared[index // 8], row]) for index, row in enumerate(own)]
        targets = [row[-4:] for row in own]

        def shared_once() -> None:
            continuation_logprobs(self.model, sequences, targets)

        @torch.inference_mode()
        def whole() -> None:
            for start in range(0, len(sequences), size.score_batch):
                ids_BT = torch.from_numpy(np.stack(sequences[start : start + size.score_batch])).to(
                    self.device
                )
                self.model(ids_BT, use_cache=False, logits_to_keep=4).logits.float().log_softmax(-1)

        def timed(score: Callable[[], None]) -> tuple[float, float]:
            return len(sequences), self.seconds(score)

        self.add("scoring", "pollination", partial(timed, shared_once), "sequences")
        # Only the peer reads whole sequences, so only its FLOPs are known.
        flops = size.context * self.forward_flops(size.context / 2)
        name = f"whole sequences, batch {size.score_batch}"
        self.add("scoring", name, partial(timed, whole), "sequences", flops)


class Text:
    """Blocks of token ids held in memory."""

    def __init__(self, tokens_NT: np.ndarray) -> None:
        self.tokens_NT = tokens_NT

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        return self.tokens_NT[indices]


def fresh(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return a copy to train, so that all other paths use the same weights."""
    copy = LlamaForCausalLM(model.config).to(model.device)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def line(row: dict) -> str:
    """Return a row of the table."""
    head = f"{row['path']:28} {row['side']:34}"
    if "failed" in row:
        return f"{head} {row['failed']}"

    def share(key: str) -> str:
        return "" if row[key] is None else f"{row[key]:.0%}"

    peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f} MiB"
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    return (
        f"{head} {row['rate']:12,.0f} {row['unit'] + '/s':12} MFU {share('mfu'):5} bandwidth "
        f"{share('bandwidth'):5} {peak:12} {ratio}"
    )


def with_ratios(rows: list[dict]) -> list[dict]:
    """Add to our rows the ratio of our rate to that of the best peer of the same path."""
    peers: dict[str, list[float]] = {}
    for row in rows:
        if row["side"] != "pollination" and "rate" in row:
            peers.setdefault(row["path"], []).append(row["rate"])

    def with_ratio(row: dict) -> dict:
        if row["side"] != "pollination" or "rate" not in row or row["path"] not in peers:
            return row
        return row | {"ratio": row["rate"] / max(peers[row["path"]])}

    return [with_ratio(row) for row in rows]


def main(words: list[str] | None = None, results: Path = RESULTS) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="a tiny model on the CPU; it tests the code and measures nothing",
    )
    arguments = parser.parse_args(words)
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("no usable GPU; allowed: a machine with one, or --tiny")
    begun_s = time.monotonic()
    device = torch.device("cpu" if arguments.tiny else "cuda")
    bench = Bench(SIZES["tiny" if arguments.tiny else "full"], device)
    bench.limits()
    for path in (bench.train, bench.sample, bench.search, bench.score):
        path()
    rows = with_ratios(bench.rows)
    name = (
        platform.processor() or platform.machine()
        if arguments.tiny
        else torch.cuda.get_device_name(0)
    )
    print(
        f"\n{name}, {bench.parameters:,} parameters, context {bench.size.context}, "
        f"{time.monotonic() - begun_s:.0f} s"
    )
    print("\n".join(line(row) for row in rows))
    rate = next(row.get("rate") for row in rows if row["path"] == "scoring")
    members_s = MEMBERS * EXTRAPOLATED / rate if rate else None
    if members_s:
        print(
            f"Extrapolated: scoring {MEMBERS} models on {EXTRAPOLATED:,} sequences each takes "
            f"{members_s / 60:,.1f} min"
        )
    about = {
        "device": name,
        "torch": torch.__version__,
        "parameters": bench.parameters,
        "size": vars(bench.size),
    }
    limits = {"flops_per_s": bench.flops_per_s, "bytes_per_s": bench.bytes_per_s}
    artifacts.write_json(
        results, about | limits | {"rows": rows, "scoring_members_s_extrapolated": members_s}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
