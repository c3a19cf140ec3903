"""Unchecked data: odd types, bytes, lengths and names become text, a counted gap or a clear error.

Memory stays bounded.
"""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pollination.core import artifacts
from pollination.core.datafiles import parquet, read_column
from pollination.core.sanitize import hidden
from pollination.data.corpora import read_documents
from pollination.data.tokens import encode, make_tokenizer
from pollination.models.checkpoint import load_tokenizer
from tests.conftest import ROOT, snakemake
from tests.data.test_corpora import build, texts
from tests.workflow.test_errors import left_behind, the_error, toy

ALL = {"validation": 0, "test": 0, "prompts": 0}
ODD = [
    "\x00",
    "a\x00b",
    "\x1b[2J\x1b[31mred",
    "\u202etxet\u2066",
    "\r",
    "a\u2028b\x85c\x0cd",
    "\ufeff",
    "<script>alert(1)</script>",
    "\ufffd",
    "🧪" * 99,
    "\u0301",
]


def kept(tmp_path: Path, name: str, **spec) -> tuple[list[str], dict]:
    """Build a corpus. Return (its texts, the skipped documents by reason)."""
    found = texts(build(tmp_path / "c", path=str(tmp_path / name), held_out=ALL, **spec))
    return found, artifacts.read_json(tmp_path / "c/corpus.json")["skipped"]


def test_control_characters_are_text_like_any_other(tmp_path):
    pq.write_table(pa.table({"text": ODD}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ODD))
    blank = [text for text in ODD if not text.strip()]
    for name in ("a.parquet", "a.jsonl"):
        assert kept(tmp_path, name) == (
            sorted(set(ODD) - set(blank)),
            {"shorter than min_characters": len(blank)},
        )
    make_tokenizer({"kind": "bpe", "vocab_size": 300}, tmp_path / "c", tmp_path / "t", 0)
    tokenizer = load_tokenizer(tmp_path / "t")
    assert [tokenizer.decode(ids) for ids in encode(ODD, tokenizer)] == ODD


NOT_TEXT = [
    [1],
    [1.5],
    [True],
    [b"x"],
    [["x"]],
    [{"a": "x"}],
    [None],
    pa.array([0], pa.date32()),
    pa.array([1], pa.decimal128(3)),
    pa.array([], pa.null()),
]


@pytest.mark.parametrize("number", range(len(NOT_TEXT)))
def test_a_column_of_another_type_is_named(tmp_path, number):
    pq.write_table(pa.table({"text": NOT_TEXT[number]}), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=r"column: 'text' holds .*, not text, in .*a.parquet.*columns are: text$"
    ):
        kept(tmp_path, "a.parquet")


def test_nulls_and_other_values_between_texts_are_counted_and_left_out(tmp_path):
    pq.write_table(
        pa.table({"text": ["one", None, "two", None, ""], "id": [7, 7, 7, 7, 7]}),
        tmp_path / "a.parquet",
    )
    assert kept(tmp_path, "a.parquet") == (
        ["one", "two"],
        {"without text": 2, "shorter than min_characters": 1},
    )
    rows = ["one", None, 1, 1.5, True, ["x"], {"y": "z"}, "two"]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": row, "id": 7}) for row in rows) + '\n{"text": NaN}\n'
    )
    assert kept(tmp_path, "a.jsonl") == (["one", "two"], {"without text": 7})


def test_equal_ids_and_equal_texts_stay_documents_of_their_own(tmp_path):
    pq.write_table(pa.table({"text": ["same"] * 30, "doc_id": ["0"] * 30}), tmp_path / "a.parquet")
    splits = build(tmp_path / "c", path=str(tmp_path / "a.parquet"))
    ids = [doc_id for documents in splits.values() for doc_id in documents]
    assert len(ids) == len(set(ids)) == 30 and texts(splits) == ["same"] * 30


def test_a_file_that_changes_its_type_within_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n7\n')
    with pytest.raises(ValueError, match="a.jsonl: line 2 is not a JSON object"):
        kept(tmp_path, "a.jsonl")
    (tmp_path / "a.jsonl").write_text(f'{{"text": {"[" * 100_000}\n')
    with pytest.raises(ValueError, match="a.jsonl: line 1 is not valid JSON"):
        kept(tmp_path, "a.jsonl")
    (tmp_path / "a.jsonl").write_text(f'{{"text": "x", "n": {"9" * 10_000}}}\n')
    with pytest.raises(ValueError, match="a.jsonl: line 1 is not valid JSON"):
        kept(tmp_path, "a.jsonl")


