"""A driver pins its config and code, jobs compare theirs, and notes name what a run mixes."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pollination.core import artifacts, code, pin
from pollination.core.driver import FOLDER

CONFIG = {"run": "x", "models": {"b": 1.0e-05, "a": [1, None, "ü"]}}  # not in the order of keys
LOSS, PLOT = "pollination/models/loss.py", "pollination/figures/accuracy.py"


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A small checkout, which the process takes for its own; the folder has a space in its name."""
    root = tmp_path / "a checkout"
    names = ("Snakefile", "rules/train.smk", "pollination/__init__.py", LOSS, PLOT)
    for name in (*names, "workflow/scripts/train.py", "pollination/plan/table.yaml", "docs/a.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("value = 1\n")
    monkeypatch.setattr(code, "ROOT", root)
    monkeypatch.setattr(pin, "ROOT", root)
    monkeypatch.setattr(code, "PAUSE_S", 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)  # no watch
    return root


def start(config: dict = CONFIG, own: dict | None = None) -> SimpleNamespace:
    """A driver's workflow after its start."""
    settings = SimpleNamespace(configfiles=[Path("config.yaml")], config_args="run=x")
    workflow = SimpleNamespace(config_settings=settings, configfiles=[Path("config.yaml")])
    pin.start(workflow, code.files(), config, "results/x", own or {}, None)
    return workflow


def edit(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_text("value = 2\n")


def pins() -> list[str]:
    return sorted(path.name for path in Path("results/x", FOLDER, "pins").iterdir())


def test_a_job_reads_the_config_of_its_own_driver_whatever_a_later_one_pins(checkout):
    first, second = start(), start(CONFIG | {"run": "other"})
    config = pin.enter(first.config_settings.configfiles)
    assert json.dumps(config) == json.dumps(CONFIG)  # with the order of its keys
    assert pin.enter(second.config_settings.configfiles)["run"] == "other"
    assert first.config_settings.config_args == ""
    assert all(path.is_absolute() for path in first.config_settings.configfiles)
    assert os.environ[code.VARIABLE] == str(second.config_settings.configfiles[0].parent)


def test_equal_drivers_share_a_pin_and_old_pins_are_deleted(checkout):
    start()
    start()
    assert len(pins()) == 2  # with `order`
    for number in range(pin.KEPT):
        workflow = start({"run": number})
    assert len(pins()) == pin.KEPT + 1
    assert pin.enter(workflow.config_settings.configfiles) == {"run": pin.KEPT - 1}
    start({"run": 3})  # in use again, so not the oldest any more
    start({"run": "new"})
    folders = [Path("results/x", FOLDER, "pins", name) for name in pins() if name != "order"]
    runs = [json.loads((folder / "config.json").read_text())["run"] for folder in folders]
    assert 3 in runs and "new" in runs and 0 not in runs and len(runs) == pin.KEPT


def test_a_damaged_list_of_pins_counts_as_far_as_it_can_be_read(checkout):
    start()
    order = Path("results/x", FOLDER, "pins/order")
    text = order.read_bytes()
    order.write_bytes(b"\xff\x97/../..\n" + text)
    assert pin.latest_config(Path("results/x"))[1] == CONFIG
    order.write_bytes(b"\xff\x97")
    assert pin.latest_config(Path("results/x")) is None and not pin.upcoming(Path("results/x"))
    start()
    assert order.read_bytes() == text


def test_other_code_stops_a_job_with_the_files_and_both_digests(checkout, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("rate = 1\n")
    before = code.files()
    workflow = start(own=code.digests([str(own)]))
    assert code.of_job() == code.results(before)
    sys.meta_path.pop(0)
    own.write_text("rate = 2\n")
    with pytest.raises(ValueError, match=rf"since snakemake started: {own}; its digest is"):
        code.of_job()
    own.write_text("rate = 1\n")
    then = code.digest(before | code.digests([str(own)]))
    edit(checkout, "rules/train.smk", LOSS, PLOT)
    (checkout / "pollination/plan/table.yaml").unlink()
    (checkout / "docs/a.py").unlink()  # no code
    now = code.digest(code.files() | code.digests([str(own)]))
    with pytest.raises(SystemExit) as stopped:
        pin.enter(workflow.config_settings.configfiles)
    assert str(stopped.value) == (
        "error: the code has changed since snakemake started: "
        f"{PLOT}, {LOSS}, pollination/plan/table.yaml and 1 more; its digest is {now[:12]}, "
        f"the pinned one {then[:12]}; let snakemake end, then type the same command again"
    )
    with pytest.raises(ValueError, match=f"{now[:12]}, the pinned one {then[:12]}"):
        code.of_job()


def test_a_file_that_an_editor_is_replacing_is_no_change(checkout, monkeypatch):
    start()
    text = (checkout / LOSS).read_text()
    (checkout / LOSS).unlink()
    monkeypatch.setattr(code.time, "sleep", lambda seconds: (checkout / LOSS).write_text(text))
    code.of_job()
    sys.meta_path.pop(0)


def test_a_job_from_another_checkout_is_told_both_folders(checkout, tmp_path, monkeypatch):
    start()
    other = tmp_path / "other"
    shutil.copytree(checkout, other)
    monkeypatch.setattr(code, "ROOT", other)
    code.of_job()  # equal code: the checkout may lie elsewhere on a node
    sys.meta_path.pop(0)
    edit(other, LOSS)
    with pytest.raises(ValueError, match=rf"other code \({other}\) than snakemake \({checkout}\)"):
        code.of_job()


def test_a_module_that_changes_before_a_job_imports_it_is_refused(checkout, monkeypatch):
    start()
    code.of_job()
    monkeypatch.delitem(sys.modules, "pollination.models.loss", raising=False)
    edit(checkout, LOSS)
    try:
        with pytest.raises(ValueError, match=rf"since snakemake started: {LOSS}; its digest is"):
            importlib.import_module("pollination.models.loss")
    finally:
        sys.meta_path.pop(0)


@pytest.mark.parametrize(("name", "said"), [("pin.json", "pin"), ("config.json", "config")])
@pytest.mark.parametrize("text", ["", "{}", None])
def test_a_damaged_pin_stops_a_job_with_one_line(checkout, name, said, text):
    (path,) = start().config_settings.configfiles
    damaged = path.with_name(name)
    damaged.unlink() if text is None else damaged.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        pin.enter([path])
    line = str(stopped.value)
    assert line.startswith(f"error: {damaged}: the pinned file ") and "\n" not in line
    assert line.endswith("let snakemake end, then type the same command again")


def test_a_job_without_a_pin_is_refused(checkout):
    with pytest.raises(SystemExit, match="without --no-hooks"):
        pin.enter([Path("config.yaml").absolute()])
    with pytest.raises(SystemExit, match="without --no-hooks"):
        pin.enter([])


def test_a_driver_that_cannot_write_its_pin_ends_with_one_line(checkout):
    Path("results/x", FOLDER).mkdir(parents=True)
    Path("results/x", FOLDER, "pins").write_text("in the way")
    with pytest.raises(SystemExit, match=r"^error: .*pins.*; snakemake cannot start$"):
        start()


WATCH = """
import sys, threading, time
from pathlib import Path
from pollination.core import code, pin
code.PAUSE_S = 0.0
code.ROOT = pin.ROOT = Path(sys.argv[1])
one = pin.Pin("results/x", code.files(), {}, {})
one.write()
(one.folder / "pin.json").unlink()
given = {str(code.ROOT / "config.yaml"): "the digest of its content at the start"}
threading.Thread(target=one.watch, args=(given,), daemon=True).start()
while not (one.folder / "pin.json").exists():
    time.sleep(0.01)
(code.ROOT / "Snakefile").write_text("value = 2")
time.sleep(60)
"""


def test_a_driver_says_that_its_code_changed_and_asks_snakemake_to_end(checkout):
    """Snakemake's own answer to SIGTERM is to start no other job."""
    project = Path(pin.__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(checkout)],
        capture_output=True,
        text=True,
        timeout=50,
        env=os.environ | {"PYTHONPATH": str(project), "POLLINATION_BEAT_S": "0.1"},
    )
    assert done.returncode == -15, done.stderr
    edited, changed = done.stderr.splitlines()
    assert edited.startswith("note: ") and "config.yaml changed; the jobs" in edited
    assert changed.startswith("error: the code has changed since snakemake started: Snakefile; ")


# --- what a run mixes

OLD, NEW = "a" * 40, "b" * 40
TORCH = {"pollination": "1", "torch": "2.12.0", "numpy": "2.0"}


def record(path: str, rule: str = "train_child", **other) -> None:
    parts = Path(path).parts
    wildcards = {"experiment": parts[0], "gen": parts[1].removeprefix("gen")}
    content = {
        "rule": rule,
        "wildcards": wildcards,
        "inputs": {},
        "outputs": {"model.safetensors": "0", "config.json": "0"},
        "versions": TORCH,
        "commit": OLD,
        **other,
    }
    artifacts.write_json(Path("results/x", path, "run.json"), artifacts.seal(content))


def test_a_run_of_one_code_has_no_notes(checkout):
    for generation in range(3):
        record(f"population/gen{generation}/member0", code="1" * 64)
    record("population/gen3/member0")  # by a release that recorded no code, at the same commit
    assert pin.notes(Path("results/x")) == []


def test_notes_name_the_artifacts_that_other_commits_code_and_libraries_made(checkout):
    for generation in range(6):
        changes = {"commit": NEW} if generation > 3 else {}
        record(f"population/gen{generation}/member0", **changes)
    record("line/gen1/member0", "evaluate_member", versions=TORCH | {"torch": "2.13.0"})
    code_said, libraries_said = pin.notes(Path("results/x"))
    assert code_said == (
        "4 of 14 artifacts were made with other code (commit bbbbbbbbb) than most (commit "
        "aaaaaaaaa): train_child population gen4-gen5 (2)"
    )
    assert libraries_said == (
        "2 of 14 artifacts were made with other libraries than most (torch 2.12.0 -> 2.13.0): "
        "evaluate_member line gen1"
    )
    given = {"p": artifacts.read_json("results/x/line/gen1/member0/run.json")}
    assert pin.notes(Path("results/x"), given) == []


def test_two_codes_of_one_uncommitted_commit_are_distinct_and_their_files_are_named(checkout):
    start()
    first = code.results(code.files())
    edit(checkout, LOSS, PLOT)  # a plot affects no other artifact
    start()
    second = code.results(code.files())
    record("population/gen0/member0", code=first, commit=OLD + "+")
    record("population/gen1/member0", code=first, commit=OLD + "+")
    record("population/gen2/member0", code=second, commit=OLD + "+")
    (said,) = pin.notes(Path("results/x"))
    assert said == (
        f"2 of 6 artifacts were made with other code (digest {second[:12]}, commit aaaaaaaaa+) "
        f"than most (digest {first[:12]}, commit aaaaaaaaa+), which differs in {LOSS}: train_child "
        "population gen2"
    )


def test_the_notes_of_many_records_are_few_and_short(checkout):
    records = {
        str(n): {
            "rule": f"rule{n % 40}",
            "wildcards": {"experiment": f"experiment{n % 7}", "gen": str(n % 11)},
            "outputs": {"a": "0"},
            "versions": TORCH | {"numpy": str(n % 3)},
            "commit": f"{n % 30:040}",
        }
        for n in range(10_000)
    }
    said = pin.notes(Path("results/x"), records)
    assert len(said) == 8 and said[5] == "... and 24 more such groups of artifacts"
    assert all(len(line) < 300 for line in said)


def test_what_the_next_snakemake_would_change_is_said_before(checkout, monkeypatch):
    results = Path("results/x")
    assert pin.upcoming(results) == []
    start()
    edit(checkout, PLOT)
    record("population/gen0/member0")
    assert pin.upcoming(results) == []  # a changed plot redraws itself, and that is all
    before = code.results(code.files())
    edit(checkout, LOSS)
    monkeypatch.setattr(pin, "versions", lambda: {"torch": "0"})
    changed, libraries = pin.upcoming(results)
    assert changed == (
        f"the code has changed since the last snakemake of this run: {LOSS} (digest {before[:12]}, "
        f"commit unknown; now {code.results(code.files())[:12]}, commit unknown)"
    )
    assert "the last snakemake of this run: " in libraries and ", torch " in libraries
    assert libraries.split(", torch ")[1].split(",")[0].endswith("-> 0")
    assert pin.notes(results)[-2:] == [changed, libraries]
    start()
    assert pin.upcoming(results) == []


def test_a_run_of_an_earlier_release_is_compared_by_a_record(checkout):
    record("line/gen0")
    shutil.copy("results/x/line/gen0/run.json", "results/x/config.run.json")
    changed, libraries = pin.upcoming(Path("results/x"))
    assert changed == (
        "the commit has changed since the last snakemake of this run: aaaaaaaaa, now unknown"
    )
    assert "torch 2.12.0 -> " in libraries
