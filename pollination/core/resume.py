"""Save the results of finished batches, so that a stopped evaluation resumes.

    with resume.saving(work, job.stop):
        resume.name(model, "member")
        losses = resume.once(model, "losses", [ids_BT], compute)

Inside `saving`, `once` returns the saved result of an equal batch, or computes and saves it. The
key of a batch is the digest of everything that its result depends on: the model's name within the
job, the type of its weights, the kind of computation, and its inputs. The work folder belongs to
one job key (core/job.py), so settings and files are equal. Batches are those of an undisturbed run,
so results are equal too.
Outside `saving`, and for a model without a name, `once` only computes.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from pollination.core import artifacts, causes
from pollination.core.environment import number
from pollination.core.job import Stopped, StopRequest

SAVE_S = 120.0  # the environment variable POLLINATION_SAVE_EVERY_S overrides it
STATE = "state.npz"
FP32 = "torch.float32"

Arrays = dict[str, np.ndarray]


def save_every_s(default: float = SAVE_S) -> float:
    """Return the seconds between two saves. ValueError: the environment variable is wrong."""
    return number("POLLINATION_SAVE_EVERY_S", default, 0)


class Store:
    """The finished batches of one job: those of earlier starts, and new ones since the last save.

    `saved` counts the batches in `folder`.
    """

    def __init__(self, folder: Path, stop: StopRequest) -> None:
        self.folder, self.stop = folder, stop
        self.old: dict[str, Arrays] = {}
        self.new: dict[str, Arrays] = {}
        self.state: tuple[str, Callable[[], Arrays]] | None = None
        self.every_s = save_every_s()
        self.saved_s = time.monotonic()
        for path in self._files():
            arrays = _read(path)
            for member, array in arrays.items():
                key, _, part = member.partition("/")
                self.old.setdefault(key, {})[part] = array
            if not arrays:
                path.unlink(missing_ok=True)
        self.saved = len(self.old)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("batches*.npz"))

    def find(self, key: str) -> Arrays | None:
        """Return the result of a batch; None if it is not finished."""
        return self.new.get(key, self.old.get(key))

    def add(self, key: str, arrays: Arrays, state: Callable[[], Arrays] | None = None) -> None:
        """Add a finished batch; `state` returns what the next batch needs besides its inputs."""
        self.new[key] = arrays
        self.state = (key, state) if state is not None else None
        if time.monotonic() - self.saved_s >= self.every_s:
            self.save()

    def state_after(self, key: str) -> Arrays | None:
        """Return the state that was saved with a batch; None if another one's was saved."""
        arrays = _read(self.folder / STATE)
        return arrays if str(arrays.pop("key", "")) == key else None

    def save(self) -> None:
        """Save the new batches, unless another copy of the job has taken over."""
        self.saved_s = time.monotonic()
        if not self.new or not self.stop.may_save:
            return
        new = dict(self.new)
        number = max((int(path.stem[7:]) for path in self._files()), default=0) + 1
        _write(
            self.folder / f"batches{number:06d}.npz",
            {f"{key}/{name}": array for key, batch in new.items() for name, array in batch.items()},
        )
        if self.state is not None:
            key, state = self.state
            _write(self.folder / STATE, {"key": np.array(key)} | state())
        self.saved += len(new)
        self.new = {key: batch for key, batch in self.new.items() if key not in new}

    def clear(self) -> None:
        """Forget all batches, because the results that they are for have been saved."""
        for path in self._files():
            path.unlink(missing_ok=True)
        self.old, self.new, self.saved = {}, {}, 0


def _read(path: Path) -> Arrays:
    """Return the arrays of a file; none if it is absent or damaged. OSError: the disk failed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {member: file[member] for member in file.files}
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        if causes.of_system(error):
            raise
        return {}


def _write(path: Path, arrays: Arrays) -> None:
    with artifacts.atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


_store: Store | None = None


@contextmanager
def saving(folder: Path, stop: StopRequest, log=None) -> Iterator[Store]:
    """Save finished batches in `folder` until the block ends.

    Stopped: a stop was requested, at any time. Its message says how many batches are saved.
    """
    global _store
    store = _store = Store(folder, stop)
    if log is not None and store.saved:
        log.info("resumed after %d batches", store.saved)
    try:
        yield store
    except Stopped as stopped:
        store.save()
        if "saved" in str(stopped):
            raise
        outcome = "no progress saved; the job will restart"
        if store.saved and stop.may_save:
            outcome = f"{store.saved} batches saved; run the same command to resume"
        raise Stopped(f"stopped by {stop.reason}; {outcome}") from None
    except BaseException:
        with suppress(OSError):
            store.save()
        raise
    finally:
        _store = None


def resumes() -> bool:
    """Return whether an earlier start of this job saved batches; asked before the first save."""
    return _store is not None and _store.saved > 0


@contextmanager
def suspended() -> Iterator[None]:
    """Save and restore nothing in this block, where a user's code may change the model."""
    global _store
    store, _store = _store, None
    try:
        yield
    finally:
        _store = store


