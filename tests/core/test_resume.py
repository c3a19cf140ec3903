"""Finished batches of a stopped evaluation are not computed again."""

import copy
import logging
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pollination.core import resume
from pollination.core.job import Stopped

LOG = logging.getLogger("resume")
MODEL = resume.name(SimpleNamespace(), "member")


class Stop:
    """A stop request that comes after `left` questions."""

    def __init__(self, left: int, may_save: bool = True) -> None:
        self.left, self.may_save, self.reason = left, may_save, "SIGTERM"

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


@contextmanager
def stopped(folder: Path, stop: Stop, said: str = "saved"):
    """A block that saves its batches and is stopped with a message that says `said`."""
    with pytest.raises(Stopped, match=said), resume.saving(folder, stop, LOG):
        yield


def batches(computed: list, count: int = 5, model=MODEL) -> list[float]:
    """The results of a loop over batches; `computed` gets the number of each that is computed."""

    def compute(number: int) -> dict:
        computed.append(number)
        return {"losses": np.full(3, number / 7, dtype=np.float32)}

    found = [
        resume.once(model, "losses", [np.arange(number), number], lambda n=number: compute(n))
        for number in range(count)
    ]
    return [float(part["losses"].sum()) for part in found]


def test_a_stopped_loop_resumes_after_its_last_batch_with_equal_results(tmp_path):
    whole: list[int] = []
    expected = batches(whole)
    first: list[int] = []
    with stopped(tmp_path, Stop(3), "stopped by SIGTERM; 3 batches saved; run the same command"):
        assert not resume.resumes()
        batches(first)
    rest: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        assert resume.resumes()
        assert batches(rest) == expected
    assert (whole, first, rest) == ([0, 1, 2, 3, 4], [0, 1, 2], [3, 4])


def test_a_signal_between_two_instructions_keeps_the_finished_batches(tmp_path):
    with stopped(tmp_path, Stop(99), "2 batches saved"):
        batches([], 2)
        raise Stopped("stopped by SIGTERM")
    again: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        batches(again, 2)
    assert again == []


def test_a_signal_while_saved_batches_are_read_loses_none(tmp_path, monkeypatch):
    with stopped(tmp_path, Stop(3)):
        batches([])

    def interrupted(*_words, **_settings):
        raise Stopped("stopped by SIGTERM")

    with monkeypatch.context() as patched:
        patched.setattr(np, "load", interrupted)
        with pytest.raises(Stopped), resume.saving(tmp_path, Stop(99), LOG):
            pass
    with resume.saving(tmp_path, Stop(99), LOG) as store:
        assert store.saved == 3


def test_a_copy_that_lost_its_lease_saves_nothing(tmp_path):
    with stopped(tmp_path, Stop(2, may_save=False), "no progress saved"):
        batches([])
    assert list(tmp_path.iterdir()) == []


def test_batches_are_saved_while_the_loop_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", "0")
    with resume.saving(tmp_path, Stop(99), LOG):
        batches([], 2)
        assert len(list(tmp_path.glob("batches*.npz"))) == 2


@pytest.mark.parametrize("damage", [b"", b"PK no zip", None])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    with stopped(tmp_path, Stop(3)):
        batches([])
    (path,) = tmp_path.glob("batches*.npz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    again: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        assert batches(again) == batches([])
    assert again[:5] == [0, 1, 2, 3, 4]


def test_two_models_of_a_job_do_not_share_results(tmp_path):
    before, after = (resume.name(SimpleNamespace(), text) for text in ("before", "after"))
    computed: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        batches(computed, 2, before)
        batches(computed, 2, after)
        batches(computed, 2, before)
    assert computed == [0, 1, 0, 1]


def test_a_copy_of_a_model_and_a_block_with_the_users_code_compute(tmp_path):
    """A model that is examined, or that a user's function may change, has results of its own."""
    computed: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        batches(computed, 1)
        batches(computed, 1, copy.deepcopy(MODEL))
        batches(computed, 1, SimpleNamespace())
        with resume.suspended():
            batches(computed, 1)
        batches(computed, 1)
    assert computed == [0, 0, 0, 0]


def steps(done: list, count: int = 4) -> list[float]:
    """A loop whose batches need a running sum; `done` gets the number of each computed batch."""
    total, found = 0.0, []
    chain = resume.Steps(MODEL, "sums", [count])
    for number in range(count):
        if number < chain.done:
            found.append(float(chain.result(number)["sum"]))
            if number == chain.done - 1:
                total = float((chain.state() or {"total": 0.0})["total"])
            continue
        resume.check_stop()
        done.append(number)
        total += 1 / (number + 3)
        found.append(total)
        state = {"total": np.array(total)}
        chain.add(number, {"sum": np.array(total)}, lambda state=state: state)
    chain.end()
    return found


def test_a_chain_of_batches_resumes_with_the_state_after_the_last(tmp_path):
    expected = steps([])
    with stopped(tmp_path, Stop(2), "2 batches saved"):
        steps([])
    rest: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        assert steps(rest) == expected
    assert rest == [2, 3]


def test_a_chain_without_its_state_starts_again(tmp_path):
    with stopped(tmp_path, Stop(2)):
        steps([])
    (tmp_path / resume.STATE).unlink()
    rest: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        assert steps(rest) == steps([])
    assert rest == [0, 1, 2, 3]


def test_a_finished_chain_needs_no_state(tmp_path):
    with stopped(tmp_path, Stop(5)):
        steps([], 2)
        steps([], 4)
    rest: list[int] = []
    with resume.saving(tmp_path, Stop(99), LOG):
        steps(rest, 2)
        assert rest == []
        steps(rest, 4)
    assert rest == [3]


def test_texts_come_back_as_lists_of_token_ids(tmp_path):
    written = [[3, 4], [], [5]]
    with stopped(tmp_path, Stop(1)):
        assert resume.texts(MODEL, "sample", [1], lambda: written) == written
        resume.texts(MODEL, "sample", [2], lambda: written)
    with resume.saving(tmp_path, Stop(0), LOG):
        assert resume.texts(MODEL, "sample", [1], lambda: [[9]]) == written
