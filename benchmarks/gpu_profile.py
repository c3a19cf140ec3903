"""Count the kernels of a piece of work, name the kernels of attention, and time a busy GPU."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode

COPIES = ("Memcpy", "Memset", "Activity Buffer")  # rows of the profiler that are no kernels
FREE = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten.lift_fresh", "aten.detach")
# The first that fits names a kernel. The kernels of cuDNN have "flash" in their names too.
ATTENTION = {
    "cuDNN": re.compile(r"cudnn.*(sdpa|attention)", re.IGNORECASE),
    "memory-efficient": re.compile(r"fmha_cutlass|MemEffAttention|efficient_attention"),
    "flash": re.compile(r"flash"),
    "flex": re.compile(r"flex_attention"),
    "math": re.compile(r"scaled_dot_product_attention_math"),
}


@dataclass(frozen=True)
class Profile:
    """Launches by name, and the seconds in which at least one kernel ran (a CPU has none)."""

    launches: Counter[str]
    busy_s: float = 0.0
    calls: tuple[str, ...] = ()  # operations on the host, which name attention too

    @property
    def kernels(self) -> int:
        return self.launches.total()

    @property
    def attention(self) -> list[str]:
        return attention_kernels([*self.launches, *self.calls])


def attention_kernels(names: Iterable[str]) -> list[str]:
    """Return the kinds of attention among the names of kernels and operations, sorted."""
    kinds = (
        next((kind for kind, pattern in ATTENTION.items() if pattern.search(name)), None)
        for name in names
    )
    return sorted({kind for kind in kinds if kind})


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals: kernels of several streams may overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


class Operations(TorchDispatchMode):
    """Counts the operations that compute something; an eager GPU starts a kernel or more for each.

    Views and allocations start none. A fused attention is one operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and not str(func).startswith(FREE):
            self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def profiled(work: Callable[[], object], device: torch.device) -> Profile:
    """Run `work` once under the profiler. A CPU counts operations in place of kernels.

    ValueError: the profiler sees no kernel of the GPU.
    """
    if device.type != "cuda":
        with Operations() as counted:
            work()
        return Profile(counted.names)
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    events = list(found.events())
    kernels = [
        event
        for event in events
        if event.device_type == DeviceType.CUDA
        and not event.is_user_annotation
        and not event.name.startswith(COPIES)
    ]
    if not kernels:
        raise ValueError("torch's profiler sees no kernel; check that CUPTI may count here")
    return Profile(
        Counter(event.name for event in kernels),
        covered((e.time_range.start, e.time_range.end) for e in kernels) / 1e6,
        tuple({event.name for event in events if event.device_type == DeviceType.CPU}),
    )
