"""Training learns, resumes bit for bit, and stops with a clear error if it cannot continue."""

import logging
import math
import weakref

import numpy as np
import pytest
import torch

from pollination.core.job import Stopped
from pollination.core.settings import definition, with_defaults
from pollination.data.mixture import Subset, join, mix, sample, segment
from pollination.models import checkpoint
from pollination.models.trainer import Trainer, learning_rate
from tests.models.test_checkpoint import SETTINGS, make_tokenizer, spec

LOG = logging.getLogger("test")
CPU = torch.device("cpu")


class Array:
    """Blocks held in memory."""

    def __init__(self, tokens_NT):
        self.tokens = np.asarray(tokens_NT)

    def __len__(self):
        return len(self.tokens)

    def blocks(self, indices):
        return self.tokens[indices].copy()


class StopAfter:
    """A stop request that is true from the check number `count` onwards."""

    reason, may_save = "SIGTERM", True

    def __init__(self, count):
        self.left = count

    def __bool__(self):
        self.left -= 1
        return self.left <= 0


def settings(**changes) -> dict:
    base = {"batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 3}
    return with_defaults(base | changes, definition("train"))


def text(count=24, period=5) -> Array:
    """Return sequences that count upwards modulo a period: easy to learn, not constant."""
    start = np.random.default_rng(0).integers(0, period, count)
    return Array(2 + (start[:, None] + np.arange(12)) % period)


@pytest.fixture(params=SETTINGS)
def blueprint(request, tmp_path):
    checkpoint.write_blueprint(spec(request.param), make_tokenizer(), tmp_path)
    return tmp_path


def trainer(
    blueprint, work, blocks=None, stop=None, key="k", validation=None, **changes
) -> Trainer:
    model = checkpoint.create_model(blueprint, seed=1)
    return Trainer(
        model, blocks or text(), settings(**changes), 7, CPU, work, key, LOG, stop, validation
    )


def weights(t: Trainer) -> dict:
    return {name: p.detach().clone() for name, p in t.names.items()}


def test_training_learns(blueprint, tmp_path):
    metrics = trainer(blueprint, tmp_path / "w", epochs=30, learning_rate=1e-2).run()
    assert metrics[0]["loss"] > 2.0
    assert metrics[-1]["loss"] < 0.5
    assert metrics[-1]["step"] == 180


@pytest.mark.parametrize("stops", [[1], [5], [4, 3, 9]])
def test_a_resumed_run_ends_bit_identical(blueprint, tmp_path, stops):
    whole = trainer(blueprint, tmp_path / "a", epochs=3, validation=text(6), checkpoint="best")
    expected = whole.run()
    for count in stops:
        with pytest.raises(Stopped, match="run the same command to resume"):
            trainer(
                blueprint,
                tmp_path / "b",
                stop=StopAfter(count),
                epochs=3,
                validation=text(6),
                checkpoint="best",
            ).run()
    resumed = trainer(blueprint, tmp_path / "b", epochs=3, validation=text(6), checkpoint="best")
    assert resumed.run() == expected
    before, after = weights(whole), weights(resumed)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_of_other_settings_is_refused_with_both_keys(blueprint, tmp_path):
    with pytest.raises(Stopped):
        trainer(blueprint, tmp_path, stop=StopAfter(2), key="one").run()
    with pytest.raises(ValueError, match=r"inputs is one, but this job has two"):
        trainer(blueprint, tmp_path, key="two").run()


def test_a_truncated_checkpoint_starts_anew(blueprint, tmp_path):
    expected = trainer(blueprint, tmp_path / "a").run()
    with pytest.raises(Stopped):
        trainer(blueprint, tmp_path / "b", stop=StopAfter(2)).run()
    path = tmp_path / "b" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    assert trainer(blueprint, tmp_path / "b").run() == expected


def test_micro_batches_give_the_gradient_of_the_whole_batch(blueprint, tmp_path):
    tokens = torch.from_numpy(text().blocks(np.arange(10)))
    whole, parts = (
        trainer(blueprint, tmp_path, batch_size=10, micro_batch_size=m) for m in (None, 3)
    )
    assert torch.isclose(whole.gradients(tokens), parts.gradients(tokens), atol=1e-6)
    for name, p in whole.names.items():
        assert torch.allclose(p.grad, parts.names[name].grad, atol=1e-6), name


class Box:
    """A tensor that a graph has saved."""

    def __init__(self, tensor):
        self.tensor = tensor


class Budget:
    """The memory of a small GPU: it counts the bytes that live graphs keep for backward passes.

    A backward pass that begins above `limit` fails with `error`.
    """

    def __init__(self, limit=math.inf, error: Exception | None = None):
        self.limit, self.error, self.held, self.most, self.failures = limit, error, 0, 0, 0

    def pack(self, tensor):
        box, size = Box(tensor.detach()), tensor.numel() * tensor.element_size()
        self.held += size
        self.most = max(self.most, self.held)
        weakref.finalize(box, self.release, size)
        return box

    def release(self, size):
        self.held -= size

    def unpack(self, box):
        if self.held > self.limit:
            self.failures += 1
            raise type(self.error)(*self.error.args)  # a new one, without a traceback
        return box.tensor

    def on(self, t: Trainer) -> Trainer:
        loss = t.loss

        def counted(part):
            with torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack):
                return loss(part)

        t.loss = counted
        return t


