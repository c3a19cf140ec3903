"""Training learns, resumes bit for bit, and stops with a clear error if it cannot continue."""

import logging
import math

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
