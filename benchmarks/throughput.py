"""Measure how fast a machine trains, generates, scores and prepares text, for `pollination cost`.

The result is results/throughput.json. It also holds the rates of jobs without a GPU (processor.py).
Two shapes with new weights read random text. The small shape gives the cost per token that does not
depend on model size, and the larger one the FLOP/s. The larger one has 124M parameters on a GPU,
like the smallest GPT-2, and 15M on a CPU.
"""

import time
from contextlib import suppress
from statistics import median

from benchmarks import processor
from benchmarks.data import shared
from benchmarks.harness import Absent, call, measure

SHAPES = {
    "tiny": {
        "vocab_size": 200,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "15M": {
        "vocab_size": 32000,
        "hidden_size": 288,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
    },
    "124M": {
        "vocab_size": 50304,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
WORK = {  # shape -> context tokens, sequences per training step, rows generated side by side
    "tiny": (128, 8, 128),
    "15M": (256, 8, 64),
    "124M": (1024, 64, 512),
}
STEPS = 5  # timed, after three warm-up steps
START = [
    "-c",
    (
        "from pollination.core.job import Job; from pollination.evolution import children; "
        "from pollination.evaluation import member; from transformers import LlamaForCausalLM"
    ),
]


def _model(name: str, trained: bool = False):
    """Return a new model on the device: in fp32 if it is trained, else as jobs write and score."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pollination.models.device import prepare
    from pollination.models.inference import Inference
    from pollination.models.precision import choose

    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[name], max_position_embeddings=WORK[name][0], tie_word_embeddings=True
    )
    device = prepare("auto", torch.get_num_threads())
    precision = "fp32" if trained else choose("auto", device, "precision")
    return Inference(device, precision).placed(LlamaForCausalLM(config).eval())


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(name: str) -> dict:
    """Time training steps like those of jobs: bf16 and compiled on a GPU, fp32 on a CPU."""
    import logging
    from pathlib import Path

    import numpy as np
    import torch

    from pollination.core.settings import definition, with_defaults
    from pollination.models.trainer import Trainer

    context, batch, _ = WORK[name]

    class Text:
        tokens_NT = np.random.default_rng(0).integers(
            0, SHAPES[name]["vocab_size"], ((STEPS + 3) * batch, context)
        )

        def __len__(self) -> int:
            return len(self.tokens_NT)

        def blocks(self, indices):
            return self.tokens_NT[indices]

    model = _model(name, trained=True)
    on_gpu = model.device.type == "cuda"  # compiled, as a long training is
    settings = with_defaults({"batch_size": batch, "compile": on_gpu}, definition("train"))
    trainer = Trainer(
        model,
        Text(),
        settings,
        0,
        torch.device(model.device),
        Path("work"),
        "throughput",
        logging.getLogger("throughput"),
    )
    for step in range(STEPS + 3):
        if step == 3:  # compilation is over
            _wait()
            begun_s = time.perf_counter()
        trainer.step()
    _wait()
    return {"seconds": time.perf_counter() - begun_s, "amount": STEPS * batch * context}


def write(name: str) -> dict:
    """Time nucleus sampling: the prompt fills a quarter of the context, new tokens half of it."""
    from pollination.models.sampling import Decoding, sample

    context, _, rows = WORK[name]
    model, new = _model(name), context // 2
    decoding = Decoding(
        "nucleus", min_new_tokens=new, max_new_tokens=new, temperature=0.7, top_p=0.9
    )
    prompts = [
        [(7 * row + place) % 199 + 1 for place in range(context // 4)] for row in range(rows)
    ]

    def complete(batch: list[list[int]]) -> list[list[int]]:
        return list(sample(model, batch, list(range(len(batch))), decoding, 0, rows))

    complete(prompts[:2])
    _wait()
    begun_s = time.perf_counter()
    written = complete(prompts)
    _wait()
    return {"seconds": time.perf_counter() - begun_s, "amount": sum(map(len, written))}


def score(name: str) -> dict:
    """Time the loss of whole blocks."""
    import numpy as np

    from pollination.evaluation.perplexity import perplexity

    context, batch, _ = WORK[name]
    model, vocabulary = _model(name), SHAPES[name]["vocab_size"]
    ids = np.random.default_rng(0).integers(0, vocabulary, (4 * batch, context))

    class Blocks:
        def __len__(self) -> int:
            return len(ids)

        def blocks(self, indices):
            return ids[indices]

    perplexity(model, Blocks(), batch)
    _wait()
    begun_s = time.perf_counter()
    perplexity(model, Blocks(), batch)
    _wait()
    return {"seconds": time.perf_counter() - begun_s, "amount": 4 * batch * context}


def device() -> dict:
    """Return the name of the GPU and its power limit in watts; None and None without one."""
    import subprocess

    import torch

    if not torch.cuda.is_available():
        return {"seconds": 1.0, "result": [None, None]}
    name, watts = torch.cuda.get_device_name(0), None
    query = ["nvidia-smi", "--id=0", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        watts = float(subprocess.check_output(query, text=True, timeout=30))
    return {"seconds": 1.0, "result": [name, watts]}


def processor_rates(rounds: int, say=print) -> tuple[dict[str, float], dict[str, float]]:
    """Return the rates of jobs without a GPU, and bytes on disk that these jobs give away.

    Rates whose real data are not here are left out, with a message.
    """
    rates, sizes = {}, {}
    for key, (function, needed) in processor.RATES.items():
        try:
            for name in needed:
                shared(name)
        except Absent as reason:
            say(f"{key}: not measured: {reason}")
            continue
        measured = [measure(call(function), 1) for _ in range(rounds)]
        rates[key] = median(one.rate for one in measured)
        sizes |= measured[-1].result
        say(f"{key}: {rates[key]:,.0f}")
    return rates, sizes


def held_against(measured: dict) -> list[tuple[str, float, float]]:
    """Return (figure, assumed, measured) of each figure of `pollination cost` that was measured.

    Assumed are the published figures of this hardware; another GPU has none of its own.
    """
    from pollination.analysis.cost.rates import read_rates  # loads pandas, which adds memory
    from pollination.analysis.cost.shapes import published

    names = {key: entry["name"] for key, entry in published()["hardware"].items()}
    words = {key: name.removeprefix("NVIDIA ").split()[0] for key, name in names.items()}
    fits = [key for key, word in words.items() if word in measured["name"].split()]
    rows = []
    hardware = "cpu" if measured["device"] == "cpu" else next(iter(fits), None)
    if hardware:
        rates = read_rates(hardware)
        rows.append(("start_s", rates.start_s, measured["start_s"]))
        rows += [
            (f"{kind}, {shape_name} (tokens/s)", rates.tokens_per_s(kind, point), rate)
            for kind in ("train", "write", "score")
            for point in measured[kind]
            for shape_name, rate in [(point["shape"], point["tokens_per_s"])]
        ]
    tables = published()["processor"] | published()["disk"]
    found = measured["processor"] | measured["disk"]
    return rows + [(key, tables[key], value) for key, value in found.items()]


def throughput(rounds: int, threads: int, cpu: str, say=print) -> dict:
    """Return the content of results/throughput.json; rates and start_s are medians of the rounds.

    It contains name, device, watts, start_s; for train, write and score the tokens per second of
    each shape; the rates of jobs without a GPU (processor), and sizes on disk.
    """
    import sys

    gpu, watts = measure(call(device), threads).result
    measured = {
        "name": gpu or f"{threads} threads of {cpu}",
        "device": "cuda" if gpu else "cpu",
        "watts": watts,
        "threads": threads,
        "rounds": rounds,
    }
    measured["start_s"] = median(
        measure([sys.executable, *START], threads).seconds for _ in range(rounds)
    )
    say(f"start of a job: {measured['start_s']:.1f} s")
    for function in (train, write, score):
        points = []
        for name in ("tiny", "124M" if gpu else "15M"):
            rate = median(measure(call(function, name), threads).rate for _ in range(rounds))
            points.append(
                {
                    "model": {"model_type": "llama", "tie_word_embeddings": True} | SHAPES[name],
                    "shape": name,
                    "context_tokens": WORK[name][0],
                    "tokens_per_s": rate,
                    "source": "python -m benchmarks --throughput",
                }
            )
            say(f"{function.__name__}, {name}: {rate:,.0f} tokens/s")
        measured[function.__name__] = points
    measured["processor"], measured["disk"] = processor_rates(rounds, say)
    return measured
