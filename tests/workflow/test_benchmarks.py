"""The benchmarks' harness on tiny stand-in rows: what it runs, in which order, and what it makes of
the figures. No timings.
"""

import json
import subprocess
import sys

import pytest

from benchmarks import processor
from benchmarks.__main__ import BEGIN, END, ROWS, compared, main
from benchmarks.data import shared
from benchmarks.harness import OURS, ROOT, Absent, Measurement, Row, measure, run
from benchmarks.throughput import held_against, processor_rates
from pollination.analysis.cost.shapes import published

SIDES = {OURS: ["ours"], "slow": ["slow"], "fast": ["fast"]}


def row(sides=lambda: SIDES, name="stand-in", target=1.5, agreement=None) -> Row:
    return Row(name, "does little", "things", target, sides, agreement)


def scripted(seconds: dict[str, list[float]], calls: list[str]):
    """A stand-in for measuring: each side takes the seconds that are listed for it, in turn."""
    left = {side: iter(values) for side, values in seconds.items()}

    def measure_side(command: list[str]) -> Measurement:
        calls.append(command[0])
        return Measurement(next(left[command[0]]), peak_mib=10.0, amount=12.0, result=command[0])

    return measure_side


def printing(seconds: float, amount: float) -> list[str]:
    return [
        sys.executable,
        "-c",
        f'print("noise"); print(\'{{"seconds": {seconds}, "amount": {amount}, "result": 7}}\')',
    ]


def test_sides_alternate_and_medians_are_compared_with_the_best_peer():
    calls: list[str] = []
    seconds = {"ours": [1.0, 9.0, 2.0], "slow": [8.0, 8.0, 8.0], "fast": [4.0, 4.0, 1.0]}
    outcome = run(
        row(agreement=lambda a, b: f"{a} {b}"), 3, scripted(seconds, calls), lambda line: None
    )
    assert calls == ["ours", "slow", "fast", "fast", "slow", "ours", "ours", "slow", "fast"]
    assert outcome.rate(OURS) == 6.0  # 12 things in the median 2 seconds
    assert (outcome.peer, outcome.ratio) == ("fast", 2.0)
    assert outcome.spread == pytest.approx((4 / 9, 4.0))
    assert outcome.agreement == "ours fast"


