"""Two processes train the model that one process trains, and end together."""

import errno
import json
import logging
import math
import pickle
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from pollination.core import artifacts, causes
from pollination.core.job import Stopped
from pollination.data.mixture import Subset
from pollination.data.tokens import TokenBlocks
from pollination.models import checkpoint, launch
from pollination.models.device import prepare
from pollination.models.layers import checkpoint_activations, layers_of
from pollination.models.parallel import POINTER, ParallelTrainer, Told, from_first
from tests.models.test_checkpoint import make_tokenizer, spec
from tests.models.test_trainer import Array, settings, text, trainer, weights

LOG = logging.getLogger("test")
# 24 blocks in batches of 7: the ranks get 4 and 3 sequences, and of the last batch 2 and 1. Adam
# enlarges rounding where a gradient is 0 (the bias of GPT-2's keys) to the learning rate's size.
UNEVEN = {"epochs": 2, "batch_size": 7, "micro_batch_size": 2, "learning_rate": 1e-3}
LONG = {"epochs": 60, "batch_size": 6, "learning_rate": 1e-3}


class Request:
    """A request to stop that comes once the first checkpoint is written, or never."""

    reason, may_save = "SIGTERM", True

    def __init__(self, file: Path | None = None):
        self.file = file

    def __bool__(self):
        return self.file is not None and self.file.exists()


class OneByOne(Array):
    """Blocks that fill the GPU if more than one is read."""

    def blocks(self, indices):
        if len(indices) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().blocks(indices)


@pytest.fixture
def blueprint(tmp_path, request):
    prepare("cpu", 1)  # as the ranks
    checkpoint.write_blueprint(spec(getattr(request, "param", "llama")), make_tokenizer(), tmp_path)
    return tmp_path


def start(blueprint: Path, name: str, validation=None, **changes) -> launch.Spec:
    work = blueprint / name
    work.mkdir(exist_ok=True)
    return launch.Spec(
        blueprint=blueprint,
        weights=None,
        weights_seed=1,
        blocks=text(),
        validation=validation,
        settings=settings(**{"gpus": 2} | changes),
        seed=7,
        device="cpu",
        cpu_threads=1,
        work=work,
        key="k",
        target=work / "model",
        log=work / "log.txt",
    )


def differ(given: launch.Spec, expected: dict) -> float:
    """The largest difference of the saved weights; the folder is read as a member's is."""
    (given.target / "model.safetensors").stat()
    model = checkpoint.load_model(given.target)
    found = {name: p.detach() for name, p in model.named_parameters()}
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in found)


@pytest.mark.parametrize(
    ("blueprint", "parallel", "more"),
    [
        ("gpt2", "ddp", {"activation_checkpointing": True}),
        ("llama", "fsdp", {"activation_checkpointing": True}),
    ],
    indirect=["blueprint"],
)
def test_two_ranks_give_the_weights_of_one_process(blueprint, parallel, more):
    best = UNEVEN | {"checkpoint": "best"}
    one = trainer(blueprint, blueprint / "one", validation=text(5), **best)
    expected = one.run()
    given = start(blueprint, parallel, text(5), parallel=parallel, **best, **more)
    metrics, used = launch.train(given, LOG, Request())
    assert differ(given, weights(one)) <= 1e-6
    assert used == {} and [list(row) for row in metrics] == [list(row) for row in expected]
    for row, other in zip(metrics, expected, strict=True):
        assert all(math.isclose(row[key], other[key], rel_tol=1e-5) for key in row)
    log = given.log.read_text()
    assert log.count("8 steps of 7 sequences") == 1 and "validation loss" in log  # one rank's


def ranks_of(process: psutil.Process) -> dict[int, psutil.Process]:
    found = {}
    for child in process.children(recursive=True):
        try:
            found[int(child.environ()["RANK"])] = child
        except (KeyError, psutil.Error):
            continue
    return found


