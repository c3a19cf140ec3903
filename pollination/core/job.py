"""The frame of every script: log, threads, checked inputs, error messages and the record.

    with Job(snakemake) as job:
        from pollination.evolution.children import train  # heavy: after the environment is set

        train(job, Path(job.output.weights).parent)

On success, the job writes the record (the rule's output named `run`) last. A ValueError, an OSError
or a library's error that has a line in causes.py is a mistake of the user or a failure of the
machine: it ends the job with one line on the terminal and in the log. Any other exception is a bug
in pollination and keeps its traceback.
"""

import atexit
import gc
import glob
import hashlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from io import BufferedRandom
from pathlib import Path
from types import FrameType
from typing import Any

from pollination import __version__
from pollination.core import (
    artifacts,
    caches,
    causes,
    code,
    gpus,
    local_disk,
    reuse,
    sanitize,
    warm,
)
from pollination.core.commit import git_commit
from pollination.core.lease import Lease, keep, restore
from pollination.core.settings import whole_params
from pollination.core.slurm import Deadline

# New objects between garbage collections. Importing torch creates 750,000 permanent ones.
COLLECT_AFTER = 1_000_000
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "lm-eval",
    "numpy",
    "pandas",
    "pyarrow",
    "nltk",
    "wordfreq",
    "snakemake",
)
COMPUTED_WITH: dict[str, str] = {}
"""Libraries that replace torch's CPU kernels in this process, for the record."""


class Stopped(BaseException):
    """The scheduler or the user asked the job to stop.

    A signal raises it between any two instructions. So it is no Exception: code that explains the
    failure of a library must not take it for one.
    """


def _stop_at_once(number: int, _frame: object) -> None:
    signal.signal(number, lambda *_: None)  # a second signal must not break off the clean-up
    raise Stopped(
        f"stopped by {signal.Signals(number).name}; the job saves no progress and will restart"
    )


def _handle(handler: Callable[[int, FrameType | None], Any], *numbers: int) -> None:
    """Set the handler of signals, but of SIGHUP only if it is not ignored, as under nohup."""
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


class StopRequest:
    """Truthy after a signal, near the time limit, or when another copy of the job took over.

    Long loops test it at each step or shard, save if `may_save`, and raise Stopped with `reason`.
    The signals are SIGTERM, SIGUSR1, SIGINT and SIGHUP (the terminal was closed). With `at_once`
    the first signal raises Stopped itself, between two instructions of Python.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.lease: Lease | None = None
        self.deadline = Deadline()
        self.at_once = False
        _handle(self._set, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)

    def _set(self, number: int, _frame: object) -> None:
        self.reason = signal.Signals(number).name
        if self.at_once:
            self.at_once = False  # a second signal must not break off the save
            raise Stopped(f"stopped by {self.reason}")

    def __bool__(self) -> bool:
        if not self.may_save:
            self.reason = "another copy of this job that took over"
        elif self.reason is None and self.deadline:
            self.reason = f"the time limit of Slurm job {os.environ['SLURM_JOB_ID']}"
        return self.reason is not None

    @property
    def may_save(self) -> bool:
        """False if another copy of the job has taken over the work in progress."""
        return self.lease is None or not self.lease.lost()


def versions() -> dict[str, str]:
    """Return the versions of pollination, Python and the libraries in this process."""
    own = {"pollination": __version__, "python": sys.version.split()[0]}
    return own | {name: version(name) for name in PACKAGES}


def hardware() -> dict[str, str]:
    """Return what the job computed on: the GPU and its CUDA, or the CPU and COMPUTED_WITH.

    Torch is not imported here: a job that used the GPU has it loaded already.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"device": "cpu"} | COMPUTED_WITH
    return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def _called(hardware: dict) -> str:
    """Return hardware as text: the device, then its libraries."""
    others = (f", {name} {value}" for name, value in sorted(hardware.items()) if name != "device")
    return hardware["device"] + "".join(others)


