"""The process that warm.py starts: it imports what the jobs of a run import, and forks for each.

It has one thread, and nothing has used a GPU in it. If an import changes that, it serves no more.

A fork whose job allows it stays and runs the next job of the same script, with what it has loaded:
CUDA, a model, benchmark requests. A fork that waits ends after `stay_s`. If it holds a GPU, it ends
before any other job starts.
"""

import ast
import atexit
import ctypes
import gc
import importlib
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress

from pollination.core import caches, code, fork, gpus, warm

# What jobs import beyond their first lines is imported for later jobs, but not torch's compiler:
# it starts processes.
LEARNED = {
    "datasets",
    "lm_eval",
    "matplotlib",
    "numpy",
    "pandas",
    "pollination",
    "pyarrow",
    "safetensors",
    "scipy",
    "snakemake",
    "tokenizers",
    "torch",
    "transformers",
}
NOT_LEARNED = ("torch._inductor", "torch.utils.tensorboard")
TITLE = "pollination worker"  # in the output of ps
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
END_S = 10.0  # for the end of a fork that has waited
READY, HOLDS_GPU = b"0", b"1"  # what a fork says when it waits


class Worker:
    """Serves the requests of a driver until both the driver and all jobs have ended."""

    def __init__(self, driver: socket.socket) -> None:
        self.driver: socket.socket | None = driver
        self.jobs: dict[int, int] = {}  # process -> pipe for its exit status
        self.lines: dict[int, socket.socket] = {}  # process -> socket for its next job
        self.kinds: dict[int, str] = {}  # process -> its script
        self.idle: dict[int, float] = {}  # process that has no job -> when it must end
        self.hold_gpus: set[int] = set()  # processes
        self.wake, self.waker = os.pipe()
        os.set_blocking(self.waker, False)
        # A job sends the names of the modules that it imported.
        self.names, self.names_of_job = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.names_of_job.setblocking(False)
        self.env: dict[str, str] = {}
        self.path = list(sys.path)  # that of a new job
        self.serves = True

    def run(self) -> None:
        for number in warm.FATES:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        while self.driver or self.jobs or self.idle:
            sources: list = [self.wake, self.names, *([self.driver] if self.driver else [])]
            now_s, until_s = time.monotonic(), min(self.idle.values(), default=None)
            patience_s = None if until_s is None else max(0.0, until_s - now_s)
            ready, _, _ = select.select([*sources, *self.lines.values()], [], [], patience_s)
            for process, line in list(self.lines.items()):
                if line in ready:
                    self.hear(process)
            if self.wake in ready:
                os.read(self.wake, 4096)
                self.reap()
            if self.driver in ready:
                self.serve()
            elif self.names in ready:  # while no job waits
                self.learn(json.loads(self.names.recv(1 << 20)))
            now_s = time.monotonic()
            self.dismiss(
                [one for one, end_s in self.idle.items() if end_s <= now_s or not self.driver]
            )

    def hear(self, process: int) -> None:
        """Note that a fork has finished a job and stays, or that it can run no further one."""
        said = b""
        with suppress(OSError):
            said = self.lines[process].recv(1)
        if not said:
            self.lines.pop(process).close()
        elif process in self.jobs:
            self.tell_driver(process, 0)
            if said == HOLDS_GPU:
                self.hold_gpus.add(process)
            self.idle[process] = time.monotonic() + warm.stay_s()

    def tell_driver(self, process: int, status: int) -> None:
        pipe = self.jobs.pop(process)
        with suppress(BrokenPipeError):  # the driver has ended
            os.write(pipe, b"%d" % status)
        os.close(pipe)

    def reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self.forget(*ended)

    def forget(self, process: int, status: int) -> None:
        """Forget a fork that has ended, and tell the driver if it had a job."""
        if process in self.jobs:
            self.tell_driver(process, os.waitstatus_to_exitcode(status))
        if line := self.lines.pop(process, None):
            line.close()
        self.idle.pop(process, None)
        self.hold_gpus.discard(process)
        self.kinds.pop(process, None)

    def dismiss(self, waiting: list[int]) -> None:
        """End forks that wait, and return once they have freed their GPUs."""
        for process in waiting:
            if line := self.lines.pop(process, None):
                line.close()
        for process in waiting:
            end_s, ended = time.monotonic() + END_S, (0, 0)
            with suppress(ChildProcessError):
                while not ended[0] and time.monotonic() < end_s:
                    ended = os.waitpid(process, os.WNOHANG)
                    time.sleep(0 if ended[0] else 0.01)
                if not ended[0]:
                    os.kill(process, signal.SIGKILL)
                    ended = os.waitpid(process, 0)
            self.forget(process, ended[1])

    def hand_over(self, text: bytes, kind: str, streams: list[int]) -> int | None:
        """Give a job to a fork that waits for one of its kind. Return the process, or None."""
        for process in [one for one in self.idle if self.kinds[one] == kind]:
            line = self.lines.get(process)
            try:
                if line is not None:
                    socket.send_fds(line, [len(text).to_bytes(8)], streams)
                    line.sendall(text)
                    del self.idle[process]
                    return process
            except OSError:
                os.kill(process, signal.SIGKILL)  # it might start the job later
            self.dismiss([process])
        return None

    def serve(self) -> None:
        assert self.driver is not None
        text, streams = fork.received(self.driver)
        if not text:
            self.driver.close()
            self.driver = None
            self.dismiss(list(self.idle))
            return
        request = json.loads(text)
        kind = os.path.basename(request["script"]).partition(".")[2]  # Snakemake's is tmp*.NAME.py
        self.dismiss([one for one in self.idle.keys() & self.hold_gpus if self.kinds[one] != kind])
        if self.serves:
            self.prepare(request["script"])
        if not self.serves:
            self.dismiss(list(self.idle))
            for stream in streams:
                os.close(stream)
            return
        *streams, pipe = streams
        child = self.hand_over(text, kind, streams) or self.fork(request, streams, pipe)
        with suppress(BrokenPipeError):
            os.write(pipe, b"%*d" % (warm.PID_BYTES, child))
        self.jobs[child], self.kinds[child] = pipe, kind
        for stream in streams:
            os.close(stream)

    def fork(self, request: dict, streams: list[int], pipe: int) -> int:
        """Return the process of a new fork, which runs the job."""
        gc.collect()
        gc.freeze()
        parent = os.getpid()
        line, far = socket.socketpair()
        if child := os.fork():
            far.close()
            line.settimeout(END_S)
            self.lines[child] = line
            return child
        line.close()
        os.close(pipe)
        os._exit(self.jobs_of(request, streams, parent, far))

    def prepare(self, script: str) -> None:
        """Import the modules that a script names, as the script would."""
        try:
            with open(script, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, ValueError, SyntaxError):
            return  # the job reports it
        names: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.append(node.module)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.path.extend":
                sys.path += [one for one in ast.literal_eval(node.args[0]) if one not in sys.path]
        self.learn(names)

    def learn(self, names: list[str]) -> None:
        for name in names:
            if self.serves and name not in sys.modules:
                with suppress(Exception):  # the job meets the same mistake, and reports it
                    importlib.import_module(name)
                self.serves = is_sound()

    def jobs_of(self, request: dict, streams: list[int], parent: int, line: socket.socket) -> int:
        """Become the job, and each further one that comes. Return the last exit status."""
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            return 1
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pipe in (*self.jobs.values(), self.wake, self.waker):
            os.close(pipe)
        for other in (*self.lines.values(), self.names, *([self.driver] if self.driver else [])):
            other.close()
        fork.forget_ends()
        known = set(sys.modules)
        atexit.register(self.tell, known)
        while True:
            status = self.job(request, streams)
            text = b""
            if warm.stays and not status and warm.stay_s() > 0:
                fork.flush()
                fork.reset_signals()
                fork.rename([TITLE])
                self.tell(known)
                known.update(sys.modules)
                with suppress(OSError):
                    line.sendall(HOLDS_GPU if gpus.held() else READY)
                    fork.free_memory()
                    text, streams = fork.received(line)
            if not text:
                fork.end()
                return status
            request = json.loads(text)

    def job(self, request: dict, streams: list[int]) -> int:
        """Run a job as a new process would, and return its exit status."""
        fork.reset_signals()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for ignored in request["ignored"]:
            signal.signal(ignored, signal.SIG_IGN)
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        for kind, values in request["limits"].items():
            with suppress(OSError, ValueError):
                resource.setrlimit(int(kind), values)
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["env"], PWD=request["folder"])  # as the shell sets it
        warm.imported_with, warm.stays = self.env, False
        script = request["script"]
        fork.rename([sys.executable, script])
        tempfile.tempdir = None
        warm.use_threads(request["env"])
        sys.argv, sys.path[:] = [script], self.path
        return fork.execute(script)

    def tell(self, known: set[str]) -> None:
        """Send the modules that this job imported; a worker that is busy may miss them."""
        names = [
            name
            for name in list(sys.modules)
            if name not in known
            and name.split(".")[0] in LEARNED
            and not name.startswith(NOT_LEARNED)
        ]
        with suppress(OSError):
            self.names_of_job.send(json.dumps(names).encode())


def is_sound() -> bool:
    """Return whether a fork of this process is a whole process: one thread, and no use of a GPU."""
    return len(os.listdir("/proc/self/task")) == 1 and not gpus.held()


def main() -> None:
    """Serve the driver at the other end of the socket whose descriptor is the second argument."""
    worker = Worker(socket.socket(fileno=int(sys.argv[2])))
    fork.rename([TITLE])
    said = logging.getLogger("pollination.worker")
    said.addHandler(logging.NullHandler())
    said.propagate = False
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        code.of_job()  # compares each module with the pinned code when it is imported
        caches.offline()
        caches.prepare(said)
        worker.serves = os.environ.get("XDG_CACHE_HOME") == cache  # else each job has its own
    except (ValueError, OSError):
        worker.serves = False  # a job says why
    worker.env = dict(os.environ)
    os.environ |= dict.fromkeys(warm.THREADS, "1") | {
        # These libraries must start no thread, and torch must not start CUDA to count devices.
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    worker.run()