def then(condition, action) -> threading.Thread:
    """Start a thread that waits for a condition, and then acts on the ranks."""

    def wait():
        end_s = time.monotonic() + 300
        while time.monotonic() < end_s and not condition():
            time.sleep(0.02)
        action(ranks_of(psutil.Process()))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_killed_rank_ends_the_job_and_a_resume_gives_the_same(blueprint, parallel, monkeypatch):
    one = trainer(blueprint, blueprint / "one", **LONG)
    one.run()
    given = start(blueprint, parallel, parallel=parallel, **LONG)
    monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", "0")
    saved = given.work / POINTER
    killer = then(saved.exists, lambda ranks: ranks[1].kill())
    with pytest.raises(ValueError) as error:
        launch.train(given, LOG, Request())
    killer.join()
    line = str(error.value)
    assert line.startswith("train.gpus: rank 1 of 2 was ended by SIGKILL (memory ran out") and (
        line.endswith("run the same command to resume from the last checkpoint")
    )
    assert not ranks_of(psutil.Process())
    first = json.loads(saved.read_text())["state"]["step"]
    monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", "600")
    launch.train(given, LOG, Request())
    assert differ(given, weights(one)) <= 1e-6
    assert f"resumed at step {first} of 240" in given.log.read_text()
    with pytest.raises(ValueError, match="digest of its settings and inputs is k, but this job"):
        launch.train(replace(given, key="other"), LOG, Request())


def test_a_stop_reaches_all_ranks_and_saves(blueprint, monkeypatch):
    """Slurm sends SIGTERM to each process of the step, so to the ranks too."""
    given = start(blueprint, "ddp", **LONG)
    monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", "0")
    stop = Request(given.work / POINTER)

    def warn(ranks):
        for rank in ranks.values():
            rank.send_signal(signal.SIGTERM)

    sender = then(stop.__bool__, warn)
    with pytest.raises(Stopped) as stopped:
        launch.train(given, LOG, stop)
    sender.join()
    step = json.loads((given.work / POINTER).read_text())["state"]["step"]
    assert str(stopped.value) == (
        f"stopped by SIGTERM at step {step} of 240; checkpoint saved; run the same command to "
        "resume"
    )
    assert [p.name for p in given.work.glob("checkpoint.*") if p.is_dir()] == [f"checkpoint.{step}"]
    stop.may_save, before = False, step
    with pytest.raises(Stopped, match="no checkpoint saved|before the ranks started"):
        launch.train(given, LOG, stop)  # another copy of the job has taken over
    assert json.loads((given.work / POINTER).read_text())["state"]["step"] == before


@pytest.mark.slow
def test_a_rank_that_does_not_answer_ends_the_job(blueprint, monkeypatch):
    given = replace(start(blueprint, "ddp", **LONG), timeout_s=8.0)
    monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", "0")
    stopper = then((given.work / POINTER).exists, lambda ranks: ranks[1].suspend())
    with pytest.raises(ValueError, match="rank 0 of 2 waited 8 s for another one, which did not"):
        launch.train(given, LOG, Request())
    stopper.join()
    assert not ranks_of(psutil.Process())


def test_a_mistake_of_the_settings_is_the_line_of_one_process(blueprint):
    wild = {"epochs": 40, "learning_rate": 1e4, "warmup_steps": 0}
    with pytest.raises(ValueError) as expected:
        trainer(blueprint, blueprint / "one", **wild).run()
    with pytest.raises(ValueError, match=r"training (stopped|diverged) at step .* lower train\.le"):
        launch.train(start(blueprint, "ddp", **wild), LOG, Request())
    assert "lower train.learning_rate" in str(expected.value)


@pytest.mark.slow
def test_a_full_gpu_restarts_all_ranks_with_half_the_micro_batch(blueprint, caplog):
    narrow = OneByOne(text(6).tokens)
    given = start(blueprint, "ddp", narrow, batch_size=6, checkpoint="best")
    _, used = launch.train(given, logging.getLogger(), Request())
    assert used == {"micro_batch_size": 1}
    told = [r.getMessage() for r in caplog.records if "GPU memory is full" in r.getMessage()]
    assert [line.rsplit(" ", 1)[1] for line in told] == ["2", "1"]


def test_more_gpus_than_the_machine_has_are_refused(blueprint):
    with pytest.raises(ValueError, match="train.gpus: 2, but torch finds 0 GPUs on this machine"):
        launch.train(replace(start(blueprint, "ddp"), device="cuda"), LOG, Request())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_checkpointing_keeps_less_and_changes_no_bit(tmp_path, dropout):
    checkpoint.write_blueprint(spec("gpt2"), make_tokenizer(), tmp_path)
    runs, kept = [], []
    for on in (False, True):
        t = trainer(tmp_path, tmp_path / str(on), activation_checkpointing=on, dropout=dropout)
        sizes: list[int] = []
        pack = lambda x, sizes=sizes: sizes.append(x.numel()) or x  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            t.loss(t.read(0))
        kept.append(sum(sizes))
        runs.append((t.run(), weights(t)))
    assert kept[1] < kept[0] / 2
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_the_layers_are_the_largest_list_of_modules(tmp_path):
    for family, kind in (("llama", "LlamaDecoderLayer"), ("gpt2", "GPT2Block")):
        checkpoint.write_blueprint(spec(family), make_tokenizer(), tmp_path)
        model = checkpoint.create_model(tmp_path, 0)
        assert {type(layer).__name__ for layer in layers_of(model)} == {kind}
        assert len(layers_of(model)) == model.config.num_hidden_layers
    with pytest.raises(ValueError, match="no list of layers"):
        checkpoint_activations(torch.nn.Linear(2, 2))


