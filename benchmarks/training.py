"""Compare the training of a new 15M-parameter Llama with transformers' Trainer.

Both use the same weights, batches, precision, optimizer and steps.
"""

import time
from pathlib import Path

from benchmarks.data import as_in_a_job
from benchmarks.harness import OURS, Row, call

CONTEXT_TOKENS, BATCH_SEQUENCES, STEPS = 256, 8, 6  # the first step is not timed
VOCABULARY, LEARNING_RATE, WEIGHT_DECAY = 32_000, 1e-3, 0.01
BETAS, EPSILON, MAX_GRAD_NORM = (0.9, 0.95), 1e-8, 1.0


def _model():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "hidden_size": 288,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT_TOKENS, **shape)
    )


class Text:
    """Seeded token ids with the frequencies of words (Zipf's law).

    The content of the text does not change the time of a step.
    """

    def __init__(self) -> None:
        import numpy as np

        ranks = np.random.default_rng(0).zipf(1.2, (STEPS * BATCH_SEQUENCES, CONTEXT_TOKENS))
        self.tokens_NT = (ranks % VOCABULARY).astype(np.int64)

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def blocks(self, indices):
        return self.tokens_NT[indices]


class Clock:
    """Record the end of each step. The trainer asks it after each step whether to stop: never."""

    signal = None

    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def __bool__(self) -> bool:
        self.ends_s.append(time.perf_counter())
        return False

    def timed(self, losses: list[float]) -> dict:
        tokens = (STEPS - 1) * BATCH_SEQUENCES * CONTEXT_TOKENS
        return {"seconds": self.ends_s[-1] - self.ends_s[0], "amount": tokens, "result": losses}


def _trainer(clock: Clock | None):
    import logging

    import torch

    from pollination.core.settings import definition, with_defaults
    from pollination.models.trainer import Trainer

    settings = {
        "batch_size": BATCH_SEQUENCES,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": 0,
        "schedule": "constant",
        "weight_decay": WEIGHT_DECAY,
        "betas": list(BETAS),
        "epsilon": EPSILON,
        "max_grad_norm": MAX_GRAD_NORM,
        "precision": "fp32",
    }
    settings = with_defaults(settings, definition("train"))
    return Trainer(
        _model(),
        Text(),
        settings,
        0,
        torch.device("cpu"),
        Path("work"),
        "benchmark",
        logging.getLogger("benchmark"),
        clock,
    )


def train_ours() -> dict:
    as_in_a_job()
    clock = Clock()
    metrics = _trainer(clock).run()
    return clock.timed([row["loss"] for row in metrics])


def train_peer() -> dict:
    import numpy as np
    from transformers import Trainer, TrainerCallback, TrainingArguments

    order = _trainer(None)  # the same batches in the same order
    rows = order.blocks.blocks(np.concatenate([order.batch_of(step) for step in range(STEPS)]))
    del order
    clock = Clock()

    class Ends(TrainerCallback):
        def on_step_end(self, *_, **__) -> None:
            bool(clock)

    arguments = TrainingArguments(
        output_dir="work",
        per_device_train_batch_size=BATCH_SEQUENCES,
        max_steps=STEPS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=WEIGHT_DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        max_grad_norm=MAX_GRAD_NORM,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    dataset = [{"input_ids": row, "labels": row} for row in rows]
    trainer = Trainer(_model(), arguments, train_dataset=dataset, callbacks=[Ends()])
    trainer.train()
    return clock.timed(
        [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    )


def loss_difference(ours: list[float], theirs: list[float]) -> str:
    return f"losses within {max(abs(a - b) for a, b in zip(ours, theirs, strict=True)):.0e} nats"


ROWS = [
    Row(
        "training",
        f"training a 15M Llama in fp32, {BATCH_SEQUENCES} x {CONTEXT_TOKENS} tokens a step, "
        f"{STEPS} steps",
        "tokens",
        1.15,
        lambda: {OURS: call(train_ours), "transformers Trainer": call(train_peer)},
        loss_difference,
    )
]
