"""The session that a GPU must pass: a dry run of all of it on the CPU, and its parts by themselves.

A dry run shows that the code works. It shows nothing about a GPU, and no page may be written of it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_checks, gpu_page
from benchmarks.__main__ import PAGE
from benchmarks.gpu_checks import CPU, Checks, Wrong
from benchmarks.gpu_profile import attention_kernels, covered, profiled
from benchmarks.harness import OURS, ROOT

SCRIPT = ROOT / "benchmarks/gpu_session.sh"


def script(*words: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run([SCRIPT, *words], env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def dry(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    done = script("--dry-run", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "gpu.dry-run.json"


@pytest.fixture
def checks(tmp_path) -> Checks:
    return Checks(gpu_checks.SIZES["tiny"], CPU, tmp_path)


@pytest.fixture
def bench(tmp_path) -> gpu.Bench:
    return gpu.Bench(gpu.SIZES["tiny"], CPU, tmp_path)


@pytest.mark.slow
def test_a_dry_run_of_the_session_passes_every_check_and_measures_every_row(dry):
    found = json.loads(dry.read_text())
    assert found["dry_run"] is True
    assert [check["passed"] for check in found["checks"]] == [True] * 8
    assert not [row for row in found["rows"] if "failed" in row]
    assert found["scores_apart_nats"] < 1e-3  # in fp32
    steps = {gpu.TRAIN_STEP, gpu.DECODE_STEP}
    paths = {gpu.TRAINING, gpu.SAMPLING, gpu.SEARCH, gpu.SCORING, gpu.WHOLE_JOB}
    assert {row["path"] for row in found["rows"]} == paths | steps
    ours = [row for row in found["rows"] if row["side"] == OURS and row["path"] in paths]
    assert len(ours) == 5 and all(row["ratio"] > 0 for row in ours)
    assert all(row["mfu"] > 0 for row in ours if row["path"] != gpu.WHOLE_JOB)
    assert {one["step"] for one in found["profiles"]} == steps
    assert all(one["count"] > 50 and one["seconds"] > 0 for one in found["profiles"])
    training = next(one for one in found["profiles"] if one["step"] == gpu.TRAIN_STEP)
    assert training["attention"] == ["flash"]
    assert [goal["met"] for goal in found["goals"]] == [None] * 3  # a CPU cannot meet them
    (vllm,) = found["left_out"]
    assert vllm["side"] == gpu.VLLM and vllm["reason"] == "it is not installed"


def test_the_page_is_never_written_from_a_dry_run(dry, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *gpu_page.SESSION, "after"]))
    before = page.read_text()
    with pytest.raises(SystemExit):
        gpu_page.main([str(dry)], page)
    assert page.read_text() == before
    assert "it is of a dry run, which measures nothing" in capsys.readouterr().err


def test_a_session_on_a_gpu_goes_into_the_page(dry, tmp_path, capsys):
    found = json.loads(dry.read_text()) | {"dry_run": False, "device": "NVIDIA H200"}
    found["checks"][1] |= {"passed": False, "said": "the losses differ by 2 nats"}
    found["rows"][0] |= {"failed": "CUDA error: " + "illegal memory access " * 10}
    found["rows"][-1] |= {"rate": 123_456.7, "peak_mib": 123_456.7, "ratio": 12.345}
    file, page = tmp_path / "gpu.json", tmp_path / "page.md"
    page.write_text("\n".join(["before", *gpu_page.SESSION, "after"]))
    file.write_text(json.dumps(found))
    assert gpu_page.main([str(file)], page) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{gpu_page.SESSION[0]}\nMeasured on NVIDIA H200 with torch")
    assert text.endswith(f"{gpu_page.SESSION[1]}\nafter")
    assert "Log-likelihoods of the two scoring jobs differ by at most" in text
    assert "- the preflight passes: **yes**: " in text
    assert "- losses equal those of the CPU: **no**: the losses differ by 2 nats" in text
    assert "- Failed: 5 beams, pollination: CUDA error" in text
    assert "- Left out: sampling, vLLM: it is not installed" in text
    assert max(map(len, text.splitlines())) <= 100
    for missing in ("checks", "rows"):
        file.write_text(json.dumps(found | {missing: []}))
        with pytest.raises(SystemExit):
            gpu_page.main([str(file)], page)
        assert f"it lacks {missing}" in capsys.readouterr().err
    assert page.read_text() == text


def test_the_page_says_what_is_known_without_a_gpu():
    """`python -m benchmarks.gpu_page --known` renews the tables after a change of the decoder."""
    text = PAGE.read_text()
    for begin, end in (gpu_page.SESSION, gpu_page.KNOWN):
        assert text.count(begin) == text.count(end) == 1
    begin, end = gpu_page.KNOWN
    written = text.split(begin)[1].split(end)[0].strip()
    assert written == gpu_page.known()
    assert "| study A's Llama | 138M | 2.1 | 0.26 | 36,864 | 9.0 |" in written


@pytest.mark.parametrize("words", [["--tiny"], ["a", "b"], ["--dry-run", "--dry-run"]])
def test_a_mistyped_argument_of_the_session_is_refused(words):
    done = script(*words)
    assert done.returncode == 2 and "allowed: --dry-run, and one folder" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("part", [gpu, gpu_checks])
def test_without_a_gpu_the_programs_say_so(part, capsys):
    with pytest.raises(SystemExit):
        part.main([])
    assert "no usable GPU; allowed: a machine with one, or --tiny" in capsys.readouterr().err


# --- checks


def test_a_text_that_differs_by_no_tie_fails_the_check(checks):
    decoding = checks.decoding("nucleus")
    expected = checks.texts(decoding, CPU)
    assert checks.compared(decoding, expected, expected) == "4 of 4 equal, 0 differ by a tie"
    found = [list(ids) for ids in expected]
    found[0][3] = (found[0][3] + 1) % 211
    with pytest.raises(Wrong, match=f"text 0 differs at token 3: {expected[0][3]} and"):
        checks.compared(decoding, expected, found)
    with pytest.raises(Wrong, match="text 1 differs at token 4: .* and None"):
        checks.compared(decoding, expected, [expected[0], expected[1][:4], *expected[2:]])


def test_a_text_that_rounding_decides_is_a_tie(checks):
    decoding = checks.decoding("greedy")
    expected = checks.texts(decoding, CPU)
    prefix, best = checks.prompts[0] + expected[0][:2], expected[0][2]
    other = next(token for token in range(1, 211) if token not in {*prefix, best})
    found = [[*expected[0][:2], other, 1], *expected[1:]]
    with pytest.raises(Wrong, match="text 0 differs at token 2"):
        checks.compared(decoding, expected, found)
    with torch.no_grad():  # equal logits
        head = checks.model.get_output_embeddings().weight
        head[other] = head[best]
    assert checks.compared(decoding, expected, found) == "3 of 4 equal, 1 differ by a tie"


def test_a_check_that_fails_or_has_no_time_left_never_passes(capsys):
    def fails() -> str:
        raise Wrong("the losses differ")

    def hangs() -> str:
        time.sleep(60)
        return "never"

    checks = {"good": lambda: "fine", "bad": fails, "slow": hangs, "late": lambda: "late"}
    found = gpu_checks.run(checks, 0.5)
    assert [check["passed"] for check in found] == [True, False, None, None]
    assert [check["said"] for check in found[:2]] == ["fine", "the losses differ"]
    assert "slow: not checked: left out" in capsys.readouterr().out


def test_a_failed_or_missing_check_is_the_exit_status(tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    file = tmp_path / "gpu.json"

    def fails() -> str:
        raise ValueError("no such kernel")

    for check, budget, passed in ((lambda: "fine", "60", True), (fails, "60", False)):
        monkeypatch.setattr(Checks, "all", {"one": check})
        assert gpu_checks.main(["--tiny", "--budget", budget, "--into", str(file)]) == (not passed)
        (found,) = json.loads(file.read_text())["checks"]
        assert found["passed"] is passed
    assert gpu_checks.main(["--tiny", "--budget", "0", "--into", str(file)]) == 1
    assert json.loads(file.read_text())["checks"][0]["passed"] is None


# --- speed


def test_rows_that_the_budget_does_not_reach_are_named(bench):
    def hangs() -> tuple[float, float]:
        time.sleep(60)
        return 1, 1

    tasks = [gpu.Task("quick", OURS, 1, lambda: (6, 2.0), flops=8.0, read=4.0)]
    tasks += [gpu.Task("slow", OURS, 1, hangs), gpu.Task("late", "peer", 1, hangs)]
    bench.tasks = lambda: tasks
    bench.flops_per_s, bench.bytes_per_s = 40.0, 4.0
    written = []
    gpu.measure_all(bench, 0.5, time.monotonic(), lambda: written.append(len(bench.rows)))
    (row,) = bench.rows
    assert (row["path"], row["rate"], row["mfu"], row["bandwidth"]) == ("quick", 3.0, 0.1, 0.5)
    assert [(one["path"], one["side"]) for one in bench.left_out] == [
        ("slow", OURS),
        ("late", "peer"),
    ]
    assert written == [1, 1, 1]  # after each row


def test_checks_of_another_run_are_never_mixed_with_this_speed(tmp_path, capsys):
    file, here = tmp_path / "gpu.json", gpu.about(CPU, True)
    for key, value in (("dry_run", False), ("device", "NVIDIA H200"), ("commit", "abc")):
        file.write_text(json.dumps(here | {key: value, "checks": []}))
        with pytest.raises(SystemExit):
            gpu.main(["--tiny", "--into", str(file)])
        assert f"its {key} is {value!r}, but this one is" in capsys.readouterr().err


def test_a_row_that_fails_does_not_stop_the_others(bench):
    def broken() -> tuple[float, float]:
        raise RuntimeError("CUDA error: an illegal\nmemory access")

    bench.add(gpu.Task("one", OURS, 1, broken), 60)
    bench.add(gpu.Task("two", OURS, 1, lambda: (1, 1.0)), 60)
    assert [row.get("failed") for row in bench.rows] == [
        "CUDA error: an illegal memory access",
        None,
    ]


def test_the_bytes_of_writing_follow_the_length_of_the_cache(bench):
    """Two layers of width 32 in bf16: 2 x 2 x 32 x 2 = 256 bytes of cache per token."""
    weights = 2 * (211 * 32 + 2 * (4 * 32**2 + 3 * 32 * 64 + 2 * 32) + 32)
    assert (bench.weight_bytes, bench.cache_bytes) == (weights, 256)
    # a prompt of 10 tokens, 3 new ones: two steps read 11 and 12 tokens of each of 5 rows
    assert bench.written(5, 10, 3)["read"] == 3 * weights + 5 * (11 + 12) * 256
    # four beams share the prompt: 10 + 4 and 10 + 8 tokens
    assert bench.written(5, 10, 3, 4)["read"] == 3 * weights + 5 * (14 + 18) * 256
    per_token = 2 * (8 * 32**2 + 6 * 32 * 64)
    head, attention = 2 * 32 * 211, 2 * 4 * 32
    assert bench.written(1, 2, 2)["flops"] == 3 * per_token + 2 * head + (1 + 2 + 3) * attention


def test_the_goals_are_judged_by_our_rows_and_never_guessed():
    rows = [
        {"path": gpu.TRAINING, "side": OURS, "rate": 400_000.0},
        {"path": gpu.TRAINING, "side": "peer", "rate": 1.0},
        {"path": gpu.SAMPLING, "side": OURS, "bandwidth": 0.59},
        {"path": gpu.SEARCH, "side": OURS, "rate": 1e9},  # its peer was left out
    ]
    assert [goal.judged(rows)["met"] for goal in gpu.GOALS] == [True, False, None]


def test_kernels_of_attention_are_named():
    """Names as torch's profiler gives them for each backend."""
    names = {
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128>>": "flash",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::Params)": (
            "memory-efficient"
        ),
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7": "cuDNN",
        "aten::_scaled_dot_product_attention_math": "math",
        "void at::native::softmax_warp_forward<float>": None,
        "sm90_xmma_gemm_bf16bf16_bf16f32": None,
    }
    for name, kind in names.items():
        assert attention_kernels([name]) == ([kind] if kind else [])
    assert attention_kernels(names) == ["cuDNN", "flash", "math", "memory-efficient"]


def test_busy_time_counts_overlapping_kernels_once():
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4
    assert covered([]) == 0


def test_a_cpu_counts_operations_without_views_and_allocations():
    x = torch.ones(4, 4)
    found = profiled(lambda: (x.t().reshape(2, 8).view(16) + torch.empty(16)).sum(), CPU)
    assert found.kernels == 3  # a copy by reshape, add, sum
