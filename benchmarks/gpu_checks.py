"""Check that a GPU computes what a CPU computes: `python -m benchmarks.gpu_checks`.

The checks use a small random model. A tie is a choice that rounding decides: a change of the logits
by TIE leads to the other text. --tiny compares the CPU with itself, which tests the code alone.
"""

import argparse
import copy
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu import DRY_RUN, RESULTS, Ended, about, limited
from benchmarks.harness import ROOT
from pollination.core import artifacts
from pollination.core.job import Stopped
from pollination.core.settings import definition, with_defaults
from pollination.core.warm import SCRIPTS, Fork, Subprocess
from pollination.models import paths, refill
from pollination.models.beam import beam_search
from pollination.models.device import DETERMINISTIC_CUBLAS, set_determinism
from pollination.models.drawing import Decoding, draw, row_keys
from pollination.models.precision import choose, set_products
from pollination.models.sampling import sample
from pollination.models.static_decoder import release
from pollination.models.trainer import Trainer

CONFIG = ROOT / "config/test/toy.yaml"
BUDGET_S = 150.0
CPU, END_ID, BEAMS = torch.device("cpu"), 0, 3
TIE = 1e-4  # change of a logit by which rounding in fp32 may decide a choice
# nats per token by which losses may differ, and why
LOSS = {"fp32": 1e-3, "compiled": 1e-3, "bf16": 0.05}
NOISES, SEARCHES = 256, 32  # tried changes of the logits of one choice, and of a search


@dataclass(frozen=True)
class Size:
    """The amount of work of the checks."""

    layers: int
    context: int
    rows: int
    prompt: int  # on a GPU, prompt and new tokens cross a bucket of the decoder
    new: int
    steps: int
    batch: int


SIZES = {"full": Size(4, 384, 32, 200, 160, 12, 8), "tiny": Size(1, 48, 4, 12, 10, 4, 2)}


class Wrong(Exception):
    """A check found another result than expected."""


