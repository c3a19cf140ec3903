"""The one reader of users' files: formats, compressions, encodings, and what it refuses by name."""

import gzip
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pollination.analysis.fingerprint.counting import read_outputs
from pollination.analysis.fingerprint.results import read_results
from pollination.core import artifacts, datafiles
from pollination.data.corpora import build_corpus
from pollination.data.download import _remove_leftovers
from pollination.data.files import read_files, resolve_files
from pollination.evaluation.template_data import read_data
from pollination.plan.config.catalogue import read_catalogue
from pollination.plan.config.paths import SURVEY_ENDINGS, data_files, find_data
from tests.conftest import ROOT

ROWS = [("a", "1", "the lantern, é\n日本"), ("b", "2", 'says "hi"'), ("c", "3", "end")]
COLUMNS = ("model", "prompt_id", "output")


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def written(form: str) -> str:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    quoted = [[f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in row] for row in ROWS]
    return {
        "jsonl": "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "ndjson": "".join(json.dumps(row) + "\n" for row in rows),
        "json": json.dumps(rows, indent=1, ensure_ascii=False),
        "csv": "\n".join(";".join(row) for row in [COLUMNS, *quoted]),
        "tsv": "\r\n".join("\t".join(row) for row in [COLUMNS, *quoted]),
    }[form]


