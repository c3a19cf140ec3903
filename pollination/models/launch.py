"""Start the ranks of a training, pass on a stop, and report in one line why one failed.

Torchrun's agent starts the ranks (rank.py) and ends all of them if one fails. They and this process
talk through files in a temporary folder: the spec, the request to stop, and a rank's outcome.
"""

import logging
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pollination import ROOT
from pollination.core import artifacts
from pollination.core.job import Stopped
from pollination.data.mixture import Blocks

SPEC, STOP = "spec.pickle", "stop.json"
LOOK_S = 0.2
# A rank that waits so long for the others ends the job. Rank 0 writes files in the meantime.
TIMEOUT_S = 1800.0
SHUTDOWN_S = 5  # for ranks that wait for a dead one; they do not heed SIGTERM


@dataclass(frozen=True)
class Spec:
    """What a rank needs: the start of the model, its training, and where the result goes."""

    blueprint: Path
    weights: Path | None
    weights_seed: int
    blocks: Blocks
    validation: Blocks | None
    settings: dict
    seed: int
    device: str
    cpu_threads: int
    work: Path
    key: str
    target: Path
    """The model folder to write."""
    log: Path | None
    micro: int | None = None
    timeout_s: float = TIMEOUT_S


def train(spec: Spec, log, stop) -> tuple[list[dict], dict[str, int | str]]:
    """Train with `train.gpus` ranks, and write the model. Return the metrics and `Trainer.used`.

    ValueError: there are fewer GPUs, or a rank failed; the message names the cause. Stopped: a stop
    was requested. RuntimeError: a rank failed by a bug; it has the rank's traceback.
    """
    ranks = spec.settings["gpus"]
    if spec.device == "cuda" and ranks > torch.cuda.device_count():
        raise ValueError(
            f"train.gpus: {ranks}, but torch finds {torch.cuda.device_count()} GPUs on this "
            "machine; use a machine with more, or lower train.gpus"
        )
    log.info("training with %d ranks (%s)", ranks, spec.settings["parallel"])
    while True:
        if stop:
            raise Stopped(f"stopped by {stop.reason} before the ranks started")
        with tempfile.TemporaryDirectory(prefix="pollination-ranks-") as name:
            folder = Path(name)
            with open(folder / SPEC, "wb") as file:
                pickle.dump(spec, file)
            with passed_on(stop, folder / STOP):
                failures = _launch(folder, ranks)
            outcomes = {n: _outcome(folder, n) for n in range(ranks)}
            first = outcomes[0] or {}
            if not failures and first.get("kind") == "done":
                return first["metrics"], first["used"]
            if not failures and first.get("kind") == "stopped":
                raise Stopped(first["text"])
            again = [o for o in outcomes.values() if o and o["kind"] == "retry"]
            if not again:
                raise _cause(failures, outcomes, folder, spec, stop)
        micro = min((o["micro"] for o in again if o["micro"]), default=None)
        if micro:
            log.warning(
                "GPU memory is full; the ranks restart with a micro-batch size of %d", micro
            )
            spec = replace(spec, micro=micro)
        else:
            log.warning(
                "torch.compile failed (%s); the ranks restart without it, which is slower",
                again[0]["text"],
            )
            spec = replace(spec, settings=spec.settings | {"compile": False})


@contextmanager
def passed_on(stop, file: Path) -> Iterator[None]:
    """Write the request to stop into a file as soon as there is one."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_S):
            if stop:
                with suppress(OSError):  # a full disk; the next look tries again
                    artifacts.write_json(file, {"reason": stop.reason, "may_save": stop.may_save})
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _launch(folder: Path, ranks: int) -> dict[int, int]:
    """Run the ranks to their end. Return the exit status of those that failed."""
    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle="",  # this job's own handlers stay
        shutdown_timeout=SHUTDOWN_S,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "output"), redirects=Std.ALL),
    )
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pollination.models import rank"
    try:
        elastic_launch(config, sys.executable)("-c", f"{code}; rank.main()", str(folder))
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except RendezvousError as error:
        raise ValueError(
            f"train.gpus: the ranks cannot reach each other on this machine (127.0.0.1): {error}; "
            "check its loopback network, or set gpus: 1"
        ) from None
    return {}


def _outcome(folder: Path, rank: int) -> dict[str, Any] | None:
    path = outcome_file(folder, rank)
    return artifacts.read_json(path) if path.exists() else None


def outcome_file(folder: Path, rank: int) -> Path:
    return folder / f"outcome.{rank}.json"


def _cause(
    failures: dict[int, int], outcomes: dict, folder: Path, spec: Spec, stop
) -> BaseException:
    """Return the error for the first cause; other ranks then lost their connection."""
    told = [(o["time"], n) for n, o in outcomes.items() if o and o["kind"] in ("refused", "bug")]
    if told:
        outcome = outcomes[min(told)[1]]
        kind = ValueError if outcome["kind"] == "refused" else RuntimeError
        return kind(outcome["text"])
    silent = {n: code for n, code in failures.items() if not outcomes[n]}
    if stop and all(code < 0 for code in silent.values()):
        return Stopped(f"stopped by {stop.reason}; the ranks ended without a new checkpoint")
    fix = "run the same command to resume from the last checkpoint"
    lost = [n for n, o in outcomes.items() if o and o["kind"] == "lost"]
    if lost and any("timed out" in outcomes[n]["text"].lower() for n in lost):
        return ValueError(
            f"train.gpus: rank {lost[0]} of {len(outcomes)} waited {spec.timeout_s:.0f} s for "
            f"another one, which did not answer; {fix}"
        )
    for rank, code in silent.items():
        if code < 0:
            name = signal.Signals(-code).name
            why = " (memory ran out, or somebody ended it)" if name == "SIGKILL" else ""
            how = f"was ended by {name}{why}"
        else:
            how = f"ended with status {code}"
        said = _last_line(folder, rank)
        return ValueError(
            f"train.gpus: rank {rank} of {len(outcomes)} {how}{f': {said}' if said else ''}; {fix}"
        )
    text = outcomes[lost[0]]["text"] if lost else "no rank says why"
    return ValueError(f"train.gpus: the ranks lost each other ({text}); {fix}")


def _last_line(folder: Path, rank: int) -> str:
    """Return the last line that a rank wrote to stderr, shortened."""
    for path in folder.glob(f"output/*/*/{rank}/stderr.log"):
        lines = path.read_text(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
    return ""