def name(model: Any, text: str) -> Any:
    """Give a model a name that tells it from the other models of its job. Return the model.

    Copies of the model have no name, because their weights may change.
    """
    model.resume_name = text, id(model)
    return model


def _name_of(model: Any) -> str | None:
    text, owner = getattr(model, "resume_name", (None, None))
    return text if owner == id(model) else None


def key_of(model: Any, kind: str, inputs: Iterable[Any]) -> str:
    """Return the key of a batch. Inputs are arrays, or values that JSON can hold."""
    digest = hashlib.blake2b(digest_size=16)
    dtype = str(getattr(model, "dtype", FP32))
    rounded = () if dtype == FP32 else (dtype,)
    for part in (_name_of(model), kind, *rounded, *inputs):
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def once(model: Any, kind: str, inputs: Iterable[Any], compute: Callable[[], Arrays]) -> Arrays:
    """Return compute(), or the saved result of the same batch.

    Stopped: the job must stop.
    """
    if _store is None or _name_of(model) is None:
        return compute()
    key = key_of(model, kind, inputs)
    found = _store.find(key)
    if found is None:
        check_stop()
        found = compute()
        _store.add(key, found)
    return found


def check_stop() -> None:
    """Raise Stopped if the job that saves its batches must stop."""
    if _store is not None and _store.stop:
        raise Stopped(f"stopped by {_store.stop.reason}")


def unsaved() -> bool:
    """Return whether there are finished batches that `saving` saves when the job stops."""
    return _store is not None and bool(_store.new)


def clear() -> None:
    """Forget the finished batches, because their results have been saved elsewhere."""
    if _store is not None:
        _store.clear()


def active() -> bool:
    """Return whether batches are saved."""
    return _store is not None


class Steps:
    """Batches that each need the state after the one before, besides their inputs.

    `done` is the number of finished steps. The state after the last of them is saved too, unless
    it was the last of all.
    """

    def __init__(self, model: Any, kind: str, inputs: Iterable[Any]) -> None:
        self.done = 0
        self.store = _store if _name_of(model) is not None else None
        if self.store is None:
            return
        self.key = key_of(model, kind, inputs)
        while self.store.find(f"{self.key}.{self.done}") is not None:
            self.done += 1
        if self.state() is None and self.store.find(f"{self.key}.end") is None:
            self.done = 0

    def state(self) -> Arrays | None:
        """Return the state after the last step that is done."""
        return self.store.state_after(f"{self.key}.{self.done - 1}") if self.store else None

    def result(self, number: int) -> Arrays:
        """Return the result of a step that is done."""
        found = self.store.find(f"{self.key}.{number}") if self.store else None
        if found is None:
            raise ValueError("a saved batch can no longer be read; run snakemake again")
        return found

    def add(self, number: int, result: Arrays, state: Callable[[], Arrays]) -> None:
        """Add a finished step. `state` is called when it is saved."""
        if self.store is not None:
            self.store.add(f"{self.key}.{number}", result, state)

    def end(self) -> None:
        """Note that all steps are finished."""
        if self.store is not None:
            self.store.add(f"{self.key}.end", {"end": np.array(True)})


def texts(
    model: Any, kind: str, inputs: Iterable[Any], compute: Callable[[], list[list[int]]]
) -> list[list[int]]:
    """Return `once` of a batch whose result is one list of token ids per text."""

    def packed() -> Arrays:
        rows = compute()
        ids = np.array([token for row in rows for token in row], dtype=np.int64)
        return {"ids": ids, "counts": np.array([len(row) for row in rows], dtype=np.int64)}

    if _store is None or _name_of(model) is None:
        return compute()
    found = once(model, kind, inputs, packed)
    return [row.tolist() for row in np.split(found["ids"], np.cumsum(found["counts"])[:-1])]
