"""Let a fork of a worker be what a new interpreter would be, from its start to its end."""

import atexit
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
import types
import weakref
from contextlib import suppress

from pollination.core import warm


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
    return status & 0xFF


def reset_signals() -> None:
    for number in warm.FATES:
        signal.signal(number, signal.SIG_DFL)


def free_memory() -> None:
    """Free what the last job no longer needs, also on a GPU: some jobs measure its free memory."""
    gc.collect()
    if (cuda := sys.modules.get("torch.cuda")) and cuda.is_initialized():
        cuda.empty_cache()


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def end() -> None:
    """Do what an interpreter does at its end."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    flush()


def received(far: socket.socket) -> tuple[bytes, list[int]]:
    """Return the text of a request and its descriptors; no text if the other end has closed."""
    try:
        head, streams, _, _ = socket.recv_fds(far, 8, 4)
        size = int.from_bytes(head) if len(head) == 8 else 0
        parts = []
        while size and (part := far.recv(size)):
            parts.append(part)
            size -= len(part)
    except OSError:
        return b"", []
    return b"" if size else b"".join(parts), list(streams)