@pytest.mark.parametrize("end", ["parquet", "jsonl", "jsonl.gz", "txt"])
def test_changed_bytes_are_read_or_refused_in_one_line(tmp_path, end):
    path, lines = tmp_path / f"a.{end}", [f"document {n} é 日本" for n in range(50)]
    table = "\n".join(json.dumps({"text": line}) for line in lines).encode()
    if end == "parquet":
        pq.write_table(pa.table({"text": lines}), path)
    else:
        path.write_bytes(
            {"jsonl": table, "jsonl.gz": gzip.compress(table), "txt": "\n".join(lines).encode()}[
                end
            ]
        )
    whole, outcomes = path.read_bytes(), set()
    for number in range(60):
        rng, content = random.Random(number), bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        cut = rng.choice([len(content), len(content), rng.randrange(len(content))])
        path.write_bytes(content[:cut])
        try:
            outcomes.add(len(kept(tmp_path, path.name, txt_documents="line")[0]) > 0)
        except ValueError as error:
            outcomes.add("refused")
            assert "\n" not in str(error) and (
                path.name in str(error) or "corpus is empty" in str(error)
            ), error
    assert "refused" in outcomes


def test_rows_are_read_at_once_as_far_as_they_fit(tmp_path, monkeypatch):
    rows = [str(n) * 1000 for n in range(600)]
    pq.write_table(
        pa.table({"id": range(600), "text": rows}),
        tmp_path / "a.parquet",
        use_dictionary=False,
        compression="NONE",
    )
    monkeypatch.setattr(parquet, "BATCH_BYTES", 20_000)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert (
            5 <= parquet.batch_rows(file.metadata, ("text",)) <= 10
            and parquet.batch_rows(file.metadata, ("id",)) == 512
        )
    assert list(read_column(tmp_path / "a.parquet", "text")) == rows


def test_a_document_longer_than_a_column_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pollination.core.datafiles.text.LONGEST_BYTES", 1000)
    for name, unit, words in (
        ("a.txt", "line", "line 2 exceeds"),
        ("a.txt", "file", "Set txt_documents: paragraph or line"),
        ("a.jsonl", "line", "line 2 exceeds"),
    ):
        (tmp_path / name).write_text('{"text": "x"}\n' + "y" * 1001)
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            kept(tmp_path, name, txt_documents=unit)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"0" * 10_000_000))
    with pytest.raises(ValueError, match="line 1 exceeds 1,000 bytes"):
        kept(tmp_path, "bomb.jsonl.gz")


PEAK = """
import resource, sys
from pollination.data.corpora import build_corpus
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build_corpus({"kind": "files", "path": sys.argv[1], "txt_documents": "line"}, 0, sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["txt", "jsonl", "parquet"])
def test_a_line_of_100_mb_takes_at_most_twelve_times_its_size_and_many_long_rows_less(
    tmp_path, end
):
    path, size = tmp_path / f"a.{end}", 100_000_000
    if end == "parquet":  # 300 rows of 1 MB
        with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as file:
            for n in range(3):
                file.write_table(
                    pa.table({"text": [f"{n} {m} " + "word " * 200_000 for m in range(100)]})
                )
    else:
        with open(path, "w") as file:
            file.write('{"text": "' if end == "jsonl" else "")
            for _ in range(size // 100):
                file.write("x" * 99 + " ")
            file.write('"}\n' + '{"text": "short"}\n' * 20)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), str(tmp_path / "c")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < (5 if end == "parquet" else 12) * size, (
        f"{int(done.stdout) / size:.1f} times"
    )
    documents = [
        len(text)
        for split in ("train", "validation", "test", "prompts")
        for _, text in read_documents(tmp_path / "c", split)
    ]
    # each long document leaves out the passage after its held-out passages
    assert sum(documents) > 0.99 * (3 * size if end == "parquet" else size)


def test_names_in_data_do_not_reach_the_terminal_or_the_log_raw(tmp_path):
    pq.write_table(
        pa.table({"\x1b[31mred\u202e\nerror: all is well": ["x"]}), tmp_path / "a.parquet"
    )
    config = toy(tmp_path, corpora__text={"kind": "files", "path": str(tmp_path / "a.parquet")})
    output = snakemake(
        tmp_path, "--", "results/toy/corpora/text/train.parquet", configfile=config, ok=False
    )
    line, log = the_error(output), (tmp_path / "results/toy/logs/corpora/text.log").read_text()
    assert (
        "corpora.text.column: 'text' is not a column of" in line and "\\x1b[31mred\\u202e" in line
    )
    assert not any(hidden(c) and c != "\n" for c in line + log) and left_behind(tmp_path) == []
