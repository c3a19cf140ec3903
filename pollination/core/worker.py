"""The process that warm.py starts: it imports what the jobs of a run import, and forks for each.

It has one thread, and nothing has used a GPU in it. If an import changes that, it serves no more.
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
import threading
import types
import weakref
from contextlib import suppress

from pollination.core import caches, code, warm

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


class Worker:
    """Serves the requests of a driver until both the driver and all jobs have ended."""

    def __init__(self, driver: socket.socket) -> None:
        self.driver: socket.socket | None = driver
        self.jobs: dict[int, int] = {}  # process -> pipe for its exit status
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
        while self.driver or self.jobs:
            sources: list = [self.wake, self.names, *([self.driver] if self.driver else [])]
            ready, _, _ = select.select(sources, [], [])
            if self.wake in ready:
                os.read(self.wake, 4096)
                self.reap()
            if self.driver in ready:
                self.serve()
            elif self.names in ready:  # while no job waits
                self.learn(json.loads(self.names.recv(1 << 20)))

    def reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with suppress(KeyError, BrokenPipeError):  # the driver has ended
                    pipe = self.jobs.pop(ended[0])
                    os.write(pipe, b"%d" % os.waitstatus_to_exitcode(ended[1]))
                    os.close(pipe)

    def serve(self) -> None:
        assert self.driver is not None
        try:
            head, streams, _, _ = socket.recv_fds(self.driver, 8, 4)
            text = self._read(int.from_bytes(head)) if len(head) == 8 else b""
        except OSError:
            head = text = b""
        if not text:
            self.driver.close()
            self.driver = None
            return
        request = json.loads(text)
        if self.serves:
            self.prepare(request["script"])
        if not self.serves:
            for stream in streams:
                os.close(stream)
            return
        gc.collect()
        gc.freeze()
        parent = os.getpid()
        if child := os.fork():
            *_, pipe = streams
            with suppress(BrokenPipeError):
                os.write(pipe, b"%*d" % (warm.PID_BYTES, child))
            self.jobs[child] = pipe
            for stream in streams[:3]:
                os.close(stream)
        else:
            os._exit(self.job(request, streams, parent))

    def _read(self, size: int) -> bytes:
        assert self.driver is not None
        parts = []
        while size and (part := self.driver.recv(size)):
            parts.append(part)
            size -= len(part)
        return b"" if size else b"".join(parts)

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

    def job(self, request: dict, streams: list[int], parent: int) -> int:
        """Become the job, and return its exit status."""
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            return 1
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in warm.FATES:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for ignored in request["ignored"]:
            signal.signal(ignored, signal.SIG_IGN)
        for place, stream in enumerate(streams[:3]):
            os.dup2(stream, place)
        for stream in (*streams, *self.jobs.values(), self.wake, self.waker):
            os.close(stream)
        self.names.close()
        if self.driver:
            self.driver.close()
        for kind, values in request["limits"].items():
            with suppress(OSError, ValueError):
                resource.setrlimit(int(kind), values)
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["env"], PWD=request["folder"])  # as the shell sets it
        warm.imported_with = self.env
        script = request["script"]
        rename([sys.executable, script])
        forget_ends()
        tempfile.tempdir = None
        if (threads := request["env"].get("OPENBLAS_NUM_THREADS", "1")) != "1":
            from threadpoolctl import threadpool_limits

            threadpool_limits(int(threads), "blas")
        sys.argv, sys.path[:] = [script], self.path
        known = set(sys.modules)
        atexit.register(self.tell, known)
        return execute(script)

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
    threads = len(os.listdir("/proc/self/task"))
    open_files = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            open_files.append(os.readlink(f"/proc/self/fd/{name}"))
    cuda = sys.modules.get("torch.cuda")
    started = cuda and (cuda.is_initialized() or cuda._is_in_bad_fork())
    return threads == 1 and not started and not any("/dev/nvidia" in one for one in open_files)


def rename(words: list[str]) -> None:
    """Let `ps` show the command of the job. Its room is that of this process's own arguments."""
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        start, end = int(fields[45]), int(fields[46])
        text = b"".join(os.fsencode(word) + b"\0" for word in words)
        if len(text) <= end - start:
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, text, len(text))


def forget_ends() -> None:
    """Forget what the worker would do at its own end, such as deleting temporary folders."""
    atexit._clear()
    atexit.register(logging.shutdown)
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def execute(script: str) -> int:
    """Run a script as `python SCRIPT` does, and return its exit status."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    status = 0
    try:
        with open(script, "rb") as file:
            source = file.read()
        exec(compile(source, script, "exec"), main.__dict__)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        trace = error.__traceback__
        sys.excepthook(type(error), error, trace and trace.tb_next)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return status & 0xFF


def main() -> None:
    """Serve the driver at the other end of the socket whose descriptor is the second argument."""
    worker = Worker(socket.socket(fileno=int(sys.argv[2])))
    rename([TITLE])
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
    os.environ |= {
        # These libraries must start no thread, and torch must not start CUDA to count devices.
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    worker.run()