GPU_IS_FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]


def need_of(blueprint, work, micro, **changes) -> int:
    """Return the bytes that the backward pass of a micro-batch needs."""
    measure = Budget()
    t = measure.on(trainer(blueprint, work, batch_size=24, micro_batch_size=micro, **changes))
    t.accumulate(t.read(0)[:micro])
    return measure.most


@pytest.mark.parametrize("blueprint", ["gpt2"], indirect=True)
@pytest.mark.parametrize(
    "error,dropout",
    list(zip(GPU_IS_FULL, (0.3, 0.0, 0.0), strict=True)),
    ids=["torch", "cublas", "cudnn"],
)
def test_a_full_gpu_halves_to_the_largest_micro_batch_that_fits_and_a_resume_keeps_it(
    blueprint, tmp_path, error, dropout
):
    common = {"batch_size": 24, "epochs": 4, "dropout": dropout}
    limit = need_of(blueprint, tmp_path / "n", 6, dropout=dropout)
    budget = Budget(limit, error)
    whole = budget.on(trainer(blueprint, tmp_path / "a", **common))
    expected = whole.run()
    assert budget.failures == 2 and whole.micro == 6 and whole.used == {"micro_batch_size": 6}
    given = trainer(blueprint, tmp_path / "c", micro_batch_size=6, **common)
    assert given.run() == expected and given.used == {}
    with pytest.raises(Stopped):
        budget.on(trainer(blueprint, tmp_path / "b", stop=StopAfter(2), **common)).run()
    larger = trainer(blueprint, tmp_path / "b", **common)  # resumes where memory suffices
    assert larger.run() == expected and larger.used == {"micro_batch_size": 6}
    before, after = weights(whole), weights(larger)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("blueprint", ["llama"], indirect=True)
def test_a_smaller_last_batch_is_halved_from_its_own_size(blueprint, tmp_path):
    budget = Budget(need_of(blueprint, tmp_path / "n", 3), GPU_IS_FULL[0])
    t = budget.on(trainer(blueprint, tmp_path / "a", batch_size=24))
    t.gradients(t.read(0)[:5])
    assert budget.failures == 1 and t.micro == 3


@pytest.mark.parametrize("blueprint", ["llama"], indirect=True)
def test_one_sequence_that_exceeds_the_memory_is_one_line(blueprint, tmp_path):
    t = Budget(0, GPU_IS_FULL[1]).on(trainer(blueprint, tmp_path, batch_size=4))
    with pytest.raises(ValueError, match="one sequence exceeds the GPU's memory") as caught:
        t.run()
    assert caught.value.__context__ is None  # else the job's line would be that of the library
    other = RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE")
    t = Budget(0, other).on(trainer(blueprint, tmp_path, batch_size=4))
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        t.run()
    assert t.micro == 4


@pytest.mark.parametrize("blueprint", ["llama"], indirect=True)
def test_a_full_gpu_in_validation_halves_too(blueprint, tmp_path):
    t = trainer(blueprint, tmp_path, validation=text(6), checkpoint="best")
    expected, loss = t.validate(), t.validation_loss

    def limited(rows):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(rows)

    t.validation_loss = limited
    assert math.isclose(t.validate(), expected, rel_tol=1e-6) and t.micro == 2


