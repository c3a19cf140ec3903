"""Replace torch's kernels for `mm` and `addmm` by oneDNN's on AMD CPUs of family 26 (Zen 5) and up.

Torch uses MKL for float32. MKL leaves half the width of these CPUs' AVX-512 units idle. Torch also
ships oneDNN, which uses the full width. `make bench` measured the gain in tokens per second (rows
`training` and `sampling`):

- 1.38 and 1.54 on an AMD EPYC where oneDNN reaches 225 GFLOP/s per core and MKL 84;
- 0.95 and 1.03 on an AMD EPYC of family 25, model 17 (Zen 4). Its units are 256 bits wide, so both
  libraries reach about 95. A training step of a tiny model took 8.0 ms instead of 6.7.

The environment variable `POLLINATION_ONEDNN` turns this off (0) or on for any CPU (1). It changes
results in their last digits. It is not part of a job's key, so no finished job reruns. If a job
used oneDNN, its record says so under `hardware`. torch._C and `mkldnn._linear_pointwise` are
private to torch.
"""

import functools
import os
import re
import warnings
from pathlib import Path

import torch

from pollination.core.job import COMPUTED_WITH

SWITCH = "POLLINATION_ONEDNN"
ZEN_5 = 26  # AMD's number of the family
MIN_MULTIPLICATIONS = 2**20  # smaller products do not gain: the detour through Python costs 10 µs


def wanted(about: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether products use oneDNN: the environment says so, or nothing and the CPU gains.

    ValueError: the environment's value is neither 0 nor 1.
    """
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise ValueError(
            f"{SWITCH}: {value!r} is not allowed; allowed: 0 (off), 1 (on), or unset it "
            "(on if the CPU gains)"
        )
    return torch.backends.mkldnn.is_available() and (value == "1" or (not value and gains(about)))


def gains(about: Path) -> bool:
    """Return whether a processor gains, from Linux's description of it."""
    try:
        text = about.read_text()
    except OSError:
        return False
    family = re.search(r"^cpu family\s*:\s*(\d+)", text, re.M)
    return "AuthenticAMD" in text and "avx512f" in text and int(family[1] if family else 0) >= ZEN_5


@functools.cache  # once per process: torch drops the kernels with the library object
def by_onednn() -> torch.library.Library | None:
    """Compute this process's large float32 products on a CPU with oneDNN, forwards and backwards.

    The products equal torch's up to rounding. Return None if they are not `wanted`.
    """
    if not wanted():
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
