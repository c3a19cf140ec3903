"""Leases and kept files, with real processes that live, die and fall silent."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from pollination.core import artifacts
from pollination.core.lease import Lease, keep, kept_copies, newest, restore
from pollination.core.slurm import Deadline, parse_duration, seconds_left
from tests.conftest import ROOT

LOG = logging.getLogger("test")
HOLD = "import logging, sys, time; from pathlib import Path\n"
HOLD += "from pollination.core.lease import Lease\n"
HOLD += (
    "lease = Lease(Path(sys.argv[1]), logging.getLogger()); lease.wait(); print('held', "
    "flush=True)\n"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("POLLINATION_BEAT_S", "0.1")


def holder(folder, then: str) -> subprocess.Popen:
    """Another process that holds the lease, and then does `then`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + then, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "held\n"
    return process


def taken_after(folder) -> float:
    start = time.monotonic()
    mine = Lease(folder, LOG)
    assert mine.wait()
    mine.release()
    return time.monotonic() - start


def test_a_second_copy_waits_for_a_live_holder_and_then_goes_on(tmp_path):
    process = holder(tmp_path, "time.sleep(3); lease.release()")
    assert (
        2 < taken_after(tmp_path) < 5
    )  # far longer than the 0.9 s after which a silent holder is dead
    process.wait(10)


def test_a_killed_holder_is_succeeded_at_once(tmp_path):
    process = holder(tmp_path, "time.sleep(60)")
    process.kill()
    process.wait(10)
    assert taken_after(tmp_path) < 0.5


def test_a_holder_on_another_node_is_dead_when_its_count_stands_still(tmp_path):
    process = holder(tmp_path, "time.sleep(60)")
    process.kill()
    process.wait(10)
    path = tmp_path / f"lease.{newest(tmp_path)[0]}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"place": "elsewhere"}))
    assert 0.8 < taken_after(tmp_path) < 3


def test_a_holder_that_was_frozen_learns_that_it_was_succeeded(tmp_path):
    process = holder(
        tmp_path,
        "time.sleep(0.1)\nwhile not lease.lost(): time.sleep(0.05)\nprint('lost', flush=True); "
        "lease.release()",
    )
    process.send_signal(signal.SIGSTOP)
    assert 0.8 < taken_after(tmp_path) < 3
    number = newest(tmp_path)[0]
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "lost\n"
    process.wait(10)
    assert newest(tmp_path)[0] == number


def test_who_wakes_up_knows_at_once_that_another_has_taken_over(tmp_path):
    frozen = Lease(tmp_path, LOG)
    assert frozen.wait()
    frozen.bell.set()  # its beat stands still, and has not woken up yet
    assert 0.8 < taken_after(tmp_path) < 3
    assert frozen.lost()


def test_of_many_waiters_one_at_a_time_holds_the_lease(tmp_path):
    holding, most, order = [], [], []

    def work():
        mine = Lease(tmp_path, LOG)
        assert mine.wait()
        holding.append(1)
        most.append(len(holding))
        time.sleep(0.02)
        order.append(mine.number)
        holding.pop()
        mine.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 8 and order == list(range(8))
    assert [path.name for path in tmp_path.iterdir()] == ["lease.7"]


def test_waiting_ends_when_asked_to_stop(tmp_path):
    process = holder(tmp_path, "time.sleep(60)")
    assert not Lease(tmp_path, LOG).wait(stop=True)
    process.kill()
    process.wait(10)


