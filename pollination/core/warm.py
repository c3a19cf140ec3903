"""Start jobs as forks of one process that has their libraries imported.

To import torch and transformers takes seconds, more than many jobs of a small model compute. The
first job starts the process `worker.py`, which imports what the script of each job imports and
forks. A fork has a process id, environment, working folder, output, signals and limits of its own,
as a new interpreter would. A fork may stay for the next job of the same script. If the worker
cannot serve a job, a new interpreter runs it.

Linux only: other systems' libraries do not survive a fork.
"""

import json
import os
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pollination.core.environment import number

SWITCH = "POLLINATION_WARM"  # 0: every job has a new interpreter
# Its path is that of a job.
WORKER = "import sys; sys.path[0] = sys.argv[1]; from pollination.core.worker import main; main()"
STAY = "POLLINATION_STAY_S"  # seconds for which a fork waits; 0: it ends
STAY_S = 10.0  # Snakemake starts the next job within a second, if one is ready
MOST_STAY_S = 86_400.0
SCRIPTS = ".snakemake/scripts/"  # in the command line of each job
# Variables that no library reads at its import: Snakemake sets the first for each job. A job sets
# the second, and threadpoolctl the last of them. The third are read at an import, but libraries
# take other numbers later.
PER_JOB = {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}
LATER = {"PWD", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS", "KMP_DUPLICATE_LIB_OK"}
THREADS = {
    f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "GOTO", "NUMEXPR")
} | {"VECLIB_MAXIMUM_THREADS"}
# What Snakemake gives to the shell, with the prefixes of interrupts.py and of workflow/logger
COMMAND = re.compile(
    r"(?P<deaf>trap '' INT;\s*)?"
    r'(\{ : 2>>"(?P<errors>[^"$`]+)/NAME"; \} 2>/dev/null && exec 2>>"(?P=errors)/NAME";\s*)?'
    r"set -euo pipefail;\s*(?P<words>[^;&|<>$`\n]+)".replace(
        "NAME", r"\$\{BASH_EXECUTION_STRING##\*/\}"
    )
)
TITLE_BYTES = 4096  # room for the command line of a job
PID_BYTES = 11
START_S = 300.0  # for the worker's imports; a new interpreter needs as long
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
FATES = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
imported_with: dict[str, str] | None = None
"""In a fork, the environment in which its libraries were imported."""
threads = {"openmp": 1, "blas": 1}
"""In a fork, the numbers of threads that its libraries use."""
stays = False
"""In a fork, whether its job lets the process run the next job of its script (core/job.py)."""


def install(shell: Any) -> None:
    """Let the jobs that Snakemake's `shell` starts in this process be forks of a worker.

    The process ends with one line if POLLINATION_STAY_S is wrong.
    """
    try:
        stay_s()
    except ValueError as error:
        sys.exit(f"error: {error}")
    module: Any = sys.modules[shell.__module__]
    if sys.platform == "linux" and os.environ.get(SWITCH, "1") != "0":
        with suppress(OSError):  # Linux before 5.3 has no descriptors of processes
            os.close(os.pidfd_open(os.getpid()))
            module.sp = Subprocess(module.STDOUT)
            from snakemake import benchmark

            benchmark.benchmarked = _of_one_job(benchmark.benchmarked)


def stay_s() -> float:
    """Return the seconds for which a fork waits for its next job. ValueError: STAY is wrong."""
    return number(STAY, STAY_S, 0, MOST_STAY_S)


def _of_one_job(benchmarked: Any) -> Any:
    """Let Snakemake's `benchmarked` measure a job alone, and cheaply.

    It leaves out the CPU time of a process before its current job. It reads no `max_uss` and
    `max_pss`: for these, Linux walks the pages of a process, 40 ms for one with torch, twice a
    second. A fork may end before Snakemake looks at it, and then only its time is known.
    """
    import psutil  # takes 0.1 s

    def memory(process: psutil.Process) -> SimpleNamespace:
        found = process.memory_info()
        return SimpleNamespace(rss=found.rss, vms=found.vms, uss=0, pss=0)

    psutil.Process.memory_full_info = memory

    @contextmanager
    def measured(pid: int, record: Any) -> Iterator[Any]:
        begun_s = time.time()
        try:
            with ExitStack() as measuring:
                try:
                    times = psutil.Process(pid).cpu_times()
                    record.processed_procs[pid, "before"] = -(times.user + times.system)
                    measuring.enter_context(benchmarked(pid, record))
                except psutil.Error:
                    record.process_gone = True
                yield record
        finally:
            record.running_time = time.time() - begun_s
            record.max_uss = record.max_pss = None  # "-" in the table

    return measured


def restart_if_other(before: dict[str, str]) -> None:
    """Become a new interpreter if libraries would have found another environment than now.

    `before` is the environment that Snakemake gave to the job. A job that is no fork goes on.
    """
    if imported_with is None:
        return
    now = dict(os.environ)
    differ = {
        name for name in now.keys() | imported_with if now.get(name) != imported_with.get(name)
    }
    if differ - PER_JOB - LATER - THREADS:
        os.execve(sys.executable, [sys.executable, *sys.argv], before)
    use_threads(now)


