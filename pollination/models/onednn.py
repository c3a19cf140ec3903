"""Replace torch's kernels for `mm` and `addmm` by oneDNN's on AMD CPUs.

Torch uses MKL for float32. MKL leaves half the width of a newer AMD CPU's AVX-512 units idle.
Torch also ships oneDNN, which uses the full width. The environment variable `POLLINATION_ONEDNN=0`
turns this off, because torch._C and `mkldnn._linear_pointwise` are private to torch.

`make bench` measured the gain in tokens per second (rows `training` and `sampling`):

- 1.38 and 1.54 on an AMD EPYC where oneDNN reaches 225 GFLOP/s per core and MKL 84;
- 0.95 and 1.03 on an AMD EPYC of family 25, model 17 (Zen 4). Its units are 256 bits wide, so both
  libraries reach about 95.

The switch changes results in their last digits. It is not part of a job's key, so no finished job
reruns. If a job used oneDNN, its record says so under `hardware`.
"""

import functools
import os
import warnings
from pathlib import Path

import torch

from pollination.core.job import COMPUTED_WITH

SWITCH = "POLLINATION_ONEDNN"
MIN_MULTIPLICATIONS = 2**20  # smaller products do not gain: the detour through Python costs 10 µs


def wanted() -> bool:
    """Return whether the environment leaves the switch on.

    ValueError: its value is neither 0 nor 1.
    """
    value = os.environ.get(SWITCH, "1")
    if value not in ("0", "1"):
        raise ValueError(
            f"{SWITCH}: {value!r} is not allowed; allowed: 0 (off), 1 (on if the CPU gains)"
        )
    return value == "1"


def gains() -> bool:
    """Return whether products on this processor gain: it is from AMD and has AVX-512."""
    try:
        about = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in about and "avx512f" in about and torch.backends.mkldnn.is_available()


@functools.cache  # once per process: torch drops the kernels with the library object
def by_onednn() -> torch.library.Library | None:
    """Compute this process's large float32 products on a CPU with oneDNN, forwards and backwards.

    The products equal torch's up to rounding. Return None if the switch is off or there is no gain.
    """
    if not wanted() or not gains():
        return None
    product = torch.ops.mkldnn._linear_pointwise.default  # x (M, K), w (N, K): x w^T + bias
    kernels = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm")}
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)

    def large(a: torch.Tensor, b: torch.Tensor) -> bool:
        return a.dtype == b.dtype == torch.float32 and a.numel() * b.shape[1] >= MIN_MULTIPLICATIONS

    def mm(a_MK: torch.Tensor, b_KN: torch.Tensor) -> torch.Tensor:
        if large(a_MK, b_KN):
            return product(a_MK, b_KN.t(), None, "none", [], "")
        return kernels["mm"].call_boxed(keys, a_MK, b_KN)

    def addmm(
        bias: torch.Tensor, a_MK: torch.Tensor, b_KN: torch.Tensor, *, beta=1, alpha=1
    ) -> torch.Tensor:
        plain = beta == alpha == 1 and bias.dim() == 1 and len(bias) == b_KN.shape[1]
        if plain and large(a_MK, b_KN):
            # oneDNN ignores the stride of a bias
            return product(a_MK, b_KN.t(), bias.contiguous(), "none", [], "")
        return kernels["addmm"].call_boxed(keys, bias, a_MK, b_KN, beta=beta, alpha=alpha)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):  # torch warns that a kernel is replaced
        library.impl("mm", mm, "CPU")
        library.impl("addmm", addmm, "CPU")
    COMPUTED_WITH["matrix_products"] = "oneDNN"
    return library
