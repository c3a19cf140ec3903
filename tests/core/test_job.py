"""What every script does around its work."""

import errno
import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from pollination.core import artifacts
from pollination.core.artifacts import read_record
from pollination.core.job import Job, Stopped, StopRequest, hardware


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A job that copies `source` to `target`; `meanwhile(source)` happens while it works."""
    monkeypatch.setattr(os, "environ", os.environ.copy() | {"XDG_CACHE_HOME": str(tmp_path / "c")})
    source, target, record = (
        tmp_path / "source.txt",
        tmp_path / "out/target.txt",
        tmp_path / "out/run.json",
    )
    source.write_text("the text of a corpus\n" * 100)

    def start(meanwhile=lambda source: None, **options) -> tuple[Path, Path]:
        parts = {
            "input": InputFiles(fromdict={"source": str(source)}),
            "output": OutputFiles(fromdict={"target": str(target), "run": str(record)}),
            "params": Params(fromdict={"recipe": 1}),
            "wildcards": Wildcards(fromdict={}),
            "log": Log(toclone=[str(tmp_path / "job.log")]),
        }
        with Job(SimpleNamespace(rule="copy", threads=1, config={}, **parts), **options) as job:
            text = job.file("source").read_text()
            meanwhile(source)
            Path(job.output.target).parent.mkdir(exist_ok=True)
            Path(job.output.target).write_text(text)
        return target, record

    return start


def test_a_finished_job_has_its_record(run):
    target, record = run()
    assert read_record(record)["outputs"].keys() == {"target.txt"} and target.exists()


def flip(source: Path) -> None:
    """A byte decays on the disk; no time stamp tells."""
    times, content = source.stat(), bytearray(source.read_bytes())
    content[50] ^= 1
    source.write_bytes(content)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("meanwhile", [flip, Path.unlink])
def test_an_input_that_changes_while_a_job_reads_it_leaves_no_result(run, tmp_path, meanwhile):
    with pytest.raises(SystemExit):
        run(meanwhile)
    assert not list((tmp_path / "out").iterdir())
    assert (
        (tmp_path / "job.log")
        .read_text()
        .endswith("source.txt: changed or deleted while this job read it; run snakemake again\n")
    )


def test_a_job_may_compare_a_large_input_with_its_record_once_after_reading(
    run, tmp_path, monkeypatch
):
    digest, hashed = artifacts.digest, []
    monkeypatch.setattr(artifacts, "digest", lambda path: hashed.append(str(path)) or digest(path))
    source = str(tmp_path / "source.txt")
    _, record = run(check_last=True)
    assert hashed.count(source) == 1
    assert artifacts.read_json(record)["inputs"] == {source: digest(source)}
    sealed = {"outputs": {"source.txt": digest(source)}}
    artifacts.write_json(tmp_path / "source.run.json", sealed)
    with pytest.raises(SystemExit):
        run(flip, check_last=True)
    assert not list((tmp_path / "out").iterdir())
    assert "source.txt: damaged: its digest" in (tmp_path / "job.log").read_text()


def test_an_error_of_the_system_is_one_line_without_its_number(run, tmp_path):
    with pytest.raises(SystemExit):
        run(lambda source: source.with_name("absent").read_text())
    last = (tmp_path / "job.log").read_text().splitlines()[-1]
    assert last.endswith(f"error: copy: {tmp_path}/absent: no such file or directory")


def test_a_job_that_resumes_on_other_hardware_says_so_in_its_log_and_its_record(tmp_path, caplog):
    artifacts.write_json(tmp_path / "hardware.json", [{"device": "NVIDIA A100", "cuda": "12.8"}])
    parts = {
        "output": OutputFiles(fromdict={"run": str(tmp_path / "run.json")}),
        "params": Params(fromdict={"recipe": 1}),
        "wildcards": Wildcards(fromdict={}),
    }
    given = {"rule": "train", "threads": 1, "input": InputFiles(), "log": [], "config": {}}
    here = hardware()

    def recorded(resumes: bool) -> dict:
        job = Job(SimpleNamespace(**given, **parts))
        job.log, job.work = logging.getLogger("resumes"), tmp_path
        job.note_hardware(resumes)
        job.write_record(job.output.run)
        return read_record(job.output.run)["hardware"]

    assert recorded(resumes=True) == here | {"began_on": "NVIDIA A100, cuda 12.8"}
    assert "its saved work was computed on NVIDIA A100, cuda 12.8" in caplog.text
    assert recorded(resumes=True) == here | {"began_on": "NVIDIA A100, cuda 12.8"}  # a third start
    assert recorded(resumes=False) == here  # no work was saved


def test_what_memory_made_of_the_settings_is_in_the_record(tmp_path):
    parts = {"output": OutputFiles(fromdict={"run": str(tmp_path / "run.json")})}
    parts |= {"params": Params(fromdict={"recipe": 1}), "wildcards": Wildcards(fromdict={})}
    given = {"rule": "train", "threads": 1, "input": InputFiles(), "log": [], "config": {}}
    job = Job(SimpleNamespace(**given, **parts))
    job.used = {"micro_batch_size": 8}
    job.write_record(job.output.run)
    assert read_record(job.output.run)["hardware"] == hardware() | {"micro_batch_size": 8}


class Foreign(Exception):
    """An exception of a library in another language."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
            "error: copy: the disk quota is used up",
        ),
        (Foreign("I/O error: Disk quota exceeded (os error 122)"), "the disk quota is used up"),
        (Foreign("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
        (MemoryError(), "memory ran out"),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/x"), "/x: the network file system"),
    ],
)
def test_a_failure_of_the_machine_is_one_line_on_the_terminal_and_in_the_log(
    run, tmp_path, capsys, error, said
):
    """No quota can be set here, so the work raises the error that the system would."""

    def fail(_source):
        raise error

    with pytest.raises(SystemExit):
        run(fail)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "run the same command again" in line
    assert (tmp_path / "job.log").read_text().splitlines()[-1].endswith(line)


def test_a_mistake_in_the_code_keeps_its_traceback(run, tmp_path):
    def fail(_source):
        raise Foreign("a shape is wrong")

    with pytest.raises(Foreign):
        run(fail)
    assert "Traceback" in (tmp_path / "job.log").read_text()


def test_a_second_signal_does_not_break_off_the_save():
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        stop = StopRequest()
        stop.at_once = True
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Exception as error:  # where a library's failure is explained
                raise AssertionError("a stop is no failure") from error
        os.kill(os.getpid(), signal.SIGINT)
        assert stop and stop.reason == "SIGINT"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
