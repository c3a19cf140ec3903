"""Run steps of fixed shapes as CUDA graphs, and refuse steps that no graph can hold.

A graph replays kernels on the same memory. So a step must not depend on a number that the host
reads from the device, such as the length of the longest text in dynamic RoPE.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READING = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"}
# the shape of their results depends on numbers
SHAPED = {"aten.nonzero", "aten.masked_select", "aten._local_scalar_dense", "aten.unique_dim"}
INDEXED = {"__getitem__", "__setitem__"}


class _Calls(TorchFunctionMode):
    """Sees calls of methods. Inference mode hides what they do from `_Operations`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        copied = name == "tensor" and bool((kwargs or {}).get("device"))
        if name in INDEXED:  # a list of numbers is copied to the device
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            copied = any(isinstance(part, list) for part in index)
        if name in READING or copied:
            raise ValueError(f"a step reads or copies numbers on the host ({name})")
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Sees operations, also those that other functions call."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        masked = name.startswith("aten.index") and any(
            isinstance(x, torch.Tensor) and x.dtype == torch.bool
            for x in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if masked or name in SHAPED:
            raise ValueError(f"a step reads numbers on the host ({name})")
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads_refused() -> Iterator[None]:
    """Refuse operations for which the host would wait for a GPU. A CPU can tell, too.

    ValueError: the host reads or copies numbers, or the shape of a result depends on numbers.
    """
    with _Calls(), _Operations():
        yield


class Graphs:
    """Steps that a GPU captures once each and then replays. A CPU runs them as they are.

    On a CPU, the first run of each is under `host_reads_refused`, because a
    capture would fail there.

    A step takes no arguments and returns nothing: it reads and writes tensors that stay where they
    are. All that its captured kernels must know from the host is in its key.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seen: set[Hashable] = set()
        self.captured: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Run a step. ValueError: it cannot be captured."""
        if key in self.captured:
            self.captured[key].replay()
        elif key not in self.seen:  # also sets up libraries, which no graph may hold
            with nullcontext() if self.on_gpu else host_reads_refused():
                step()
            self.seen.add(key)
        elif self.on_gpu:
            graph = torch.cuda.CUDAGraph()
            # nothing that one graph leaves in the memory of all is read by another
            pool = next((other.pool() for other in self.captured.values()), None)
            with torch.cuda.graph(graph, pool=pool):
                step()
            self.captured[key] = graph
            graph.replay()  # a capture computes nothing
        else:
            step()
