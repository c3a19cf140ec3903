"""Products by oneDNN: the numbers of torch's own kernels, whatever the shapes, forwards and backwards, and only where they are large."""

import subprocess
import sys

import pytest
import torch

CHECK = """
import torch
from torch.profiler import profile
from pollination import products

def results():
    torch.manual_seed(0)
    found = []
    for m, k, n in ((1, 700, 2000), (33, 300, 400), (128, 288, 1000), (300, 1, 4000), (7, 5, 3)):
        for precision in (torch.float32, torch.float64):
            x, w, b = (torch.randn(*shape, dtype=precision, requires_grad=True) for shape in ((m, k), (n, k), (n,)))
            every = [torch.mm(x, w.t()), torch.mm(w, x.t()), torch.mm(x.t().contiguous().t(), w.t()), torch.addmm(b, x, w.t())]
            every += [torch.nn.functional.linear(x.view(1, m, k), w, b), torch.addmm(b, x, w.t(), beta=0.5, alpha=2), torch.addmm(b[:, None], w, x.t())]
            every += [torch.mm(x[:1, :1].expand(m, k), w.t()), torch.mm(x[::2, ::3], w.t()[::3]), torch.addmm(b[:1].expand(n), x, w.t())]
            sum(one.square().sum() + one.sum() for one in every).backward()
            found += [one.detach() for one in every] + [x.grad, w.grad, b.grad]
    return found

def used(size):
    with profile() as events, torch.inference_mode():
        torch.mm(torch.ones(size, size), torch.ones(size, size))
    return any("_linear_pointwise" in event.key for event in events.key_averages())

before = results()
assert not used(256)
products.gains = lambda: True
products.by_onednn()
products.by_onednn()
assert used(256) and not used(32)
for one, other in zip(before, results(), strict=True):
    torch.testing.assert_close(other, one, rtol=1e-4, atol=2e-6 * max(1.0, float(one.abs().max())) if one.numel() else 0)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
def test_products_are_the_same_numbers_whoever_computes_them():
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Overriding" not in done.stderr
