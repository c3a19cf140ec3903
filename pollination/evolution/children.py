"""Train a member: a founder on human text, a child on text of the previous generation."""

import shutil
from dataclasses import replace
from pathlib import Path

from pollination.core import artifacts
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.data.mixture import Blocks
from pollination.data.tokens import TokenBlocks, largest_id
from pollination.evolution.reading import Training, training_blocks, training_of
from pollination.models import checkpoint
from pollination.models.checkpoint import load_tokenizer
from pollination.models.device import prepare
from pollination.models.trainer import Trainer, write_metrics

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def _train(job: Job, folder: Path, model, blocks, training: Training, work: Path, key: str) -> None:
    """Train `model`, or with several GPUs its start, which each rank loads."""
    validation = TokenBlocks(job.file("validation")) if job.files("validation") else None
    determinism = training.settings["determinism"]
    device = prepare(job.device, job.params.cpu_threads, determinism)
    if model is None:
        _train_in_parallel(job, folder, blocks, validation, training, device.type, work, key)
        return
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
    _write_others(job, folder, metrics)


def _train_in_parallel(
    job: Job,
    folder: Path,
    blocks: Blocks,
    validation: TokenBlocks | None,
    training: Training,
    device: str,
    work: Path,
    key: str,
) -> None:
    from pollination.models import launch, parallel  # take long to import

    job.note_hardware(resumes=(work / parallel.POINTER).exists())
    spec = launch.Spec(
        blueprint=job.file("blueprint").parent,
        weights=job.optional_file("weights"),
        weights_seed=derive_seed(training.seed, "weights"),
        blocks=blocks,
        validation=validation,
        settings=training.settings,
        seed=training.seed,
        device=device,
        cpu_threads=job.params.cpu_threads,
        work=work,
        key=key,
        target=folder,
        log=job.log_path,
    )
    metrics, job.used = launch.train(spec, job.log, job.stop)
    _write_others(job, folder, metrics)


def _write_others(job: Job, folder: Path, metrics: list[dict]) -> None:
    """Write the files of a member besides its model."""
    for name in TOKENIZER_FILES:
        with artifacts.atomic(folder / name) as temporary:
            shutil.copyfile(job.file("blueprint").parent / name, temporary)
    write_metrics(Path(job.output.metrics), metrics)


def _adopt(job: Job, folder: Path, training: Training) -> None:
    """Write a founder that is its pretrained model as it is."""
    checkpoint.save_model(start(job, training.seed), folder)
    _write_others(job, folder, [{"step": 0, "tokens": 0}])


def start(job: Job, seed: int):
    """Return the model at the start of training: inherited, pretrained or new weights."""
    folder, weights = job.file("blueprint").parent, job.optional_file("weights")
    return checkpoint.start_model(folder, weights, derive_seed(seed, "weights"))


def train(job: Job, folder: Path) -> None:
    """Train one member with the weights and the text that its operators choose.

    A founder starts from new or pretrained weights and reads its segment of human text.
    """
    training = training_of(job)
    key = job.key(training.seed)
    work = job.claim("train", key)
    if work is None:
        return
    if not training.settings["epochs"]:
        _adopt(job, folder, training)
        return
    model = start(job, training.seed) if training.settings["gpus"] == 1 else None
    tokenizer = load_tokenizer(job.file("blueprint").parent)
    vocabulary = largest_id(tokenizer) + 1  # ids have gaps, and the embedding may have more rows
    # Each epoch reads the segment in random order.
    training = replace(training, opens=lambda path: TokenBlocks(path, job.copy_of(path)))
    blocks = training_blocks(training, tokenizer, vocabulary, job.params.context_tokens, work)
    _train(job, folder, model, blocks, training, work, key)