@pytest.mark.parametrize("form", ["jsonl", "ndjson", "json", "csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".GZ", gzip.compress), (".zst", zstd)])
def test_tables_of_all_formats_give_the_same_rows_everywhere(tmp_path, form, encoding, end, pack):
    path = tmp_path / f"Out.{form.upper()}{end}"
    path.write_bytes(pack(written(form).encode(encoding)))
    assert list(read_outputs(path)) == ROWS
    documents = read_files({"path": str(tmp_path), "column": "output"})
    assert [text for _, text in documents] == [text for *_, text in ROWS]
    assert read_data(path, "data.test")["output"].to_pylist() == [text for *_, text in ROWS]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_parquet_and_txt_are_read_packed_and_with_any_type_of_text(tmp_path, pack):
    end = {bytes: "", gzip.compress: ".gz", zstd: ".zst"}[pack]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        pq.write_table(pa.table({"text": pa.array(["x", None, "y"], kind)}), tmp_path / "plain")
        path = tmp_path / f"A.Parquet{end}"
        path.write_bytes(pack((tmp_path / "plain").read_bytes()))
        assert list(datafiles.read_column(path, "text")) == ["x", None, "y"]
    for text, unit, documents in (
        ("one\r\ntwo\n\n", "line", ["one", "two"]),
        ("one\rtwo\rthree", "line", ["one", "two", "three"]),
        ("a\nb\n \n\nc", "paragraph", ["a\nb", "c"]),
    ):
        path = tmp_path / f"a.TXT{end}"
        path.write_bytes(pack(text.encode("utf-16")))
        spec = {"path": str(path), "txt_documents": unit}
        assert [document for _, document in read_files(spec)] == documents


def test_a_key_that_utf_8_cannot_hold_names_its_file(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "x", "\\ud800": 1}\n')
    with pytest.raises(ValueError, match=r"questions.jsonl: column .* cannot be stored"):
        datafiles.read_table(path)


def test_models_results_and_stop_words_are_read_by_the_same_reader(tmp_path):
    rows = [("a", "one", "2025-01"), ("b", "two", "2025-02"), ("c", "two", "2025-03")]
    lines = "\n".join(";".join(row) for row in [("model", "family", "release"), *rows])
    (tmp_path / "models.CSV").write_bytes(lines.encode("utf-16"))
    assert list(read_catalogue(tmp_path / "models.CSV")) == ["a", "b", "c"]
    result = [{"model_name": "a", "top_bigrams": [{"ngram": "x y", "frequency": 2}]}]
    path = tmp_path / "r.JSON.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(result).encode(), mtime=0))
    assert data_files(str(tmp_path), SURVEY_ENDINGS["results"]) == [str(path)]
    assert read_results(path, logging.getLogger())[0]["model_name"] == "a"


LINE = b'{"text": "x"}\n'
REFUSED = [
    ("a.jsonl", LINE.decode().encode("utf-16-le"), "UTF-16 without a byte-order mark"),
    ("a.txt", "你好 世界\n".encode("utf-16-le"), "line 1 holds a NUL byte"),
    ("a.txt", "привет мир".encode("utf-16-be"), "UTF-16 without a byte-order mark"),
    ("a.csv", "text\nx".encode("utf-32"), "is UTF-32"),
    ("a.jsonl", LINE.decode().encode("utf-16") + b"\0", "line 2 is not valid UTF-16"),
    ("a.jsonl", LINE + b'{"text": "\xff"}\n', "line 2 is not valid UTF-8 at its byte 10"),
    ("a.json", b"[" + LINE + b',{"text": "\xff"}]', "line 2 is not valid UTF-8"),
    ("a.txt", b"good\n" + bytes(99), "line 2 holds a NUL byte"),
    ("a.jsonl", gzip.compress(LINE, mtime=0), "its content is gzip, which its name does not say"),
    ("a.jsonl.gz", LINE, "not a readable gzip file"),
    (
        "a.jsonl.zst",
        gzip.compress(LINE, mtime=0),
        r"not a readable zstd file \(its content is gzip\)",
    ),
    ("a.jsonl.gz", gzip.compress(LINE * 99, mtime=0)[:-9], "Truncated"),
    ("a.jsonl.zst", zstd(LINE * 99)[:-3], "Truncated"),
    ("a.jsonl.gz", gzip.compress(gzip.compress(LINE, mtime=0), mtime=0), "is gzip again"),
    ("a.csv", b"PK\x03\x04 xlsx", "its content is zip"),
    ("a.jsonl", LINE + b'{"text": "x", "text": "y"}', "line 2 has the key 'text' twice"),
    ("a.json", b'[{"text": "x"}, {"text": "y"', "row 2 is not valid JSON"),
    ("a.json", b'[{"text": "x"}] [', "more text after the end"),
    ("a.json", b'[{"text": "x"},' + b'{"text":' + b"[" * 99_999, "row 2 is not valid JSON"),
    ("a.json", b'{"data": [{"text": "x"}]}', "no row of .* has this key; .* keys data"),
    ("a.json", b'[{"text": "x"}, 5]', "row 2 is not a JSON object"),
    ("a.csv", b"id,text\n1,a\n2,b,c\n", "line 3 has 3 fields, but the header has 2"),
    ("a.csv", b'id,text\n1,"a\nb"\n2,"c\n', "line 4 is not valid csv"),
    ("a.csv", b"text,text\n1,a\n", "has 2 columns 'text'"),
    ("a.csv", b"id,body\n1,a\n", "'text' is not a column of .*; allowed: id, body"),
    ("a.csv", b"\n\n", "its first line must name the columns"),
    ("a.jsonl", b"", "is empty"),
    ("a.txt.bz2", b"BZh", "has another ending"),
]


@pytest.mark.parametrize(("name", "data", "message"), REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line_with_its_place(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_files({"path": str(path)}))
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"model": "a", "prompt_id": 1}', "line 1 has no key 'output'"),
        ('{"model": "\\ud800", "prompt_id": 1, "output": "x"}', "line 1: model .* UTF-8"),
        ('{"model": "a", "prompt_id": 1, "output": "\\ud800"}', "line 1: output .* UTF-8"),
        ('{"model": "a", "prompt_id": NaN, "output": "x"}', "prompt_id 'nan' is neither"),
        ('{"model": "a", "prompt_id": [1], "output": "x"}', "is neither a number nor text"),
    ],
)
def test_outputs_need_a_name_a_prompt_and_text(tmp_path, row, message):
    (tmp_path / "a.jsonl").write_text(row)
    with pytest.raises(ValueError, match=message):
        list(read_outputs(tmp_path / "a.jsonl"))


def test_concatenated_members_and_a_long_row_are_read_whole(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINE, mtime=0) * 3)
    (tmp_path / "b.jsonl.zst").write_bytes(zstd(LINE) * 2)
    long = ["é" * 300_000, 'quote " and \\ ' * 9999]
    (tmp_path / "c.json").write_text(json.dumps([{"text": text} for text in long]))
    assert [text for _, text in read_files({"path": str(tmp_path)})] == ["x"] * 5 + long


