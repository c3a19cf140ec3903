"""Train a member: a founder on human text, a child on text of the previous generation."""

import shutil
from dataclasses import replace
from pathlib import Path

from pollination.core import artifacts
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.data.tokens import TokenBlocks, largest_id
from pollination.evolution.reading import Training, training_blocks, training_of
from pollination.models import checkpoint
from pollination.models.checkpoint import load_tokenizer
from pollination.models.device import prepare
from pollination.models.trainer import Trainer, write_metrics

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def _train(job: Job, folder: Path, model, blocks, training: Training, work: Path, key: str) -> None:
    validation = TokenBlocks(job.file("validation")) if job.files("validation") else None
    determinism = training.settings["determinism"]
    device = prepare(job.device, job.params.cpu_threads, determinism)
    trainer = Trainer(
        model,
        blocks,
        training.settings,
        training.seed,
        device,
        work,
        key,
        job.log,
        job.stop,
        validation,
    )
    job.note_hardware(resumes=trainer.checkpoint.exists())
    metrics = trainer.run()
    job.used = trainer.used
    checkpoint.save_model(model, folder)
    for name in TOKENIZER_FILES:
        with artifacts.atomic(folder / name) as temporary:
            shutil.copyfile(job.file("blueprint").parent / name, temporary)
    write_metrics(Path(job.output.metrics), metrics)


def start(job: Job, seed: int):
    """Return the model at the start of training: inherited, pretrained or new weights."""
    folder = job.file("blueprint").parent
    if job.files("weights"):
        return checkpoint.load_model(folder, weights=job.file("weights"))
    return checkpoint.create_model(folder, derive_seed(seed, "weights"))


def train(job: Job, folder: Path) -> None:
    """Train one member with the weights and the text that its operators choose.

    A founder starts from new or pretrained weights and reads its segment of human text.
    """
    training = training_of(job)
    key = job.key(training.seed)
    work = job.claim("train", key)
    if work is None:
        return
    model, tokenizer = start(job, training.seed), load_tokenizer(job.file("blueprint").parent)
    vocabulary = largest_id(tokenizer) + 1  # ids have gaps, and the embedding may have more rows
    # Each epoch reads the segment in random order.
    training = replace(training, opens=lambda path: TokenBlocks(path, job.copy_of(path)))
    blocks = training_blocks(training, tokenizer, vocabulary, job.params.context_tokens, work)
    _train(job, folder, model, blocks, training, work, key)
