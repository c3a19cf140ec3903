"""Products by oneDNN equal those of torch's own kernels for all shapes, forwards and backwards.

Only large products use them, and only with the switch on.
"""

import os
import subprocess
import sys

import pytest
import torch

from pollination.models import onednn
from tests.conftest import ROOT

CHECK = """
import torch
from torch.nn.functional import linear
from torch.profiler import profile
from pollination.core.job import hardware
from pollination.models import onednn

def products(x, w, b):
    m, k = x.shape
    n = len(w)
    yield from (torch.mm(x, w.t()), torch.mm(w, x.t()), torch.mm(x.t().contiguous().t(), w.t()))
    yield from (torch.addmm(b, x, w.t()), linear(x.view(1, m, k), w, b))
    yield from (torch.addmm(b, x, w.t(), beta=0.5, alpha=2), torch.addmm(b[:, None], w, x.t()))
    yield from (torch.mm(x[:1, :1].expand(m, k), w.t()), torch.mm(x[::2, ::3], w.t()[::3]))
    yield torch.addmm(b[:1].expand(n), x, w.t())

def results():
    torch.manual_seed(0)
    found = []
    for m, k, n in ((1, 700, 2000), (33, 300, 400), (128, 288, 1000), (300, 1, 4000), (7, 5, 3)):
        for precision in (torch.float32, torch.float64):
            inputs = [
                torch.randn(*shape, dtype=precision, requires_grad=True)
                for shape in ((m, k), (n, k), (n,))
            ]
            every = list(products(*inputs))
            sum(one.square().sum() + one.sum() for one in every).backward()
            found += [one.detach() for one in every] + [one.grad for one in inputs]
    return found

def used(size):
    with profile() as events, torch.inference_mode():
        torch.mm(torch.ones(size, size), torch.ones(size, size))
    return any("_linear_pointwise" in event.key for event in events.key_averages())

before = results()
assert not used(256) and hardware() == {"device": "cpu"}
onednn.by_onednn()
onednn.by_onednn()
assert used(256) is onednn.wanted() and not used(32)
assert ("matrix_products" in hardware()) is onednn.wanted()
for one, two in zip(before, results(), strict=True):
    largest = max(1.0, float(one.abs().max())) if one.numel() else 0
    torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6 * largest)
"""


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
@pytest.mark.parametrize("switch", ["0", "1"])
def test_products_are_the_same_numbers_whoever_computes_them(switch):
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {onednn.SWITCH: switch},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Overriding" not in done.stderr


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
def test_without_the_switch_only_processors_that_gain_use_it(monkeypatch, tmp_path):
    about = tmp_path / "cpuinfo"
    text = "vendor_id : {}\ncpu family\t: {}\nflags : fpu {} sse\n"
    for vendor, family, flags, gains in (
        ("AuthenticAMD", 26, "avx512f", True),
        ("AuthenticAMD", 25, "avx512f", False),
        ("AuthenticAMD", 26, "avx2", False),
        ("GenuineIntel", 26, "avx512f", False),
    ):
        about.write_text(text.format(vendor, family, flags))
        monkeypatch.delenv(onednn.SWITCH, raising=False)
        assert onednn.wanted(about) is gains
        monkeypatch.setenv(onednn.SWITCH, "1")
        assert onednn.wanted(about)
        monkeypatch.setenv(onednn.SWITCH, "0")
        assert not onednn.wanted(about)
    monkeypatch.delenv(onednn.SWITCH)
    assert not onednn.wanted(tmp_path / "absent")


def test_the_switch_takes_0_and_1_only(monkeypatch):
    monkeypatch.setenv(onednn.SWITCH, "no")
    with pytest.raises(ValueError, match="POLLINATION_ONEDNN: 'no' is not allowed; allowed: 0"):
        onednn.wanted()