def test_a_folder_lists_what_it_passes_over(tmp_path):
    folder = tmp_path / "data"
    (folder / ".git").mkdir(parents=True)
    for name in ("B.JSONL", "c.json", "deep.jsonl/d.txt", "é.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text\n")
    for name in ("notes.md", "x.bz2", "._B.JSONL", ".git/config.txt"):
        (folder / name).write_text("x")
    (folder / "none.txt").touch()
    os.mkfifo(folder / "pipe.txt")
    (folder / "same.csv").symlink_to("é.csv")
    (folder / "gone.csv").symlink_to("nothing.csv")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    found = find_data([str(folder), f"{folder}/../data/c.json"])
    names = [os.path.relpath(path, folder) for path in found.files]
    assert names == ["B.JSONL", "c.json", "deep.jsonl/d.txt", "same.csv"]
    assert {os.path.relpath(path, folder): why for path, why in found.passed_over.items()} == {
        ".git": "hidden folder",
        "._B.JSONL": "hidden file",
        "gone.csv": "broken link",
        "link": "link to a folder",
        "none.txt": "empty",
        "notes.md": "unknown ending",
        "pipe.txt": "no regular file",
        "x.bz2": "unknown ending",
        "é.csv": f"the same file as {folder}/same.csv",
    }
    with pytest.raises(ValueError, match=r"no regular file"):
        resolve_files(str(folder / "pipe.txt"))
    (folder / "c.json.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match="seem to be the same data, plain and compressed"):
        data_files(str(folder))


def test_a_corpus_records_what_its_folder_passes_over(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("\n".join(f"text {n}" for n in range(30)))
    (tmp_path / "data/b.docx").write_text("x")
    spec = {"kind": "files", "path": str(tmp_path / "data"), "txt_documents": "line"}
    build_corpus(spec, 0, tmp_path / "c")
    about = artifacts.read_json(tmp_path / "c/corpus.json")
    assert about["passed_over"] == {str(tmp_path / "data/b.docx"): "unknown ending"}
    build_corpus(spec | {"path": str(tmp_path / "data/a.txt")}, 0, tmp_path / "d")
    assert "passed_over" not in artifacts.read_json(tmp_path / "d/corpus.json")


PEAK = """
import resource, sys
import pyarrow.parquet
from pollination.core.datafiles import read_column
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read_column(sys.argv[1], "text"))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""


@pytest.mark.parametrize("form", ["json.gz", "parquet", "jsonl.zst"])
def test_memory_is_bounded_by_a_batch_and_not_by_the_file(tmp_path, form):
    """200 MB of text in one line of JSON, or in one row group."""
    path, texts = tmp_path / f"a.{form}", [f"{n} " * 2000 for n in range(18_000)]
    if form == "parquet":
        table = pa.table({"text": texts})
        pq.write_table(
            table, path, row_group_size=len(texts), compression="NONE", use_dictionary=False
        )
    else:
        rows = [json.dumps({"text": text}) for text in texts]
        data = (f"[{','.join(rows)}]" if form == "json.gz" else "\n".join(rows)).encode()
        path.write_bytes(gzip.compress(data, 1, mtime=0) if form == "json.gz" else zstd(data))
    command = [sys.executable, "-c", PEAK, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count, peak = map(int, done.stdout.split())
    assert count == len(texts) and peak < 100


def test_leftovers_of_killed_downloads_are_removed_and_those_under_way_are_kept(tmp_path):
    for name in (".mmlu.abcd1234", ".mmlu.held_567", ".other.abcd1234", "mmlu"):
        (tmp_path / name / "source").mkdir(parents=True)
    code = (
        "import sys, time; from pollination.data.download import _held\n"
        "with _held(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".mmlu.held_567")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        _remove_leftovers("mmlu", tmp_path, said.append)
        holder.communicate("")
    assert len(said) == 1 and ".mmlu.abcd1234" in said[0]
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {".mmlu.held_567", ".other.abcd1234", "mmlu"}
    assert Path(tmp_path / "mmlu/source").is_dir()