def _leave() -> None:
    """End this process after flushing all output.

    A normal exit would spend another second on unloading torch and transformers.
    """
    logging.shutdown()
    atexit._run_exitfuncs()  # removes temporary folders of libraries
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Plain(logging.Formatter):
    """A formatter that keeps each message on one line; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        lines = text.split("\n") if record.exc_info else [text]
        return "\n".join(map(sanitize.line, lines))


class Params(dict):
    """A rule's params by name: `params.seed` is `params["seed"]`."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Job:
    """One Snakemake job. `input`, `output`, `wildcards` are Snakemake's; `log` is a logger.

    `params` have every key of their section. `recorded` are the rule's lean params, which enter the
    job's key and its record (core/settings.py). `device` is the config's. It enters neither; the
    record names the hardware. Inputs are compared with their records before the job reads them and
    again afterwards. `check_last` leaves out the first comparison, for a job that reads little of a
    large file and needs no key.
    """

    def __init__(self, snakemake, online: bool = False, check_last: bool = False) -> None:
        self.input, self.output = snakemake.input, snakemake.output
        self.recorded, self.wildcards = dict(snakemake.params.items()), snakemake.wildcards
        self.params = Params(whole_params(self.recorded))
        self.rule, self.threads = snakemake.rule, snakemake.threads
        self.device = snakemake.config.get("device", "auto")
        self.local_disk = snakemake.config.get("local_disk")
        self.run = Path("results", snakemake.config.get("run", ""))
        self.reused_runs: list[str] = snakemake.config.get("reuse", [])
        self.copies: dict[str, BufferedRandom] = {}
        self.gpus = getattr(snakemake, "resources", {}).get("gpu", 0)
        self.log_path = Path(snakemake.log[0]) if snakemake.log else None
        self.online, self.check_last = online, check_last
        self.digests: dict[str, str] = {}
        self.code = ""  # digest
        self.lease: Lease | None = None
        self.work: Path | None = None
        self.elsewhere: list[dict] = []
        # What the hardware made of the settings, for the record.
        self.used: dict[str, int | str] = {}
        self.source: dict[str, str] = {}  # of a download: its revision, for the record
        self.done = False
        self.stays, self.stays_with_gpu = False, False

    def __enter__(self) -> "Job":
        # Scripts start with SIGINT ignored (core/interrupts.py).
        if getattr(sys.modules["__main__"], "snakemake", None) is not None:
            _handle(_stop_at_once, signal.SIGINT, signal.SIGHUP)
        gc.set_threshold(COLLECT_AFTER, 10, 10)
        before, threads = dict(os.environ), str(self.params.get("cpu_threads", 1))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = threads
        os.environ |= {
            "TOKENIZERS_PARALLELISM": str(self.threads > 1).lower(),
            "RAYON_NUM_THREADS": str(self.threads),
        }
        if not self.online:
            caches.offline()
        self.log = logging.getLogger("pollination")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.log.handlers = [logging.StreamHandler(sys.stderr)]
        self.log.handlers[0].setLevel(logging.ERROR)
        self.log.handlers[0].setFormatter(Plain())
        # If the log cannot be written, neither can the outputs, and that ends in one line.
        logging.raiseExceptions = False
        try:
            if self.log_path:
                self.log_path.parent.mkdir(parents=True, exist_ok=True)
                file = logging.FileHandler(self.log_path, mode="a", encoding="utf-8")
                file.setFormatter(Plain("%(asctime)s %(levelname)s %(message)s"))
                self.log.handlers.append(file)
            self.code = code.of_job()
            caches.prepare(self.log)
            warm.restart_if_other(before)
            if self.reused_runs or not self.check_last:
                self.digests = self._check_inputs()
                if self.reused_runs and (found := reuse.take(self, self.reused_runs, self.run)):
                    self.log.info("the files of this job are those of %s", found)
                    raise SystemExit(0)
            if self.gpus and self.device != "cpu":  # before a library starts CUDA
                gpus.take(self.gpus, self.log)
        except (ValueError, OSError, Stopped) as error:
            self._fail(error)
        return self

    @cached_property
    def stop(self) -> StopRequest:
        """The stop request of jobs that save and resume."""
        return StopRequest()

    def stay(self, with_gpu: bool = False) -> None:
        """Let this process run the next job of its script after this one, if it is a fork.

        What it has loaded then serves that job too (warm.py). A process that holds a GPU stays only
        `with_gpu`.
        """
        self.stays, self.stays_with_gpu = warm.imported_with is not None, with_gpu

    def files(self, name: str) -> list[Path]:
        """Return the input files of one name; Snakemake gives a single file as a string."""
        value = self.input.get(name, [])
        return [Path(value)] if isinstance(value, str) else [Path(path) for path in value]

    def file(self, name: str) -> Path:
        """Return the first input file of one name; IndexError if there is none."""
        return self.files(name)[0]

    def optional_file(self, name: str) -> Path | None:
        """Return the first input file of one name, or None."""
        return next(iter(self.files(name)), None)

    def copy_of(self, path: Path) -> BufferedRandom | None:
        """Return a copy of an input on the node's own disk (local_disk.py); None without one."""
        copy = local_disk.copy(path, self.digests[str(path)], self.local_disk, self.log)
        if copy:
            self.copies[str(path)] = copy
        return copy

    def key(self, seed: int) -> str:
        """Return the digest of all that determines the result: rule, params, seed, input bytes."""
        parts = [self.rule, self.recorded, seed, sorted(self.digests.items())]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def claim(self, name: str, key: str, at_once: bool = False) -> Path | None:
        """Wait for the lease (lease.py) and return the work folder; None if the job is done.

        The folder lies beside the outputs and is undeclared, so Snakemake does not delete it.
        Raises Stopped if the job must stop while it waits; with `at_once` (for jobs that save no
        progress) a signal raises it at any time.
        """
        outputs = self._outputs()
        work = outputs[0].parent / f".{name}.work"
        self.lease, self.stop.at_once = Lease(work, self.log), at_once
        if not self.lease.wait(self.stop):
            raise Stopped(
                f"stopped by {self.stop.reason} while waiting for another copy of this job"
            )
        self.stop.lease, self.work = self.lease, work / key[:16]
        for path in outputs:  # left by copies that were killed while writing
            for partial in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                partial.unlink(missing_ok=True)
        if restore(self.work, outputs):
            self.log.info(
                "a job with the same settings and inputs has already finished; its files were "
                "restored"
            )
            self.done = True
            return None
        self.work.mkdir(exist_ok=True)
        return self.work

    def note_hardware(self, resumes: bool) -> None:
        """Note in the work folder what this job computes on, for a start that resumes it.

        If saved work was computed on other hardware, the log and the record name that too.
        """
        if self.work is None:
            return
        file, now = self.work / "hardware.json", hardware() | self.used
        with suppress(OSError, ValueError):
            noted = artifacts.read_json(file) if resumes else []
            self.elsewhere = [one for one in noted if one != now]
        for one in self.elsewhere:
            self.log.warning(
                "this job resumes on %s, but its saved work was computed on %s; the result may "
                "differ from that of one device",
                _called(now),
                _called(one),
            )
        artifacts.write_json(file, [*self.elsewhere, now])

    def _outputs(self) -> list[Path]:
        """Return the output files, the record last."""
        record = self.output.get("run")
        return [Path(path) for path in sorted(self.output, key=lambda path: path == record)]

    def _folders(self) -> list[str]:
        """Return the folders that the job writes."""
        paths = [*map(str, self.output), *([str(self.log_path)] if self.log_path else [])]
        return list(dict.fromkeys(os.path.dirname(path) or "." for path in paths))

    def _fail(self, error: BaseException) -> None:
        text = causes.explain(error, self._folders()) or sanitize.reason(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            text = f"{error.filename}: {text}"
        self.log.error("error: %s: %s", self.rule, " ".join(text.split()))
        ours = self.lease is None or (self.work is not None and not self.lease.lost())
        for path in map(Path, self.output) if ours else []:
            if path.is_file():
                path.unlink()
        raise SystemExit(1)

    def __exit__(self, kind, error, _traceback) -> None:
        try:
            self._finish(kind, error)
        finally:
            if self.lease:
                self.lease.release()
        if error is None and getattr(sys.modules["__main__"], "snakemake", None) is not None:
            if not self.stays or (not self.stays_with_gpu and gpus.held()):
                _leave()
            for handler in self.log.handlers:
                handler.close()
            warm.stays = True

    def _finish(self, kind, error) -> None:
        if isinstance(error, (ValueError, OSError, Stopped)) or causes.explain(error):
            self._fail(error)
        if error is not None:
            self.log.error("%s: %s", kind.__name__, error, exc_info=error)
            return
        record = self.output.get("run")
        if record and not self.done:
            try:
                if self.check_last:
                    self.digests = self._check_inputs()
                else:
                    self._check_inputs_again()
                self.write_record(record)
                if self.work:
                    keep(self.work, self._outputs())
            except (ValueError, OSError, Stopped) as failure:
                self._fail(failure)

    def _check_inputs(self) -> dict[str, str]:
        """Return the digest of each input. Raises as `artifacts.check`."""
        order = self.input.get("staged")  # an empty file that only sets the order of jobs
        return {
            str(path): artifacts.check(path)
            for path in self.input
            if path != order and not Path(path).is_dir()
        }

    def _check_inputs_again(self) -> None:
        """Raise DamagedArtifact if an input changed while the job read it."""
        for path, digest in self.digests.items():
            if copy := self.copies.get(path):
                copy.seek(0)
                same = hashlib.file_digest(copy, "sha256").hexdigest() == digest
            else:
                same = Path(path).is_file() and artifacts.digest(path) == digest
            if not same:
                raise artifacts.DamagedArtifact(
                    f"{path}: changed or deleted while this job read it; run snakemake again"
                )

    def write_record(self, path: str) -> None:
        """Write the record: rule, params, versions, hardware, digests of inputs, outputs and code.

        It contains no times, so equal work gives equal records.
        """
        outputs = [Path(name) for name in self.output if name != path]
        outputs = [
            file
            for name in outputs
            for file in (sorted(name.rglob("*")) if name.is_dir() else [name])
            if file.is_file()
        ]
        record = {
            "rule": self.rule,
            "wildcards": dict(self.wildcards.items()),
            "params": json.loads(json.dumps(self.recorded, default=str)),
            "inputs": self.digests,
            "outputs": {
                os.path.relpath(file, Path(path).parent): artifacts.digest(file) for file in outputs
            },
            "versions": versions(),
            "hardware": hardware()
            | self.used
            | ({"began_on": "; ".join(map(_called, self.elsewhere))} if self.elsewhere else {}),
            "code": self.code,
            "commit": git_commit(Path(__file__).parent),
        }
        if self.source:
            record["source"] = self.source
        artifacts.write_json(path, artifacts.seal(record))
