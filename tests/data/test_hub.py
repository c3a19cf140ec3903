"""A download from the hub resumes: after a kill, a stop, a broken connection, a damaged part."""

import gzip
import io
import json
import logging
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pollination.core import artifacts
from pollination.core.job import Stopped
from pollination.data import hub, parts
from pollination.data.hub import stage_hub
from tests.conftest import ROOT, serving
from tests.data.hub_server import NAME, Hub, state
from tests.data.staging import Stop

ROWS = [f"text {n} ".ljust(100, "abcdefg"[n % 7]) for n in range(240)]


def parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    table = pa.table({"text": texts, "id": range(len(texts))})
    pq.write_table(table, file, row_group_size=16, compression="none")
    return file.getvalue()


def files_of(texts: list[str]) -> dict[str, bytes]:
    """Three files of a data set, and a split of its own for validation."""
    size = len(texts) // 3
    pieces = {f"train-{n:05}-of-00003.parquet": texts[n * size : n * size + size] for n in range(3)}
    pieces["validation-00000-of-00001.parquet"] = [text.upper() for text in texts[:90]]
    return {name: parquet(piece) for name, piece in pieces.items()}


def write(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files_of(texts).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A local data set; row groups of ten texts, parts of two groups."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(hub, "ROW_GROUP_CHARACTERS", 2000)
    monkeypatch.setattr(parts, "GROUPS_PER_PART", 2)
    monkeypatch.setattr(logging.getLogger("pollination"), "propagate", True)
    return write(tmp_path / "set", ROWS)


def spec_of(name: object, texts: int = 170, **more) -> dict:
    splits = {"train": "train", "validation": "validation"}
    return {"kind": "hub", "name": str(name), "max_tokens": texts * 25, "splits": splits} | more


def stage(source: Path, folder: Path, stop: Stop | None = None, key: str = "key", **spec) -> str:
    """Stage in `folder`; the digest of the file."""
    work = folder / ".far.work" / key
    work.mkdir(parents=True, exist_ok=True)
    stage_hub(
        spec_of(source, **spec), folder / "far.parquet", work, Stop() if stop is None else stop
    )
    return artifacts.digest(folder / "far.parquet")


def stopped_at(source: Path, folder: Path, texts: int) -> list[Path]:
    """Stop a download after so many texts; its part files."""
    with pytest.raises(Stopped, match="documents saved; run the same command to resume"):
        stage(source, folder, Stop(texts))
    return sorted((folder / ".far.work").rglob("part*.parquet"))


def test_a_download_stopped_again_and_again_gives_the_bytes_of_an_undisturbed_one(source, tmp_path):
    whole = stage(source, tmp_path / "whole")
    table = pq.read_table(tmp_path / "whole/far.parquet")
    upper = [text.upper() for text in ROWS[:90]]  # the whole split, below its budget
    assert table["text"].to_pylist() == ROWS[:170] + upper
    assert table["split"].to_pylist() == ["train"] * 170 + ["validation"] * 90
    stops = 0
    for _ in range(30):
        try:
            assert stage(source, tmp_path / "often", Stop(33)) == whole
            break
        except Stopped:
            stops += 1
    assert stops > 6 and len(list((tmp_path / "often").rglob("part*.parquet"))) > 10


def test_what_is_saved_is_read_from_the_parts(source, tmp_path):
    """Only the rest is streamed: so many texts are asked for, and no more."""
    whole = stage(source, tmp_path / "whole")
    assert len(stopped_at(source, tmp_path, 150)) == 7
    rest = Stop(170 + 1 + 90 - 140)
    assert stage(source, tmp_path, rest) == whole


def test_texts_of_compressed_json_lines_resume_too(source, tmp_path):
    lines = tmp_path / "lines"
    lines.mkdir()
    for path in source.glob("*.parquet"):
        rows = pq.read_table(path).to_pylist()
        with gzip.open(lines / f"{path.stem}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    whole = stage(source, tmp_path / "whole")
    assert len(stopped_at(lines, tmp_path, 150)) == 7
    assert stage(lines, tmp_path, Stop(170 + 1 + 90 - 140)) == whole


def damaged_part(files: list[Path]) -> None:
    content = bytearray(files[2].read_bytes())
    content[50] ^= 1
    files[2].write_bytes(content)


def lost_part(files: list[Path]) -> None:
    files[2].unlink()


def damaged_record(files: list[Path]) -> None:
    path = files[2].with_suffix(".json")
    path.write_text(path.read_text().replace('"documents": ', '"documents": 1'))


def swapped_parts(files: list[Path]) -> None:
    for ending in (".parquet", ".json"):
        files[2].with_suffix(ending).write_bytes(files[3].with_suffix(ending).read_bytes())


def foreign_part(files: list[Path]) -> None:
    path = files[2].with_suffix(".json")
    record = artifacts.read_json(path) | {"job": "of another key"}
    record.pop("seal")
    artifacts.write_json(path, artifacts.seal(record))


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (
            damaged_part,
            "part00002.parquet: damaged: its digest differs from that in part00002.json",
        ),
        (lost_part, "No such file or directory"),
        (damaged_record, "part00002.json: damaged"),
        (swapped_parts, "part00002.json: it belongs to another part"),
        (foreign_part, "part00002.json: it belongs to another download"),
    ],
)
def test_a_part_that_is_not_right_is_downloaded_again(source, tmp_path, caplog, fault, line):
    whole = stage(source, tmp_path / "whole")
    fault(stopped_at(source, tmp_path, 150))
    assert stage(source, tmp_path, Stop(170 + 1 + 90 - 40)) == whole  # two parts are kept
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"][-2:-1]
    assert line in said and "the download resumes after the 2 whole parts before it" in said