def test_each_measurement_is_a_process_whose_memory_is_its_own():
    # in a process of its own, as small as the command line's: a child's peak begins with its
    # parent's size
    code = (
        "import sys; from benchmarks import __main__; from benchmarks.harness import measure\n"
        "command = lambda mib: [sys.executable, '-c', f'held = bytes(range(256)) * ({mib} * "
        "2**12)']\n"
        "print(*(measure(command(mib), 1).peak_mib for mib in (200, 1, 100)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    large, small, medium = map(float, printed.split())
    assert small < 60
    assert large - medium == pytest.approx(100, abs=10)


def test_a_side_that_times_itself_is_taken_at_its_word():
    measured = measure(printing(2.0, 6), 1)
    assert (measured.seconds, measured.rate, measured.result) == (2.0, 3.0, 7)


def test_a_command_that_does_not_time_itself_is_one_unit_of_work():
    whole = measure(
        [sys.executable, "-c", "import os; print(os.listdir(), os.environ['OMP_NUM_THREADS'])"], 3
    )
    assert whole.amount == 1 and whole.seconds > 0
    assert whole.result == ["[] 3"]  # an empty folder, and the threads that were asked for


def test_absent_data_skips_a_row_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("POLLINATION_DATA", str(tmp_path))
    with pytest.raises(Absent, match="models/no-such-model does not exist; set POLLINATION_DATA"):
        shared("models/no-such-model")
    (tmp_path / "models/mine").mkdir(parents=True)
    assert shared("models/mine") == tmp_path / "models/mine"


def test_command_line_measures_skips_fails_and_writes(tmp_path, capsys):
    def absent():
        raise Absent("the moon is not here")

    rows = [
        row(lambda: {OURS: printing(1, 12), "peer": printing(3, 12)}, "good"),
        row(lambda: {OURS: printing(2, 12), "peer": printing(2, 12)}, "slower"),
        row(absent, "away"),
        row(lambda: {OURS: [sys.executable, "-c", "raise SystemExit('it broke')"]}, "broken"),
    ]
    results, page = tmp_path / "benchmarks.json", tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--rounds", "1", "--write"], rows, results, page) == 1
    found = json.loads(results.read_text())["rows"]
    assert {name: entry["status"] for name, entry in found.items()} == {
        "good": "measured",
        "slower": "measured",
        "away": "skipped",
        "broken": "failed",
    }
    assert found["good"]["ratio"] == pytest.approx(3.0)
    assert found["good"]["sides"]["peer"]["peak_mib"] > 1
    text = page.read_text()
    assert (
        text.startswith(f"before\n{BEGIN}\n")
        and text.endswith(f"{END}\nafter\n")
        and "old" not in text
    )
    lines = {line.split("**")[1]: line for line in text.splitlines() if line.startswith("| **")}
    assert "| 3.00 (3.00-3.00) | 1.50 | yes |" in lines["good"]
    assert "| 1.00 (1.00-1.00) | 1.50 | no |" in lines["slower"]
    assert "away: skipped: the moon is not here" in text
    assert "broken: failed: exit status 1: it broke" in text
    assert "away: skipped" in capsys.readouterr().out
    assert main(["--rounds", "1", "--only", "away"], rows, results, page) == 0


def test_each_figure_of_the_cost_preview_is_held_against_its_measured_rate():
    """Every published rate of this device and every rate of a job without a GPU has a row."""
    small, large = (
        {"model": published()["models"][name], "shape": name, "context_tokens": 128}
        for name in ("tiny", "stories15m")
    )
    points = [small | {"tokens_per_s": 100.0}, large | {"tokens_per_s": 10.0}]
    measured = {"name": "2 threads of X", "device": "cpu", "start_s": 19.2} | dict.fromkeys(
        ("train", "write", "score"), points
    )
    measured |= {"processor": {"pack_tokens_per_s": 8e6}, "disk": {"shard_bytes_per_token": 3.5}}
    rows = {figure: (assumed, found) for figure, assumed, found in held_against(measured)}
    assert rows["start_s"] == (9.6, 19.2)
    assert rows["pack_tokens_per_s"] == (published()["processor"]["pack_tokens_per_s"], 8e6)
    assert {
        f"{kind}, {name} (tokens/s)"
        for kind in ("train", "write", "score")
        for name in ("tiny", "stories15m")
    } < rows.keys()
    # the published rate of this very shape and context
    assert rows["score, tiny (tokens/s)"][0] == pytest.approx(98_800)
    table = compared(list(held_against(measured)))
    assert "| start_s | 9.6 | 19.2 | 2.00 | yes |" in table
    assert "| shard_bytes_per_token | 3.5 | 3.5 | 1.00 | yes |" in table
    assert "| 0.00 | no |" in table
    # a GPU without published rates has only the rows that do not depend on it
    other = held_against(measured | {"name": "NVIDIA V100", "device": "cuda"})
    assert [row[0] for row in other] == ["pack_tokens_per_s", "shard_bytes_per_token"]
    assert held_against(measured | {"name": "NVIDIA H100 PCIe", "device": "cuda"})[0][1] == 20


def test_every_rate_of_a_job_without_a_gpu_is_measured(tmp_path, monkeypatch):
    unmeasured = {"start_s", "hub_tokens_per_s", "watts_per_core"}  # measured elsewhere; estimates
    assert processor.RATES.keys() == published()["processor"].keys() - unmeasured
    monkeypatch.setenv("POLLINATION_DATA", str(tmp_path))  # no real data
    monkeypatch.setattr(processor, "WEIGHTS", 1)
    monkeypatch.setattr(processor, "HASHED_MIB", 1)
    monkeypatch.chdir(tmp_path)
    for key in ("mutate_parameters_per_s", "hash_bytes_per_s"):
        function, needed = processor.RATES[key]
        assert not needed and function()["amount"] == 2**20
    said: list[str] = []
    text = {key: value for key, value in processor.RATES.items() if value[1]}
    monkeypatch.setattr(processor, "RATES", text)
    monkeypatch.setattr("benchmarks.data.ROOT", tmp_path / "none/none")
    assert processor_rates(1, said.append) == ({}, {})
    assert len(said) == len(text) and all("not measured: " in line for line in said)


def test_the_table_is_never_of_several_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            ["--write", "--only", "good"],
            [row(name="good")],
            tmp_path / "b.json",
            tmp_path / "p.md",
        )
    assert "leave out --only" in capsys.readouterr().err


def test_every_row_says_what_it_needs_or_how_it_is_measured(capsys):
    assert main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [entry.name for entry in ROWS] and len(set(listed)) == len(listed)
    page = (ROOT / "docs/performance.md").read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    for entry in ROWS:
        assert f"| {entry.name} |" in page, (
            f"docs/performance.md does not explain the row {entry.name!r}"
        )
        if not entry.name.startswith("planning"):  # which plans once to count its jobs
            try:
                sides = entry.sides()
            except Absent as reason:
                assert "POLLINATION_DATA" in str(reason)
                continue
            assert next(iter(sides)) == OURS and len(sides) >= 2