DAMAGED = {
    "empty": b"",
    "half written": b'{"token": "ab',
    "zeros": bytes(300),
    "binary": b"\xff\xfe\x00\x01",
    "a list": b"[1, 2]",
    "null": b"null",
    "missing keys": b'{"token": "x", "released": false}',
    "nulls": json.dumps(dict.fromkeys(("token", "beat_s", "node"))).encode(),
    "huge numbers": b'{"token": "x", "beat_s": 1e999, "beat": 1%s}' % (b"0" * 5000),
    "deep": b"[" * 50_000,
    "another type": b'{"token": "x", "job": null, "node": "n", "place": null, "pid": -1, '
    b'"started": null, "beat": 1, "beat_s": 0.1, "released": false}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_an_unreadable_lease_is_waited_for_and_then_taken_over(tmp_path, caplog, content):
    (tmp_path / "lease.4").write_bytes(content)
    spent = time.process_time()
    assert 0.8 < taken_after(tmp_path) < 3
    assert time.process_time() - spent < 0.5
    assert newest(tmp_path)[0] == 5
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("taking over from an unknown process (its lease cannot be read: ")
    assert str(tmp_path / "lease.4") in said and len(said) < 500


def test_an_unreadable_lease_that_somebody_rewrites_is_not_taken_over(tmp_path):
    ended = threading.Event()

    def rewrite():
        count = 0
        while not ended.wait(0.1):
            count += 1
            (tmp_path / "lease.4").write_text(f"beat {count} of another version")

    (tmp_path / "lease.4").touch()
    thread = threading.Thread(target=rewrite)
    thread.start()
    threading.Timer(2, ended.set).start()
    assert 2.5 < taken_after(tmp_path) < 6
    thread.join(10)


def test_only_files_named_after_a_number_are_leases(tmp_path):
    strangers = ("lease.0~", "lease.x", "lease.1.tmp", ".nfs000012", "lease.007", "lease.\u0663")
    for name in strangers:
        (tmp_path / name).touch()
    (tmp_path / "lease.3").mkdir()
    (tmp_path / "lease.5").symlink_to("nowhere")
    os.mkfifo(tmp_path / "lease.6")
    assert newest(tmp_path) == (-1, {})
    assert taken_after(tmp_path) < 0.5
    assert newest(tmp_path)[0] == 7
    assert {path.name for path in tmp_path.iterdir()} == {
        *strangers,
        "lease.3",
        "lease.5",
        "lease.6",
        "lease.7",
    }


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs two users")
def test_a_lease_of_another_user_that_cannot_be_read_is_waited_for(tmp_path):
    (tmp_path / "lease.0").touch(0o600)
    os.chown(tmp_path / "lease.0", 65534, 65534)
    drop = "-dac_override,-dac_read_search,-fowner"
    done = subprocess.run(
        ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", sys.executable]
        + ["-c", HOLD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stdout == "held\n" and "lease.0: permission denied" in done.stderr, done.stderr
    assert newest(tmp_path)[0] == 1


def test_a_machine_that_was_suspended_is_noticed_within_a_second(tmp_path, monkeypatch):
    monkeypatch.setenv("POLLINATION_BEAT_S", "60")
    mine = Lease(tmp_path, LOG)
    assert mine.wait()
    monkeypatch.setenv("POLLINATION_BEAT_S", "0.1")
    (tmp_path / f"lease.{mine.number + 1}").write_text("of another process")
    mine.beaten_s -= 3600  # the clock that counts a suspension jumps by an hour
    end = time.monotonic() + 5
    while not mine.taken and time.monotonic() < end:
        time.sleep(0.05)
    assert mine.taken


def test_a_waiter_that_was_frozen_itself_does_not_take_over(tmp_path):
    first = holder(tmp_path, "time.sleep(60)")
    code = HOLD.replace("lease.wait()", "print('waits', flush=True); lease.wait()")
    second = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert second.stdout.readline() == "waits\n"
    time.sleep(0.5)
    for process in (first, second):
        process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    second.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    first.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    assert newest(tmp_path)[0] == 0
    for process in (second, first):
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("text", ["", "ten", "0", "-1", "nan", "1e9"])
def test_an_impossible_beat_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("POLLINATION_BEAT_S", text)
    with pytest.raises(
        ValueError, match=r"POLLINATION_BEAT_S is .* allowed: a number, 0.01 to 600"
    ):
        Lease(tmp_path, LOG)


WAITING = "import sys; from pollination.core.driver import hold; hold(sys.argv[1])"


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_waits_for_an_unreadable_lease_ends_when_asked(tmp_path, monkeypatch, sign):
    monkeypatch.setenv("POLLINATION_BEAT_S", "60")
    (tmp_path / ".driver").mkdir()
    (tmp_path / ".driver/lease.0").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    said = process.stderr.readline()
    assert "lease.0: the file is empty) has not released its lease" in said, said
    assert "waiting up to 540 s to see whether it is alive" in said
    time.sleep(0.3)
    process.send_signal(sign)
    _, rest = process.communicate(timeout=5)
    assert process.returncode == 1 and len(rest.splitlines()) == 1
    assert f"stopped by {sign.name} while waiting for the lease of the run" in rest


def test_a_frozen_driver_that_lost_its_run_ends_before_it_does_anything(tmp_path):
    """Its main thread would start a job at once; a normal exit would remove the other's files."""
    code = WAITING + (
        "; import atexit, os, pathlib, time; here = pathlib.Path(sys.argv[1]); "
        "atexit.register((here / 'locks').unlink); print('held', flush=True)\n"
        "while not (here / 'go').exists(): time.sleep(0.01)\n"
        "(here / 'started').touch()\n"
    )
    (tmp_path / "locks").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGSTOP)
    other = Lease(tmp_path / ".driver", LOG)
    assert other.wait()
    (tmp_path / "go").touch()
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 1 and len(said.splitlines()) == 1
    assert "has taken over this run while this driver was frozen" in said
    assert (tmp_path / "locks").exists() and not (tmp_path / "started").exists()
    assert not other.lost()
    other.release()


def test_a_driver_without_a_place_for_its_lease_says_so_in_one_line(tmp_path):
    (tmp_path / ".driver").write_text("in the way")
    done = subprocess.run(
        [sys.executable, "-c", WAITING, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path}: this driver cannot take the lease of")


def finished(folder) -> list:
    outputs = [folder / "model.safetensors", folder / "run.json"]
    outputs[0].write_bytes(b"weights")
    artifacts.write_json(
        outputs[1], {"outputs": {"model.safetensors": artifacts.digest(outputs[0])}}
    )
    return outputs


def test_finished_files_outlive_their_deletion_and_cost_no_space(tmp_path):
    outputs, work = finished(tmp_path), tmp_path / ".train.work"
    for name in ("old/finished/model.safetensors", "new/checkpoint.safetensors"):
        (work / name).parent.mkdir(parents=True)
        (work / name).write_bytes(b"x")
    keep(work / "new", outputs)
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()) == [
        "new/finished/model.safetensors",
        "new/finished/run.json",
    ]
    assert outputs[0].stat().st_nlink == 2
    assert kept_copies(str(outputs[0])) == [str(work / "new/finished/model.safetensors")]
    for path in outputs:
        path.unlink()
    before = time.time() - 1
    assert restore(work / "new", outputs)
    assert outputs[0].read_bytes() == b"weights" and outputs[0].stat().st_mtime > before
    assert restore(work / "new", outputs), "also where they are still in place"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".train.work",
        "model.safetensors",
        "run.json",
    ]


@pytest.mark.parametrize("harm", ["damaged", "half"])
def test_kept_files_that_are_not_whole_are_not_used(tmp_path, harm):
    outputs, work = finished(tmp_path), tmp_path / ".train.work"
    keep(work / "new", outputs)
    if harm == "damaged":
        outputs[0].write_bytes(b"other")  # in place: the kept name is the same file
    else:
        (work / "new/finished/run.json").unlink()
    assert not restore(work / "new", outputs)
    assert not (work / "new/finished").exists()


def test_durations_of_slurm():
    assert parse_duration("2-03:04:05\n") == ((2 * 24 + 3) * 60 + 4) * 60 + 5
    assert (parse_duration("59:01"), parse_duration("1:00:00")) == (3541, 3600)
    assert parse_duration("UNLIMITED") is None


def test_the_time_left_is_unknown_outside_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert seconds_left() is None
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 100))
    assert 90 < seconds_left() < 101
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 1))
    deadline = Deadline()
    assert not deadline
    time.sleep(1)  # it stops a tenth of its time before the end
    assert deadline
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 100))
    deadline.at_s = time.monotonic()
    assert not deadline  # the limit was extended
