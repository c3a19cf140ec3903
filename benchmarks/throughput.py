"""Measure how fast a machine trains, generates and scores, for `pollination cost`.

The result is results/throughput.json. Two shapes with new weights read random text. The small shape
gives the cost per token that does not depend on model size, and the larger one the FLOP/s. The
larger one has 124M parameters on a GPU, like the smallest GPT-2, and 15M on a CPU.
"""

import time
from statistics import median

from benchmarks.harness import call, measure

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


def _model(name: str):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pollination.models.device import prepare

    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[name], max_position_embeddings=WORK[name][0], tie_word_embeddings=True
    )
    return LlamaForCausalLM(config).eval().to(prepare("auto", torch.get_num_threads()))


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

    model = _model(name)
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
    import torch

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"seconds": 1.0, "result": name}


def throughput(rounds: int, threads: int, processor: str, say=print) -> dict:
    """Return the content of results/throughput.json; rates and start_s are medians of the rounds.

    It contains name, start_s, and for train, write and score the tokens per second of each shape.
    """
    import sys

    gpu = measure(call(device), threads).result
    measured = {
        "name": gpu or f"{threads} threads of {processor}",
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
                    "context_tokens": WORK[name][0],
                    "tokens_per_s": rate,
                    "source": "python -m benchmarks --throughput",
                }
            )
            say(f"{function.__name__}, {name}: {rate:,.0f} tokens/s")
        measured[function.__name__] = points
    return measured
