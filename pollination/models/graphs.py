"""Run steps of fixed shapes as CUDA graphs, and refuse steps that no graph can hold.

A graph replays kernels on the same memory. So a step must not depend on a number that the host
reads from the device, such as the length of the longest text in dynamic RoPE.
"""

from collections.abc import Callable, Hashable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten._un")


class HostReads(TorchDispatchMode):
    """Refuse operations for which the host would wait for a GPU. A CPU can tell, too.

    ValueError: the host reads a number, or the shape of a result depends on numbers.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        masked = name.startswith("aten.index") and any(
            isinstance(x, torch.Tensor) and x.dtype == torch.bool
            for x in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if masked or (name.startswith(READS) and not name.startswith("aten._unsafe")):
            raise ValueError(f"a step reads numbers on the host ({name})")
        return func(*args, **(kwargs or {}))


class Graphs:
    """Steps that a GPU captures once each and then replays. A CPU runs them as they are.

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
            with HostReads():
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
