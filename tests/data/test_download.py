"""`pollination data`: downloads from Git, archives and the hub, checked against their digests."""

import csv
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import pyarrow.parquet as pq
import pytest

from pollination import ROOT, cli
from pollination.cli.data import FOLDER
from pollination.data.conversion import CONVERSIONS
from pollination.data.download import download
from pollination.plan.config.loading import read_yaml
from pollination.plan.datasets import dataset_of, datasets, remedy
from tests.conftest import shared


def silent(_: str) -> None:
    pass


def git(folder, *words):
    result = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


@pytest.fixture
def books(tmp_path, monkeypatch):
    """The table's openstax entry, with a local Git repository of one module as its source."""
    book = tmp_path / "book"
    module = book / "modules" / "m1" / "index.cnxml"
    module.parent.mkdir(parents=True)
    formula = '<m:math xmlns:m="http://www.w3.org/1998/Math/MathML"><m:mi>x</m:mi></m:math>'
    module.write_text(
        '<document xmlns="http://cnx.rice.edu/cnxml"><title>Ants</title><content>'
        f"<para>{'Ants live in colonies. ' * 5}</para><para>Short.</para>"
        f"<para>{'They count steps. ' * 6}{formula}</para></content></document>"
    )
    (book / "large.bin").write_bytes(b"not needed")
    git(tmp_path, "init", "--quiet", "book")
    git(book, "config", "uploadpack.allowFilter", "true")
    git(book, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(book, "add", ".")
    git(book, "commit", "--quiet", "-m", "one")
    source = {"url": f"file://{book}", "commit": git(book, "rev-parse", "HEAD"), "needs": "modules"}
    monkeypatch.setitem(datasets(), "openstax", datasets()["openstax"] | {"git": [source]})
    return source


def test_a_commit_is_downloaded_once_and_compared_with_its_record(books, tmp_path):
    folder = tmp_path / "data"
    assert download("openstax", folder, silent) == "downloaded"
    file = folder / "openstax" / "train.parquet"
    (row,) = pq.read_table(file).to_pylist()
    assert row["text"] == "Ants\n\n" + " ".join(["Ants live in colonies."] * 5)
    assert (row["id"], row["source"]) == ("book/m1", "book")
    record = json.loads((folder / "openstax.json").read_text())
    assert record["files"] == {
        "openstax/train.parquet": hashlib.sha256(file.read_bytes()).hexdigest()
    }
    assert record["source"] == [books] and record["licence"] == "CC BY 4.0"
    assert download("openstax", folder, silent) == "complete"
    file.write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"train.parquet: the file was changed since its download"):
        download("openstax", folder, silent)


def test_a_failed_download_leaves_nothing_and_names_the_source(books, tmp_path):
    books["commit"] = "0" * 40
    folder = tmp_path / "data"
    with pytest.raises(ValueError, match=f"openstax: {books['url']} cannot be downloaded"):
        download("openstax", folder, silent)
    assert list(folder.iterdir()) == []


def test_files_of_the_users_own_are_left_alone(books, tmp_path):
    file = tmp_path / "data" / "openstax" / "train.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    assert download("openstax", tmp_path / "data", silent) == "present"
    assert file.read_bytes() == b"mine"


def test_other_files_of_the_user_are_never_replaced(tmp_path):
    """Some files of a data set are there: the download would overwrite one."""
    file = tmp_path / "social_iqa" / "train.parquet"
    file.parent.mkdir()
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match="other files of 'social_iqa' are missing. Move it away"):
        download("social_iqa", tmp_path, silent)
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"files": {}, "source": []}'])
def test_a_damaged_record_is_named(books, tmp_path, content):
    download("openstax", tmp_path, silent)
    record = tmp_path / "openstax.json"
    record.write_text(content)
    with pytest.raises(ValueError, match=r"openstax.json: .*Delete .*openstax.json and the files"):
        download("openstax", tmp_path, silent)


def test_another_source_is_noticed(books, tmp_path):
    download("openstax", tmp_path, silent)
    books["commit"] = "0" * 40
    with pytest.raises(ValueError, match="'openstax' now has another source"):
        download("openstax", tmp_path, silent)


def test_a_repository_of_the_user_is_left_alone(books, tmp_path, monkeypatch):
    """A hook of Git sets GIT_DIR."""
    mine = tmp_path / "mine"
    mine.mkdir()
    git(mine, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(mine / ".git"))
    assert download("openstax", tmp_path / "data", silent) == "downloaded"
    monkeypatch.delenv("GIT_DIR")
    assert git(mine, "remote") == "" and git(mine, "status", "--porcelain") == ""


