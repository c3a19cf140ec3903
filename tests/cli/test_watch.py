"""`pollination watch`: a tracker gets the points of a run, each of them once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pollination
from pollination.cli import main
from pollination.cli.tracking.trackers import EVENTS
from pollination.core import artifacts
from tests.conftest import ROOT

MEMBER = "population/gen1/member0"


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run that a test may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "results/toy", "toy", symlinks=True)
    return Path("toy")


def watch(*words: str, to: str = "tensorboard") -> int:
    return main(["watch", "toy", "--to", to, "--once", *words])


def points(stream: str, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(f"watch/tensorboard/toy/{stream}").Reload()
    tags = events.Tags()["scalars"]
    return [(one.step, one.value) for one in events.Scalars(tag)] if tag in tags else []


def events(stream: str = MEMBER) -> Path:
    return Path("watch/tensorboard/toy", stream, EVENTS)


def rows(member: str = MEMBER) -> list[dict]:
    lines = Path("toy", member, "train.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(found: list[dict]) -> list[tuple[int, float]]:
    return [(row["step"], float(np.float32(row["loss"]))) for row in found]


def test_each_member_and_each_experiment_is_a_run_of_tensorboard(run, capsys):
    assert watch() == 0
    assert capsys.readouterr().out.startswith(
        "To see the points, type: tensorboard --logdir watch/tensorboard\nThe run is complete: "
    )
    results = pollination.load_run(run)
    members = {str(Path(folder).relative_to(run)) for folder in results.members.folder}
    found = {str(path.parent.relative_to("watch/tensorboard/toy")) for path in Path().rglob(EVENTS)}
    assert found == members | {"population", "line"}
    for member in ("founders/human/member3", MEMBER):
        assert points(member, "train/loss") == losses(rows(member))
    mine = results.scores.query("experiment == 'population' and name == 'knowledge'")
    accuracy = mine[mine.metric == "accuracy"].set_index(["generation", "member"]).value
    assert points(MEMBER, "scores/knowledge/accuracy") == [(1, pytest.approx(accuracy[1, 0]))]
    means = accuracy.groupby("generation").mean()
    assert points("population", "scores/knowledge/accuracy") == [
        (g, pytest.approx(means[g])) for g in range(3)
    ]
    chosen = artifacts.read_json(run / "population/gen1/selection.json")
    assert points("population", "selection/parent1")[1] == (1, chosen["parents"][1])
    assert len(points("population", "selection/mean_of_parents")) == 3


def test_a_second_start_sends_only_what_is_new(run, capsys):
    path = run / MEMBER / "train.jsonl"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:9])  # a line that is half there
    (run / MEMBER / "scores.json").rename("scores.json")
    assert watch() == 0
    assert points(MEMBER, "train/loss") == losses([json.loads(line) for line in lines[:4]])
    assert [step for step, _ in points("population", "selection/parent0")] == [0]
    before = events().read_bytes()
    path.write_text(text)
    Path("scores.json").rename(run / MEMBER / "scores.json")
    assert watch() == 0
    assert points(MEMBER, "train/loss") == losses(rows())
    assert len(points(MEMBER, "scores/knowledge/accuracy")) == 1
    assert [step for step, _ in points("population", "selection/parent0")] == [0, 1, 2]
    after = events().read_bytes()
    assert after.startswith(before) and len(after) > len(before)
    capsys.readouterr()
    assert watch() == 0
    assert "0 new points of 0 members" in capsys.readouterr().out and events().read_bytes() == after


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "checkpoint.json"])
def test_a_training_in_progress_shows_its_last_checkpoint_and_may_repeat_steps(run, name):
    path, every = run / MEMBER / "train.jsonl", rows()
    work = run / MEMBER / ".train.work/0123456789abcdef"
    work.mkdir(parents=True)

    def save(count: int) -> None:
        state = {"step": count, "metrics": every[:count]}
        if name.endswith("json"):
            (work / name).write_text(json.dumps({"state": state}))
        else:
            metadata = {"state": json.dumps(state)}
            save_file({"weights.x": np.zeros(9)}, work / name, metadata=metadata)

    content = path.read_bytes()
    path.unlink()
    for saved, seen in ((5, 5), (3, 5), (7, 7)):  # a job lost a checkpoint, and repeats its steps
        save(saved)
        assert watch() == 0
        assert points(MEMBER, "train/loss") == losses(every[:seen])
        assert not points(MEMBER, "scores/knowledge/accuracy")  # those of an earlier training
    path.write_bytes(content)
    assert watch() == 0
    assert points(MEMBER, "train/loss") == losses(every)
    path.unlink()  # a job that runs again deletes its outputs first
    shutil.rmtree(work)
    before = events().read_bytes()
    assert watch() == 0
    assert events().read_bytes() == before


def test_a_training_with_other_losses_replaces_the_points(run):
    assert watch() == 0
    other = [row | {"loss": row["loss"] + 1} for row in rows()[:6]]
    (run / MEMBER / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    assert watch() == 0
    assert points(MEMBER, "train/loss") == losses(other)
    assert len(points(MEMBER, "scores/knowledge/accuracy")) == 1
    before = events().read_bytes()
    assert watch() == 0 and events().read_bytes() == before


def test_events_that_a_kill_cut_or_a_user_deleted_are_sent_again(run, capsys):
    assert watch() == 0
    whole, journal = events().read_bytes(), Path("watch/tensorboard/.toy.sent.jsonl")
    noted = journal.read_text().splitlines(keepends=True)
    # killed after events and before the note; then during both
    mine = next(line for line in noted if MEMBER in line)
    journal.write_text("".join(line for line in noted if line != mine) + mine[:20])
    events().write_bytes(whole + b"\x07\x00")
    events("line").unlink()
    assert watch() == 0
    assert (
        points(MEMBER, "train/loss") == losses(rows())
        and len(points("line", "scores/knowledge/acc")) == 3
    )
    assert len(events().read_bytes()) == len(whole)
    assert watch() == 0
    assert "0 new points" in capsys.readouterr().out.splitlines()[-1]


def test_a_damaged_file_is_named_and_the_others_are_sent(run, capsys):
    (run / MEMBER / "scores.json").write_text("{")
    (run / MEMBER / "train.jsonl").write_text("[]\n")
    assert watch() == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(line.startswith("warning: toy/population/gen1") for line in told)
    assert not events().exists() and len(points("line", "scores/knowledge/acc")) == 3


def test_one_process_and_one_run_has_a_folder(run, capsys, tmp_path):
    assert watch() == 0
    with open("watch/tensorboard/.toy.sent.jsonl", "ab") as file:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        assert watch() == 2
    assert "another `pollination watch` sends this run" in capsys.readouterr().err
    Path("copies").mkdir()
    shutil.copytree(run, "copies/toy", symlinks=True)
    assert main(["watch", "copies/toy", "--to", "tensorboard", "--once"]) == 2
    error = capsys.readouterr().err
    assert f"it belongs to the run in {tmp_path / 'toy'}" in error and error.count("\n") == 1
    shutil.rmtree("toy")  # a run that was moved
    assert main(["watch", "copies/toy", "--to", "tensorboard", "--once"]) == 0
    assert "0 new points" in capsys.readouterr().out


@contextmanager
def following(*words: str):
    command = [sys.executable, "-m", "pollination", "watch", "toy", "--to", "tensorboard"]
    process = subprocess.Popen(
        [*command, "--every", "0.1", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()


def test_it_ends_when_the_run_is_complete_or_stopped_and_resumes(run):
    (run / "line/gen2/member0/scores.json").rename("scores.json")
    with following() as process:
        wait_for(events("population"), process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("Stopped: ") and error.count("\n") == 1
    with following() as process:
        wait_for(events("line"), process)
        Path("scores.json").rename(run / "line/gen2/member0/scores.json")
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert "The run is complete: " in out and len(points("line", "scores/knowledge/acc")) == 3
    assert points(MEMBER, "train/loss") == losses(rows())


def test_it_ends_when_the_run_is_gone(run):
    (run / "line/gen2/member0/scores.json").unlink()
    with following() as process:
        wait_for(events("population"), process)
        run.rename("elsewhere")
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and "toy: the run is gone" in error


class Recorder(ModuleType):
    """A stand-in with the functions that Trackio and W&B share."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.runs: dict[str, list] = {}
        self.about: dict[str, dict] = {}
        self.broken = False

    def Settings(self, **given):
        return given

    def init(self, project, name, resume, **about):
        if self.broken:
            raise RuntimeError("no network\nand a traceback")
        assert (project, resume) == ("toy", "allow")
        self.about[name], self.now = about, self.runs.setdefault(name, [])
        print("* chatter")
        return self

    def define_metric(self, tags, step_metric):
        pass

    def log(self, values, step=None):
        self.now.append((step if step is not None else values.get("step"), values))

    def finish(self):
        self.now = None


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_the_clients_get_each_point_once_and_a_new_run_for_a_restart(
    run, name, monkeypatch, capsys
):
    client = Recorder(name)
    monkeypatch.setitem(sys.modules, name, client)
    for _ in range(2):
        assert watch(to=name) == 0
    assert "chatter" not in capsys.readouterr().out
    sent = client.runs[MEMBER]
    steps = [step for step, values in sent if "train/loss" in values]
    assert steps == [row["step"] for row in rows()] and len(sent) == len(steps) + 1
    assert client.about[MEMBER]["group"] == "population"
    assert client.about["population"]["group"] == "population"
    other = [row | {"loss": row["loss"] + 1} for row in rows()]
    (run / MEMBER / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    assert watch(to=name) == 0
    assert len(client.runs[f"{MEMBER} (2)"]) == len(sent) and len(client.runs[MEMBER]) == len(sent)
    client.broken = True
    capsys.readouterr()
    assert watch("--into", "other", to=name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --to {name}: no network") and error.count("\n") == 1


def test_trackio_itself_takes_the_points(run, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(Path("watch/trackio").resolve()))
    words = [sys.executable, "-m", "pollination", "watch", "toy", "--to", "trackio", "--once"]
    for _ in range(2):
        subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    code = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S;"
        f"print(json.dumps([x['train/loss'] for x in S.get_logs('toy', '{MEMBER}')[:-1]]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == [row["loss"] for row in rows()]


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_one_line(run, name, monkeypatch, capsys):
    for module in [one for one in sys.modules if one.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert watch(to=name) == 2
    assert capsys.readouterr().err == (
        f"error: --to {name}: the package {name} is not installed; in the checkout, type: pip "
        f"install --editable '.[{name}]'\n"
    )
    assert not Path("watch").exists()


def test_what_is_no_number_of_seconds_is_refused(run, capsys):
    assert watch("--every", "0") == 2
    assert (
        "--every: '0' is not a number of seconds; allowed: 0.1 to 86400" in capsys.readouterr().err
    )