def test_a_data_set_that_changed_is_downloaded_anew(source, tmp_path, caplog):
    stopped_at(source, tmp_path, 150)
    other = write(tmp_path / "other", [text.swapcase() for text in ROWS])
    new = stage(other, tmp_path / "new")
    write(source, [text.swapcase() for text in ROWS])
    assert stage(source, tmp_path) == new
    assert f"{source}: the folder was changed since this download began" in caplog.text


def test_other_texts_at_the_saved_place_are_noticed(source, tmp_path, caplog):
    """The files have the sizes and times of before."""
    stopped_at(source, tmp_path, 150)
    times = {path: path.stat().st_mtime_ns for path in source.iterdir()}
    sizes = {path: path.stat().st_size for path in source.iterdir()}
    write(source, [text.swapcase() for text in ROWS])
    assert sizes == {path: path.stat().st_size for path in source.iterdir()}
    for path, time_ns in times.items():
        os.utime(path, ns=(time_ns, time_ns))
    stage(source, tmp_path)
    texts = pq.read_table(tmp_path / "far.parquet")["text"].to_pylist()
    assert texts[:170] == [text.swapcase() for text in ROWS[:170]]
    assert caplog.text.count("does not continue where the saved text ends") == 1


def test_parts_of_other_settings_are_named_and_not_used(source, tmp_path, caplog):
    stopped_at(source, tmp_path, 150)
    stage(source, tmp_path, key="other", texts=100)
    assert pq.read_table(tmp_path / "far.parquet").num_rows == 100 + 90
    assert f"{tmp_path}/.far.work/key: the parts in it belong to a download with" in caplog.text


def test_a_download_resumes_after_a_full_disk(source, tmp_path):
    whole = stage(source, tmp_path / "whole")
    size = (tmp_path / "whole/far.parquet").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))  # enough for each part
    try:
        with pytest.raises(OSError):
            stage(source, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "far.parquet").exists()
    assert stage(source, tmp_path, Stop(0)) == whole  # nothing is streamed again


# The job, in a process of its own, and a server that answers as the hub does


def job(folder: Path, endpoint: str, **spec) -> subprocess.Popen:
    settings = {"spec": spec_of(NAME, **spec), "group_characters": 2000, "first_pause_s": 0.05}
    hub_at = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "0"}
    words = [sys.executable, "-m", "tests.data.staging", str(folder), json.dumps(settings)]
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=os.environ | hub_at | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_download_resumes_in_its_revision_and_survives_a_broken_connection(
    source, tmp_path
):
    folder, (old, new) = tmp_path / "run", ("a" * 40, "b" * 40)
    folder.mkdir()
    reached, released, last = threading.Event(), threading.Event(), max(files_of(ROWS), key=by_name)

    def fault(sha: str, name: str, number: int) -> int | str | None:
        if name == last and number == 1:  # the process is killed here
            reached.set()
            released.wait(60)
        # A status that only we retry, then a connection that ends in the middle of the file.
        return {2: 520, 3: "break"}.get(number) if name == last else None

    commits = {old: files_of(ROWS)}
    with serving(Hub, **state(commits, old, fault)) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        first = job(folder, endpoint, texts=200)
        while not reached.wait(0.2):
            assert first.poll() is None, first.communicate()
        first.kill()
        first.wait()
        released.set()
        server.commits[new] = files_of([text.swapcase() for text in ROWS])
        server.head = new
        second = job(folder, endpoint, texts=200)
        said, _ = second.communicate(timeout=400)
    assert second.returncode == 0 and not said, said
    log = (folder / "far.log").read_text()
    assert f"resumed after 80 saved documents, in revision {old}" in log
    assert log.count("the connection failed") == log.count("; retry 1 of 12 in 0 s, with") == 1
    assert {sha for sha, _ in server.asked} == {old} and len(server.asked) > 4
    assert artifacts.digest(folder / "staged/far.parquet") == stage(source, tmp_path, texts=200)
    record = artifacts.read_record(folder / "staged/far.run.json")
    assert record["source"] == {"revision": old}


def by_name(name: str) -> str:
    return name if name.startswith("train") else ""


@pytest.mark.parametrize(
    ("answers", "retries"),
    [(False, 2), (True, 0)],
)
def test_a_hub_that_cannot_help_is_reported_in_one_line(tmp_path, answers, retries):
    """No server gets few tries, and a data set that does not exist gets none."""
    with serving(Hub, **state({}, "a" * 40)) as server:
        endpoint = f"http://127.0.0.1:{server.server_port if answers else 1}"
        failed = job(tmp_path, endpoint)
        said, _ = failed.communicate(timeout=400)
    line = "error: stage_corpus: corpora.far.name: 'somebody/texts' cannot be streamed ("
    assert failed.returncode == 1 and said.startswith(line) and said.count("\n") == 1, said
    assert (tmp_path / "far.log").read_text().count("the connection failed") == retries