def test_the_hub_that_is_not_there_is_an_error_of_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pollination", "data", "stories15M", "--into", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "0"},
    )
    assert result.returncode == 2
    assert "Xenova/llama2.c-stories15M cannot be downloaded" in result.stderr.splitlines()[-1]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the address of a local server that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_archive_that_differs_from_its_digest_is_refused(served, tmp_path, monkeypatch):
    folder, address = served
    rows = [{"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "c"}]
    with zipfile.ZipFile(folder / "siqa.zip", "w") as archive:
        for split in ("train", "dev"):
            archive.writestr(f"x/{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            archive.writestr(f"x/{split}-labels.lst", "2\n")
    right = hashlib.sha256((folder / "siqa.zip").read_bytes()).hexdigest()
    entry = datasets()["social_iqa"]

    def source(sha256):
        archive = {"url": f"{address}/siqa.zip", "sha256": sha256}
        monkeypatch.setitem(datasets(), "social_iqa", entry | {"archive": archive})

    source("0" * 64)
    with pytest.raises(ValueError, match=r"siqa.zip differs from its SHA-256 0000"):
        download("social_iqa", tmp_path / "data", silent)
    assert list((tmp_path / "data").iterdir()) == []
    source(right)
    assert download("social_iqa", tmp_path / "data", silent) == "downloaded"
    table = pq.read_table(tmp_path / "data" / "social_iqa" / "validation.parquet")
    assert table.to_pylist() == [rows[0] | {"label": "2"}]


def test_an_absent_archive_is_an_error_of_one_line(served, tmp_path, monkeypatch):
    archive = {"url": f"{served[1]}/absent.zip", "sha256": "0" * 64}
    monkeypatch.setitem(datasets(), "mathqa", datasets()["mathqa"] | {"archive": archive})
    with pytest.raises(ValueError, match=r"mathqa: .*absent.zip cannot be downloaded \(404") as got:
        download("mathqa", tmp_path / "data", silent)
    assert "\n" not in str(got.value)


HUB = """
import hashlib, http.server, json, os, sys
files = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]",
         "tokenizer_config.json": b"{}"}
stated = sys.argv[1].encode()
class Hub(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def answer(self, body, kind="application/json", **headers):
        self.send_response(200)
        headers |= {"Content-Type": kind, "Content-Length": str(len(body))}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)
    def do_HEAD(self): self.do_GET()
    def do_GET(self):
        if self.path.startswith("/api/"):
            return self.answer(json.dumps({"id": "m", "sha": "c" * 40}).encode())
        name = self.path.rsplit("/", 1)[1]
        self.answer(files[name], "text/plain",
                    **{"X-Repo-Commit": "c" * 40, "ETag": '"%s"' % name})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        infos = []
        for name, body in files.items():
            blob = b"blob %d" % len(body) + bytes(1) + body
            info = {"type": "file", "path": name, "size": len(body),
                    "oid": hashlib.sha1(blob).hexdigest()}
            if name == "model.safetensors":
                info["lfs"] = {"size": len(body), "oid": hashlib.sha256(stated).hexdigest(),
                               "pointerSize": 1}
            infos.append(info)
        self.answer(json.dumps(infos).encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("stated", ["weights", "other"])
def test_a_model_of_the_hub_is_compared_with_the_digests_that_the_hub_states(tmp_path, stated):
    server = subprocess.Popen(
        [sys.executable, "-c", HUB, stated], stdout=subprocess.PIPE, text=True
    )
    port = server.stdout.readline().strip()
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pollination", "data", "stories15M", "--into", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ
            | {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "0"}
            | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"},
        )
    finally:
        server.kill()
        server.wait()
    folder = tmp_path / "models" / "stories15M"
    if stated == "weights":
        assert result.returncode == 0, result.stderr
        assert sorted(path.name for path in folder.iterdir()) == [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    else:
        assert result.returncode == 2
        assert "model.safetensors of Xenova/llama2.c-stories15M differs" in result.stderr
        assert not folder.exists()


def test_the_lines_of_wikitext_2_are_the_rows_of_the_hubs_table(tmp_path):
    """The source text is rebuilt from the rows; its Git blob is the one of the pinned commit."""
    blob = {
        "train": "2d84b35af79e411d73ea7cae83c73964c6ac83b4",
        "valid": "eec944eb2d9e46061cd34a6913528797db6842fc",
        "test": "6f3fc88e4cd88456ea892971f9f12243e8428624",
    }
    folder = tmp_path / "examples" / "word_language_model" / "data" / "wikitext-2"
    folder.mkdir(parents=True)
    tables = {}
    for file, digest in blob.items():
        split = "validation" if file == "valid" else file
        rows = tables[split] = pq.read_table(shared(f"data/wikitext-2/{split}.parquet"))
        text = "".join(line or " \n" for line in rows["text"].to_pylist()).encode()
        assert hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest() == digest
        (folder / f"{file}.txt").write_bytes(text)
    CONVERSIONS["lines"](tmp_path, tmp_path / "out")
    for split, rows in tables.items():
        assert pq.read_table(tmp_path / "out" / "wikitext-2" / f"{split}.parquet").equals(rows)


def test_benchmark_archives_become_the_columns_of_the_hub(tmp_path):
    rows = {
        name: {
            split: pq.read_table(shared(f"data/{name}/{split}.parquet")).slice(0, 300).to_pylist()
            for split in splits
        }
        for name, splits in {
            "mmlu": ("dev", "validation", "test"),
            "winogrande": ("train", "validation"),
            "mathqa": ("validation", "test"),
            "social_iqa": ("train", "validation"),
        }.items()
    }
    source = {name: tmp_path / "source" / name for name in rows}
    for split, short in {"dev": "dev", "validation": "val", "test": "test"}.items():
        folder = source["mmlu"] / "data" / short
        folder.mkdir(parents=True)
        for row in rows["mmlu"][split]:
            with open(folder / f"{row['subject']}_{short}.csv", "a", newline="") as file:
                answer = "ABCD"[row["answer"]]
                csv.writer(file).writerow([row["question"], *row["choices"], answer])
    for name, dev in {"winogrande": "train_xl", "social_iqa": "train"}.items():
        source[name].mkdir()
        for split, file in {"train": dev, "validation": "dev"}.items():
            table = [dict(row) for row in rows[name][split]]
            if name == "social_iqa":
                labels = "".join(f"{row.pop('label')}\n" for row in table)
                (source[name] / f"{file}-labels.lst").write_text(labels)
            text = "".join(json.dumps(row) + "\n" for row in table)
            (source[name] / f"{file}.jsonl").write_text(text)
    source["mathqa"].mkdir()
    rows["mathqa"]["train"] = rows["mathqa"]["test"]
    for split, file in {"train": "train", "validation": "dev", "test": "test"}.items():
        (source["mathqa"] / f"{file}.json").write_text(json.dumps(rows["mathqa"][split]))
    for name, splits in rows.items():
        CONVERSIONS[datasets()[name]["convert"]](source[name], tmp_path / "out")
        for split, expected in splits.items():
            table = pq.read_table(tmp_path / "out" / name / f"{split}.parquet")
            assert table.to_pylist() == expected, (name, split)


def test_each_data_set_names_a_source_with_a_digest_and_its_licence():
    for name, entry in datasets().items():
        assert entry["licence"] and entry["download_mb"] > 0 and entry["convert"] in CONVERSIONS
        for source in entry.get("git", []):
            assert len(source["commit"]) == 40, name
        if "archive" in entry:
            assert len(entry["archive"]["sha256"]) == 64, name


def test_each_file_of_the_presets_data_folder_can_be_downloaded():
    found = 0
    for path in [*ROOT.glob("config/real/*.yaml"), *ROOT.glob("config/paper/*.yaml")]:
        texts = [read_yaml(path)]
        while texts:
            value = texts.pop()
            if isinstance(value, dict | list):
                texts += value.values() if isinstance(value, dict) else value
            elif isinstance(value, str) and "{data}" in value:
                found += 1
                assert dataset_of(value, "{data}"), (path, value)
                assert read_yaml(path)["data"] == FOLDER
    assert found > 15


def test_the_remedy_for_a_missing_file_is_a_command(tmp_path, capsys, monkeypatch):
    assert remedy("data/mmlu/dev.parquet", "data").startswith("Run `pollination data mmlu`, or")
    assert "data mmlu --into /d`" in remedy("/d/mmlu/*.parquet", "/d")
    assert remedy("texts/a.txt", "data").startswith("Correct the path")
    shutil.copytree(ROOT / "config" / "real", tmp_path / "config" / "real")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "--configfile", "config/real/openstax.yaml"]) == 1
    said = capsys.readouterr()
    assert "corpora.openstax.path" in said.out + said.err
    assert "Run `pollination data openstax`" in said.out + said.err
    assert "Run `pollination data mmlu`" in said.out + said.err


def test_the_command_lists_what_is_there_and_refuses_an_unknown_name(tmp_path, capsys):
    (tmp_path / "slop_profile_results.json").write_text("{}")
    assert cli.main(["data", "--into", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(datasets())
    state = {line.split()[0]: f" in {tmp_path}" and " yes " in line for line in lines[1:]}
    assert [name for name, there in state.items() if there] == ["slop_profile"]
    assert cli.main(["data", "nonsense"]) == 2
    assert "'nonsense' is not a data set; allowed: openstax" in capsys.readouterr().err