def test_another_process_maps_the_text_and_its_copy(tmp_path):
    path, tokens = tmp_path / "text.bin", np.arange(12, dtype=np.uint16).reshape(4, 3)
    path.write_bytes(tokens.tobytes())
    about = {"blocks": 4, "context_tokens": 3, "eos_id": 0, "dtype": "uint16"}
    artifacts.write_json(path.with_suffix(".json"), about)
    with open(path, "rb") as copy:
        for blocks in (TokenBlocks(path), TokenBlocks(path, copy)):
            for part in (blocks, Subset(blocks, np.array([3, 1])), blocks.first(2)):
                data = pickle.dumps(part)
                assert len(data) < 2000
                other, all_ = pickle.loads(data), np.arange(len(part))
                assert np.array_equal(other.blocks(all_), part.blocks(all_))


@pytest.fixture
def alone():
    """A group of one rank, in this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("qwen3", {"head_dim": 8}),  # Qwen3-1.7B
        ("llama", {"head_dim": 8}),  # Llama-3.2-1B
        ("olmo2", {"tie_word_embeddings": False}),  # OLMo-2-1B
    ],
)
def test_large_families_train_in_bf16_with_sharded_weights_in_fp32(tmp_path, alone, family, more):
    prepare("cpu", 1)
    about = {"architecture": family, "settings": SIZES | more, "context_tokens": 16}
    make_tokenizer().save_pretrained(tmp_path)
    checkpoint.write_blueprint(about | {"pretrained": None}, make_tokenizer(), tmp_path)
    half = {"precision": "bf16", "epochs": 3, "activation_checkpointing": True}
    one = trainer(tmp_path, tmp_path / "one", **half)
    expected = one.run()
    given = start(tmp_path, "fsdp", parallel="fsdp", **half)
    model = from_first(lambda: checkpoint.create_model(tmp_path, seed=1))
    rest = given.settings, 7, torch.device("cpu"), given.work, "k", LOG, Told(tmp_path / "none")
    sharded = ParallelTrainer(model, text(), *rest)
    metrics = sharded.run()
    assert {p.dtype for p in sharded.names.values()} == {torch.float32}
    assert metrics[-1]["loss"] < 0.9 * metrics[0]["loss"]
    for row, other in zip(metrics, expected, strict=True):
        assert math.isclose(row["loss"], other["loss"], rel_tol=0.02)
    sharded.write(given.target)
    assert differ(given, weights(one)) < 0.01


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_checkpoint_that_is_damaged_or_cannot_be_written(
    blueprint, alone, parallel, monkeypatch, caplog
):
    given = start(blueprint, parallel, parallel=parallel)
    saved = given.work / POINTER

    def rank(stop: bool = False) -> ParallelTrainer:
        model = from_first(lambda: checkpoint.create_model(blueprint, seed=1))
        told = Told(blueprint / ("stop.json" if stop else "none"))
        more = given.settings, 7, torch.device("cpu"), given.work, "k"
        return ParallelTrainer(model, text(), *more, logging.getLogger(), told)

    artifacts.write_json(blueprint / "stop.json", {"reason": "SIGTERM", "may_save": True})
    expected = rank().run()
    with pytest.raises(Stopped, match="at step 1 of 6; checkpoint saved"):
        rank(stop=True).run()
    folder = given.work / json.loads(saved.read_text())["folder"]
    (part,) = folder.glob("*.distcp")
    whole, metadata = part.read_bytes(), (folder / ".metadata").read_bytes()
    part.write_bytes(whole[:-1])
    assert rank().run() == expected and "missing or truncated); training restarts" in caplog.text
    part.write_bytes(whole)
    (folder / ".metadata").write_bytes(bytes(len(metadata)))
    with pytest.raises(
        ValueError, match=r"checkpoint\.1: not a readable checkpoint \(.*Delete the"
    ):
        rank().run()
    (folder / ".metadata").write_bytes(metadata)
    assert rank().run() == expected
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError) as error:
            rank(stop=True).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert causes.number(error.value) == errno.EFBIG
    assert rank().run() == expected  # the old one stays