def small_model(size: Size) -> LlamaForCausalLM:
    """Return a random model whose next tokens are as certain as those of a trained one."""
    config = LlamaConfig(
        vocab_size=211,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=size.context,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


class Blocks:
    """Seeded blocks of text that a model can learn: they count upwards."""

    def __init__(self, count: int, context: int) -> None:
        starts_N1 = np.random.default_rng(0).integers(0, 97, (count, 1))
        self.tokens_NT = 1 + (starts_N1 + np.arange(context)) % 97

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        return self.tokens_NT[indices]


class StopAfter:
    """A stop request that comes true after so many steps."""

    reason, may_save = "the check", True

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


class Checks:
    """The checks of a device. Each returns what it found, and raises Wrong or any other error."""

    def __init__(self, size: Size, device: torch.device, folder: Path) -> None:
        self.size, self.device, self.folder = size, device, folder
        self.model = small_model(size)
        generator = np.random.default_rng(1)
        lengths = generator.integers(size.prompt // 2, size.prompt + 1, size.rows)
        self.prompts = [generator.integers(1, 211, length).tolist() for length in lengths]
        self.seeds = list(range(size.rows))

    @property
    def all(self) -> dict[str, Callable[[], str]]:
        return {
            "the preflight passes": self.preflight,
            "losses equal those of the CPU": self.losses,
            "sampled texts equal those of the CPU in fp32": self.sampled,
            "greedy texts equal those of the CPU in fp32": self.greedy,
            "beams equal those of the CPU in fp32": self.beams,
            "CUDA graphs write what single steps write": self.graphs,
            "forks of the worker compute what new interpreters compute": self.forks,
            "a resume is bit-identical under train.determinism: strict": self.resumed,
        }

    # --- the device

    def preflight(self) -> str:
        from pollination.models.preflight import preflight
        from pollination.plan.config.resolve import resolve

        path = self.folder / "logs/preflight.json"
        path.parent.mkdir()
        job = types.SimpleNamespace(
            device=self.device.type,
            output=types.SimpleNamespace(found=str(path)),
            log=logging.getLogger("gpu_checks"),
        )
        threads = torch.get_num_threads()
        preflight(job, resolve(yaml.safe_load(CONFIG.read_text())))
        torch.set_num_threads(threads)
        found = artifacts.read_json(path)
        attention = ", ".join(
            f"{k} attention in {v}" for v, k in found.get("attention", {}).items()
        )
        device = found["device"]
        driver = f"driver {device['driver']}" if "driver" in device else ""
        return ", ".join(filter(None, [device["name"], driver, attention]))

    # --- training

    def train(self, device: torch.device, work: str, stop=None, **changes) -> Trainer:
        size = self.size
        settings = with_defaults(
            {
                "batch_size": size.batch,
                "learning_rate": 1e-3,
                "warmup_steps": 2,
                "precision": "fp32",
                "compile": False,
            }
            | changes,
            definition("train"),
        )
        text = Blocks(size.steps * size.batch, size.context)
        model, log = copy.deepcopy(self.model), logging.getLogger("gpu_checks")
        folder = self.folder / work
        folder.mkdir(exist_ok=True)
        return Trainer(model, text, settings, 0, device, folder, "gpu_checks", log, stop)

    def losses(self) -> str:
        """Compare a training on the CPU with fp32, compiled and bf16 trainings on the device."""
        expected = losses_of(self.train(CPU, "cpu").run())
        kinds: dict[str, dict] = {"fp32": {}}
        if self.device.type == "cuda":
            kinds["compiled"] = {"compile": True}
        if self.device.type != "cuda" or choose("auto", self.device, "precision") == "bf16":
            kinds["bf16"] = {"precision": "bf16"}
        said = []
        for kind, changes in kinds.items():
            trainer = self.train(self.device, kind, **changes)
            found = losses_of(trainer.run())
            if kind == "compiled" and not trainer.compiled:
                raise Wrong("torch.compile failed, and the training continued without it")
            apart = float(np.abs(found - expected).max())
            if not apart <= LOSS[kind]:
                raise Wrong(
                    f"{kind}: the losses differ by {apart:.2g} nats; allowed: {LOSS[kind]:g}"
                )
            said.append(f"{kind} within {apart:.1g} nats")
        return f"{', '.join(said)} in {len(expected)} steps"

    def resumed(self) -> str:
        set_determinism("strict", self.device)
        try:
            usual = {"compile": self.device.type == "cuda", "precision": "auto"}
            whole = self.train(self.device, "whole", **usual)
            expected = whole.run()
            stop = StopAfter(self.size.steps // 2)
            try:
                self.train(self.device, "parts", stop, **usual).run()
                raise Wrong("the training did not stop")
            except Stopped:
                rest = self.train(self.device, "parts", **usual)
                found = rest.run()
        finally:
            set_determinism("off", self.device)
        if found != expected:
            raise Wrong("the metrics of the resumed training differ")
        differ = [n for n, p in whole.names.items() if not torch.equal(p, rest.names[n])]
        if differ:
            raise Wrong(f"{len(differ)} of {len(whole.names)} weights differ, e.g. {differ[0]}")
        return f"{len(whole.names)} weights and all metrics are equal"

    # --- writing

    def texts(self, decoding: Decoding, device: torch.device) -> list[list[int]]:
        model = copy.deepcopy(self.model).to(device)
        set_products("fp32", device)
        rows = min(len(self.prompts), refill.ROWS)
        return list(sample(model, self.prompts, self.seeds, decoding, END_ID, rows))

    def decoding(self, name: str) -> Decoding:
        new = self.size.new
        return Decoding(name, max_new_tokens=new, temperature=1.0, top_p=0.9)

    def sampled(self) -> str:
        return self.same(self.decoding("nucleus"), CPU, self.device)

    def greedy(self) -> str:
        return self.same(self.decoding("greedy"), CPU, self.device)

    def graphs(self) -> str:
        """Compare steps of fixed shapes (on a GPU: CUDA graphs) with other steps.

        Half of the texts wait for a row whose text has ended.
        """
        decoding = self.decoding("nucleus")
        with static_devices():
            expected = self.texts(decoding, self.device)
        with static_devices(self.device.type), at_once(max(1, len(self.prompts) // 2)):
            found = self.texts(decoding, self.device)
        return self.compared(decoding, expected, found)

    def same(self, decoding: Decoding, one: torch.device, other: torch.device) -> str:
        return self.compared(decoding, self.texts(decoding, one), self.texts(decoding, other))

    def compared(
        self, decoding: Decoding, expected: list[list[int]], found: list[list[int]]
    ) -> str:
        """Return how many texts are equal. Wrong: two differ, and not by a tie."""
        apart = [row for row, ids in enumerate(expected) if ids != found[row]]
        for row in apart:
            place = first_difference(expected[row], found[row])
            prefix = self.prompts[row] + expected[row][:place]
            key = row_keys([self.seeds[row]], decoding.max_new_tokens)[0, place]
            if (other := token_at(found[row], place)) not in self.choices(prefix, key, decoding):
                raise Wrong(
                    f"text {row} differs at token {place}: {token_at(expected[row], place)} and "
                    f"{other}, which is no tie"
                )
        return ties(len(expected), len(apart))

    @torch.inference_mode()
    def choices(self, prefix: list[int], key: torch.Tensor, decoding: Decoding) -> set[int]:
        """Return the tokens that the CPU chooses if its logits change by at most TIE."""
        logits_1V = self.model(torch.tensor([prefix])).logits[:, -1].float()
        noise = torch.Generator().manual_seed(0)
        changes = TIE * (2 * torch.rand(NOISES, logits_1V.shape[1], generator=noise) - 1)
        return set(draw(logits_1V + changes, key.expand(NOISES), decoding)[0].tolist())

    def beams(self) -> str:
        """Compare the texts of a beam search. Wrong: two differ, and not by a tie."""
        prompts = self.prompts[: max(2, self.size.rows // 4)]
        set_products("fp32", self.device)
        expected = self.search(self.model, prompts)
        found = self.search(copy.deepcopy(self.model).to(self.device), prompts)
        apart = [row for row, ids in enumerate(expected) if ids != found[row]]
        for row in apart:
            noise = torch.Generator().manual_seed(0)

            def changed(_module, _inputs, logits, noise=noise):
                return logits + TIE * (2 * torch.rand(logits.shape, generator=noise) - 1)

            hook = self.model.get_output_embeddings().register_forward_hook(changed)
            try:
                tries = (self.search(self.model, [prompts[row]]) for _ in range(SEARCHES))
                if [found[row]] not in tries:
                    raise Wrong(f"text {row} differs, which is no tie")
            finally:
                hook.remove()
        return ties(len(prompts), len(apart))

    def search(self, model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
        return beam_search(model, prompts, BEAMS, self.size.new // 2, 0, 1.0, END_ID)

    # --- processes

    def forks(self) -> str:
        """Run one job as a fork of the worker and as a new interpreter."""
        folder = self.folder / SCRIPTS
        folder.mkdir(parents=True)
        found = {}
        for kind, module in (("fork", Subprocess(sys.__stdout__)), ("fresh", subprocess)):
            script, path = folder / f"{kind}.py", self.folder / f"{kind}.json"
            script.write_text(
                "from benchmarks.gpu_checks import job\n"
                "from transformers import LlamaForCausalLM\n"
                f"job({self.device.type!r}, {self.size.layers}, {str(path)!r})\n"
            )
            process = module.Popen(
                f"set -euo pipefail;  {sys.executable} {script}",
                shell=True,
                executable="/bin/bash",
                stdout=sys.__stdout__,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
            status = process.wait()
            if status:
                raise Wrong(f"the job as a {kind} process ended with status {status}")
            if kind == "fork" and not isinstance(process, Fork):
                raise Wrong("the worker did not serve: its imports start threads or use the GPU")
            found[kind] = json.loads(path.read_text())
        if found["fork"] != found["fresh"]:
            raise Wrong(f"the fork found {found['fork']}, the new interpreter {found['fresh']}")
        return f"both on {found['fork']['device']}, equal to the last bit"


def job(kind: str, layers: int, path: str) -> None:
    """Compute a loss and a text on the device, and write them to `path`."""
    from pollination.models.device import prepare

    device = prepare(kind, 1)
    set_products("fp32", device)
    model = small_model(Size(layers, 48, 2, 12, 8, 1, 2)).to(device)
    tokens_BT = torch.from_numpy(Blocks(2, 12).tokens_NT).to(device)
    with torch.inference_mode():
        loss = model(tokens_BT, labels=tokens_BT).loss.item()
    decoding = Decoding("nucleus", max_new_tokens=8, temperature=1.0, top_p=0.9)
    texts = list(sample(model, tokens_BT.tolist(), [0, 1], decoding, END_ID, 2))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    artifacts.write_json(path, {"device": name, "loss": loss, "texts": texts})


@contextmanager
def at_once(rows: int) -> Iterator[None]:
    """Let at most so many texts be written side by side in steps of fixed shapes."""
    before, refill.ROWS = refill.ROWS, rows
    release()
    try:
        yield
    finally:
        refill.ROWS = before
        release()


@contextmanager
def static_devices(*kinds: str) -> Iterator[None]:
    """Let the devices of these kinds, and no others, decode by steps of fixed shapes."""
    before, paths.STATIC_DEVICES = paths.STATIC_DEVICES, kinds
    try:
        yield
    finally:
        paths.STATIC_DEVICES = before


def ties(count: int, apart: int) -> str:
    return f"{count - apart} of {count} equal, {apart} differ by a tie"


def losses_of(metrics: list[dict]) -> np.ndarray:
    return np.array([row["loss"] for row in metrics])


def token_at(ids: list[int], place: int) -> int | None:
    return ids[place] if place < len(ids) else None


def first_difference(a: list[int], b: list[int]) -> int:
    return next(i for i in range(max(len(a), len(b))) if token_at(a, i) != token_at(b, i))


def run(checks: dict[str, Callable[[], str]], budget_s: float, say=print) -> list[dict]:
    """Run the checks within the budget. Return name, whether it passed (None: left out), text."""
    found: list[dict] = []
    begun_s = time.monotonic()
    for name, check in checks.items():
        left_s, start_s = begun_s + budget_s - time.monotonic(), time.monotonic()
        passed: bool | None = False
        try:
            if left_s <= 0:
                raise Ended
            with limited(left_s):
                said, passed = check(), True
        except Ended:
            said, passed = f"left out: {budget_s:.0f} s were over", None
        except Exception as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
        seconds = time.monotonic() - start_s
        found.append({"name": name, "passed": passed, "said": said, "seconds": seconds})
        say(f"{name}: {VERDICTS[passed]}: {said} ({seconds:.0f} s)")
    return found


VERDICTS = {True: "yes", False: "NO", None: "not checked"}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_checks", description=__doc__)
    parser.add_argument(
        "--tiny", action="store_true", help="a dry run on the CPU: it tests the code alone"
    )
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S")
    parser.add_argument("--into", type=Path, metavar="FILE")
    arguments = parser.parse_args(words)
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("no usable GPU; allowed: a machine with one, or --tiny")
    # before the first product of a GPU; without it none is deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", DETERMINISTIC_CUBLAS[0])
    device = CPU if arguments.tiny else torch.device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(SIZES["tiny" if arguments.tiny else "full"], device, Path(folder))
        found = run(checks.all, arguments.budget, partial(print, flush=True))
    into = arguments.into or (DRY_RUN if arguments.tiny else RESULTS)
    artifacts.write_json(into, about(device, arguments.tiny) | {"checks": found})
    return int(not all(check["passed"] for check in found))


if __name__ == "__main__":
    sys.exit(main())