def use_threads(env: dict[str, str]) -> None:
    """Let this fork's libraries use the numbers of threads that they would have read in `env`."""
    wanted = {
        "openmp": int(env.get("OMP_NUM_THREADS", 1)),
        "blas": int(env.get("OPENBLAS_NUM_THREADS", 1)),
    }
    if wanted == threads:
        return
    from threadpoolctl import threadpool_limits

    threadpool_limits(wanted)
    threads.update(wanted)
    if torch := sys.modules.get("torch"):  # MKL's too
        torch.set_num_threads(wanted["openmp"])
    if arrow := sys.modules.get("pyarrow"):
        arrow.set_cpu_count(wanted["openmp"])


class Subprocess:
    """The module subprocess, but for the start of jobs."""

    def __init__(self, stdout: Any) -> None:
        self.stdout = stdout
        self.worker = Worker()

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Any, **options: Any) -> Any:
        """Return the job's process, a fork if `command` runs a script of Snakemake and no more."""

        def fresh() -> subprocess.Popen:
            return subprocess.Popen(command, **options)

        found = COMMAND.fullmatch(command) if isinstance(command, str) else None
        if not found or options.get("stdout") is not self.stdout:
            return fresh()
        words, env = shlex.split(found["words"]), options["env"]
        if len(words) != 2 or words[0] != sys.executable or SCRIPTS not in words[1]:
            return fresh()
        with errors_of(found["errors"], words[1]) as errors:
            forked = self.worker.fork(words[1], env, bool(found["deaf"]), errors)
        return Fork(*forked, fresh) if forked else fresh()


@contextmanager
def errors_of(folder: str | None, script: str) -> Iterator[int]:
    """Yield the descriptor for a job's stderr: a file in `folder`, else that of this process."""
    try:
        file = open(Path(folder, Path(script).name), "ab") if folder else None  # noqa: SIM115
    except OSError:
        file = None
    with file or nullcontext():
        yield file.fileno() if file else 2


class Fork:
    """A job's process, with the part of Popen that Snakemake uses."""

    stdout = None

    def __init__(self, pid: int, status: int, fresh: Any) -> None:
        self.pid, self.status, self.fresh = pid, status, fresh
        self.returncode: int | None = None
        self.again: subprocess.Popen | None = None
        self.handle: int | None = None
        with suppress(OSError):  # it has ended already
            self.handle = os.pidfd_open(pid)

    def wait(self) -> int:
        """Return the exit status as Popen does.

        If the worker died, its forks died with it. Then a new interpreter runs the job.
        """
        if self.returncode is None:
            said = os.read(self.status, 16)
            os.close(self.status)
            if not said:
                if self.handle is not None:
                    select.select([self.handle], [], [], 10)
                self.again = self.fresh()
            self.returncode = self.again.wait() if self.again else int(said)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.again:
            self.again.send_signal(number)
        elif self.handle is not None and self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self.handle is not None:
            os.close(self.handle)


class Worker:
    """The process that forks. It starts with the first job and ends after its driver."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.socket: socket.socket | None = None
        self.env: dict[str, str] = {}
        self.serves = True

    def fork(
        self, script: str, env: dict[str, str], deaf: bool, errors: int
    ) -> tuple[int, int] | None:
        """Return the process of a script and the pipe that will hold its exit status.

        `deaf`: it ignores SIGINT at first. `errors`: the descriptor of its stderr. None: a new
        interpreter must run the script.
        """
        shared = {name: value for name, value in env.items() if name not in PER_JOB | THREADS}
        status, far = os.pipe()
        try:
            with self.lock:
                if self.process is None:
                    self._start(script, env, shared)
                if not self.serves or shared != self.env:
                    os.close(status)
                    return None
                self._ask(script, env, deaf, [errors, far])
        except OSError:
            self._end(status)
            return None
        finally:
            os.close(far)
        ready, _, _ = select.select([status], [], [], START_S)
        if not ready and self.process:
            self.process.kill()  # it might start the job later
        if said := os.read(status, PID_BYTES) if ready else b"":
            return int(said), status
        self._end(status)  # it died, or serves no more
        return None

    def _end(self, status: int) -> None:
        """Let the worker serve no further job. Its jobs go on, and it ends after them."""
        os.close(status)
        self.serves = False
        if self.socket:
            self.socket.close()

    def _start(self, script: str, env: dict[str, str], shared: dict[str, str]) -> None:
        self.env = shared
        self.socket, far = socket.socketpair()
        self.socket.settimeout(START_S)
        words = [sys.executable, "-c", WORKER, os.path.dirname(script), str(far.fileno())]
        with far:
            self.process = subprocess.Popen(
                [*words, "-" * TITLE_BYTES],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
            )

    def _ask(self, script: str, env: dict[str, str], deaf: bool, ends: list[int]) -> None:
        umask = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.M)
        request = {
            "script": script,
            "env": env,
            "folder": os.getcwd(),
            "umask": int(umask[1], 8) if umask else 0o022,
            "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
            "ignored": [
                number
                for number in FATES
                if signal.getsignal(number) == signal.SIG_IGN or (deaf and number == signal.SIGINT)
            ],
        }
        assert self.socket is not None
        text = json.dumps(request).encode()
        socket.send_fds(self.socket, [len(text).to_bytes(8)], [0, 1, *ends])
        self.socket.sendall(text)
