"""Start jobs as forks of one process that has their libraries imported.

To import torch and transformers takes seconds, more than many jobs of a small model compute. The
first job starts the process `worker.py`, which imports what the script of each job imports and
forks. A fork has a process id, environment, working folder, output, signals and limits of its own,
as a new interpreter would. If the worker cannot serve a job, a new interpreter runs it.

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
from contextlib import suppress
from pathlib import Path
from typing import Any

SWITCH = "POLLINATION_WARM"  # 0: every job has a new interpreter
WORKER = Path(__file__).with_name("worker.py")
SCRIPTS = ".snakemake/scripts/"  # in the command line of each job
PER_JOB = {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}  # variables that no library reads at its import
PREFIXES = ("trap '' INT; set -euo pipefail; ", "set -euo pipefail; ")
TITLE_BYTES = 4096  # room for the command line of a job
START_S = 300.0  # for the worker's imports; a new interpreter needs as long
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
FATES = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def install(shell: Any) -> None:
    """Let the jobs that Snakemake's `shell` starts in this process be forks of a worker."""
    module = sys.modules[shell.__module__]
    if sys.platform == "linux" and os.environ.get(SWITCH, "1") != "0":
        module.sp = Subprocess(module.STDOUT)


class Subprocess:
    """The module subprocess, but for the start of jobs."""

    def __init__(self, stdout: Any) -> None:
        self.stdout, self.worker = stdout, Worker()

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Any, **options: Any) -> Any:  # noqa: N802
        """Return the job's process, a fork if `command` runs a script of Snakemake and no more."""

        def fresh() -> subprocess.Popen:
            return subprocess.Popen(command, **options)

        for prefix in PREFIXES if options.get("stdout") is self.stdout else ():
            start = f"{prefix.strip()} {sys.executable} "
            if isinstance(command, str) and command.startswith(start):
                words = shlex.split(command[len(start) :])
                if len(words) == 1 and SCRIPTS in words[0]:
                    deaf = prefix.startswith("trap")
                    if status := self.worker.fork(words[0], options["env"], deaf):
                        return Fork(*status, fresh)
        return fresh()


class Fork:
    """A job's process, with the part of Popen that Snakemake uses."""

    stdout = None

    def __init__(self, pid: int, status: int, fresh: Any) -> None:
        self.pid, self.status, self.fresh = pid, status, fresh
        self.returncode: int | None = None
        self.handle: int | None = None
        with suppress(OSError):  # it has ended already
            self.handle = os.pidfd_open(pid)

    def wait(self) -> int:
        """Return the exit status as Popen does.

        If the worker died, its forks died with it. Then a new interpreter runs the job.
        """
        while self.returncode is None:
            said = os.read(self.status, 16)
            if said:
                self.returncode = int(said)
            else:
                if self.handle is not None:
                    select.select([self.handle], [], [], 10)
                again, self.handle = self.fresh(), None
                self.pid, self.kill, self.terminate = again.pid, again.kill, again.terminate
                self.returncode = again.wait()
            os.close(self.status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.handle is not None:
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
        self.env: dict[str, str] = {}
        self.serves = True

    def fork(self, script: str, env: dict[str, str], deaf: bool) -> tuple[int, int] | None:
        """Return the process of a script and the pipe that will hold its exit status.

        `deaf`: it ignores SIGINT at first. None: a new interpreter must run the script.
        """
        shared = {name: value for name, value in env.items() if name not in PER_JOB}
        status, far = os.pipe()
        try:
            with self.lock:
                if self.process is None:
                    self._start(script, env, shared)
                if not self.serves or shared != self.env:
                    raise OSError
                self._ask(script, env, deaf, far)
        except OSError:
            os.close(status)
            return None
        finally:
            os.close(far)
        end_s = time.monotonic() + START_S
        while True:
            ready, _, _ = select.select([status], [], [], max(0.0, end_s - time.monotonic()))
            said = os.read(status, 11) if ready else b""
            if said.strip():
                return int(said), status
            if not said:  # it died, or it hangs
                self.serves = False
                os.close(status)
                return None

    def _start(self, script: str, env: dict[str, str], shared: dict[str, str]) -> None:
        self.env = shared
        self.socket, far = socket.socketpair()
        words = [sys.executable, str(WORKER), os.path.dirname(script), str(far.fileno())]
        with far:
            self.process = subprocess.Popen(
                [*words, "-" * TITLE_BYTES],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
            )

    def _ask(self, script: str, env: dict[str, str], deaf: bool, status: int) -> None:
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
        text = json.dumps(request).encode()
        streams = [0, sys.stdout.fileno() if self._is_file(sys.stdout) else 1, 2, status]
        socket.send_fds(self.socket, [len(text).to_bytes(8)], streams)
        self.socket.sendall(text)

    @staticmethod
    def _is_file(stream: Any) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            stream.fileno()
            return True
        return False