def test_every_block_is_seen_once_an_epoch_in_an_order_of_the_epoch(blueprint, tmp_path):
    t = trainer(blueprint, tmp_path, batch_size=7, epochs=2)
    epochs = [
        [t.batch_of(e * t.epoch_steps + s).tolist() for s in range(t.epoch_steps)] for e in range(2)
    ]
    assert all(sorted(sum(epoch, [])) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_best_epoch_is_kept(blueprint, tmp_path):
    # training text and validation text disagree, so validation gets worse from the first epoch on
    t = trainer(
        blueprint,
        tmp_path,
        epochs=8,
        learning_rate=1e-2,
        checkpoint="best",
        validation=Array(np.full((4, 12), 9)),
    )
    losses = [row["validation_loss"] for row in t.run() if "validation_loss" in row]
    assert len(losses) == 8 and min(losses) < losses[-1]
    assert math.isclose(t.validate(), min(losses), rel_tol=1e-6)


def test_a_loss_that_is_not_finite_or_diverges_stops_the_job(blueprint, tmp_path):
    t = trainer(blueprint, tmp_path)
    with pytest.raises(ValueError, match="the loss is nan"):
        t.check(math.nan, 1.0)
    with pytest.raises(ValueError, match="gradient norm inf"):
        t.check(1.0, math.inf)
    t.state.step = 50
    with pytest.raises(ValueError, match="diverged at step 50"):
        t.check(40.0, 1.0)
    wild = trainer(blueprint, tmp_path / "wild", epochs=40, learning_rate=1e4, warmup_steps=0)
    with pytest.raises(ValueError, match="lower train.learning_rate"):
        wild.run()


def test_learning_rate_warms_up_and_falls_to_its_floor():
    s = settings(learning_rate=1.0, warmup_steps=10, min_lr_ratio=0.1)
    rates = [learning_rate(step, 110, s) for step in range(110)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
    assert math.isclose(rates[60], 0.55, abs_tol=1e-9)
    assert 0.1 <= rates[-1] < 0.101
    assert learning_rate(100, 110, s | {"schedule": "constant"}) == 1.0


def first_ids(blocks) -> list[int]:
    return blocks.blocks(np.arange(len(blocks)))[:, 0].tolist()


def test_founders_take_distinct_segments_or_share_one_and_text_can_run_out():
    blocks = Array(np.arange(40)[:, None])

    def part(member, segments, tokens=80):
        return segment(
            blocks,
            8,
            {"pool": "p", "tokens": tokens, "segments": segments, "num_segments": None},
            member,
            seed=1,
        )

    rows = [first_ids(part(m, "distinct")) for m in range(4)]
    assert sorted(sum(rows, [])) == list(range(40))
    assert rows[0] != sorted(rows[0])  # shuffled: neighbours in a corpus come from one book
    assert [first_ids(part(m, "same")) for m in range(2)] == [rows[0]] * 2
    with pytest.raises(
        ValueError, match=r"founder 4 needs 400 tokens of text, but its corpus has 320"
    ):
        part(4, "distinct")
    with pytest.raises(ValueError, match="less than one training block"):
        part(0, "distinct", tokens=7)


def test_members_share_one_budget_in_segments_equal_to_a_block():
    blocks = Array(np.arange(40)[:, None])

    def part(member, of, tokens=248, segments="distinct"):
        return segment(
            blocks,
            8,
            {"pool": "p", "tokens": tokens, "segments": segments, "num_segments": of},
            member,
            seed=1,
        )

    whole = first_ids(part(0, 1))
    assert len(whole) == 31
    four = [first_ids(part(m, 4)) for m in range(4)]
    assert [len(rows) for rows in four] == [8, 8, 8, 7] and sum(four, []) == whole
    assert first_ids(part(0, 1, tokens=None)) == first_ids(part(0, 1, tokens=320))
    assert first_ids(part(1, 2, segments=[0, 0])) == first_ids(
        part(0, 2)
    )  # twins, and no expansion
    with pytest.raises(ValueError, match="founder 0 needs .* Lower train.tokens, or add text"):
        part(0, 2, tokens=8 * 41)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_budget_and_compute_of_an_ecosystem_do_not_depend_on_its_size(size):
    """Study B, section 3: n = N / M, each block once, and the same number of passes."""
    blocks, budget = Array(np.arange(50)[:, None]), 48
    spec = {"pool": "p", "tokens": 8 * budget, "segments": "distinct", "num_segments": size}
    read = [first_ids(segment(blocks, 8, spec, m, seed=1)) for m in range(size)]
    assert sorted(sum(read, [])) == sorted(
        first_ids(segment(blocks, 8, spec | {"num_segments": 1}, 0, seed=1))
    )
    assert len(set(sum(read, []))) == budget and {len(rows) for rows in read} == {budget // size}


def test_joined_texts_are_read_end_to_end_and_sampled_without_repeats():
    texts = join(
        [
            Array(np.arange(3)[:, None]),
            Array(np.arange(10, 14)[:, None]),
            Array(np.arange(20, 21)[:, None]),
        ]
    )
    assert first_ids(texts) == [0, 1, 2, 10, 11, 12, 13, 20]
    assert texts.blocks(np.array([7, 0, 3]))[:, 0].tolist() == [20, 0, 10]
    drawn = first_ids(sample(texts, 5, seed=3))
    assert (
        len(set(drawn)) == 5
        and set(drawn) <= set(first_ids(texts))
        and drawn != first_ids(sample(texts, 5, seed=4))
    )


def test_human_text_replaces_its_share():
    synthetic, human = Array(np.zeros((20, 3), int)), Array(np.arange(1, 31)[:, None].repeat(3, 1))
    mixed = mix(synthetic, human, 0.25, seed=3).blocks(np.arange(20))[:, 0]
    assert (mixed > 0).sum() == 5 == len(set(mixed[mixed > 0]))
    assert not np.array_equal(
        mixed, mix(synthetic, human, 0.25, seed=4).blocks(np.arange(20))[:, 0]
    )
    with pytest.raises(ValueError, match="human.fraction"):
        mix(synthetic, Subset(human, np.arange(2)), 0.25, seed=3)
