"""Matrix products on a CPU: torch takes MKL, which leaves half the width of AMD's vector units idle; oneDNN, which comes with torch too, does not."""

import functools
import warnings
from pathlib import Path

import torch

FEWEST = 2**20  # multiplications from which on a product gains by it: the way through Python takes 10 us


def gains() -> bool:
    """Whether this processor does: one of AMD's with AVX-512 (2.0 to 2.6 x was measured, docs/performance.md)."""
    try:
        about = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in about and "avx512f" in about and torch.backends.mkldnn.is_available()


@functools.cache  # once a process; the library must stay
def by_onednn() -> torch.library.Library | None:
    """From now on, this process's large float32 products on a CPU are oneDNN's, forwards and backwards. As exact as before, to rounding."""
    if not gains():
        return None
    product = torch.ops.mkldnn._linear_pointwise.default  # x (M, K) and w (N, K) to x w^T + bias
    kernels = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm")}
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)

    def large(a: torch.Tensor, b: torch.Tensor) -> bool:
        return a.dtype == b.dtype == torch.float32 and a.numel() * b.shape[1] >= FEWEST

    def mm(a_MK: torch.Tensor, b_KN: torch.Tensor) -> torch.Tensor:
        return product(a_MK, b_KN.t(), None, "none", [], "") if large(a_MK, b_KN) else kernels["mm"].call_boxed(keys, a_MK, b_KN)

    def addmm(bias: torch.Tensor, a_MK: torch.Tensor, b_KN: torch.Tensor, *, beta=1, alpha=1) -> torch.Tensor:
        if beta == alpha == 1 and bias.dim() == 1 and len(bias) == b_KN.shape[1] and large(a_MK, b_KN):
            return product(a_MK, b_KN.t(), bias.contiguous(), "none", [], "")  # it reads a bias without its stride
        return kernels["addmm"].call_boxed(keys, bias, a_MK, b_KN, beta=beta, alpha=alpha)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):  # that a kernel is replaced is what is wanted
        library.impl("mm", mm, "CPU")
        library.impl("addmm", addmm, "CPU")
    return library
