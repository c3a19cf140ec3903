"""Corpora: stable splits, all kinds of files, streaming, prompts and the check against benchmarks.

Errors are clear and leave no files.
"""

import gzip
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pollination.core import artifacts
from pollination.data.corpora import (
    build_corpus,
    first_sentences,
    forecast,
    overlap,
    prompts,
    read_documents,
)
from pollination.data.hub import stage_hub
from pollination.data.microworld import World
from pollination.data.passages import cut
from pollination.data.vocabulary import count_words, vocabulary
from pollination.plan.plan import Plan
from tests.conftest import shared
from tests.data.staging import Stop

SPLITS = ("train", "validation", "test", "prompts")


def build(
    folder: Path, seed: int = 100, sources: tuple[Path, ...] = (), **spec
) -> dict[str, dict[str, str]]:
    """Build a corpus. Return the documents of each split."""
    build_corpus({"kind": "files", **spec}, seed, folder, sources)
    return {split: dict(read_documents(folder, split)) for split in SPLITS}


def texts(splits: dict[str, dict[str, str]]) -> list[str]:
    return sorted(text for documents in splits.values() for text in documents.values())


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def numbered(count: int) -> list[str]:
    return [f"This is document number {n} ." for n in range(count)]


# Splits


def test_splits_are_disjoint_whole_and_of_about_the_right_size(tmp_path):
    path = write_lines(tmp_path / "a.txt", numbered(4000))
    splits = build(
        tmp_path / "c",
        path=str(path),
        txt_documents="line",
        held_out={"validation": 0.1, "test": 0.2, "prompts": 0},
    )
    assert texts(splits) == sorted(numbered(4000))
    assert len({doc_id for documents in splits.values() for doc_id in documents}) == 4000
    assert (
        350 < len(splits["validation"]) < 450
        and 720 < len(splits["test"]) < 880
        and not splits["prompts"]
    )
    about = artifacts.read_json(tmp_path / "c" / "corpus.json")
    assert about["documents"] == {split: len(documents) for split, documents in splits.items()}
    assert about["characters"]["train"] == sum(map(len, splits["train"].values()))


def test_more_documents_do_not_move_the_others_and_another_seed_does(tmp_path):
    path = write_lines(tmp_path / "a.txt", numbered(500))
    few = build(tmp_path / "few", path=str(path), txt_documents="line")
    write_lines(path, numbered(900))
    write_lines(tmp_path / "0.txt", numbered(300))
    many = build(tmp_path / "many", path=[str(tmp_path / "0.txt"), str(path)], txt_documents="line")
    assert all(few[split].items() <= many[split].items() for split in SPLITS)
    assert (
        build(tmp_path / "other", seed=1, path=str(path), txt_documents="line")["test"].keys()
        != many["test"].keys()
    )


def test_a_rerun_writes_the_same_bytes(tmp_path):
    path = write_lines(tmp_path / "a.txt", numbered(300))
    for name in ("one", "two"):
        build(tmp_path / name, path=str(path), txt_documents="line")
    for file in (tmp_path / "one").iterdir():
        assert artifacts.digest(file) == artifacts.digest(tmp_path / "two" / file.name)


@pytest.mark.parametrize("count", [5, 6, 20])
def test_a_small_corpus_fills_every_split_the_same_way_each_time(tmp_path, count):
    path = write_lines(tmp_path / "a.txt", numbered(count))
    splits = build(tmp_path / "c", path=str(path), txt_documents="line")
    assert all(splits.values()) and texts(splits) == sorted(numbered(count))
    assert build(tmp_path / "again", path=str(path), txt_documents="line") == splits


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the corpus is empty"),
        (["", "  "], "the corpus is empty"),
        (numbered(4), "4 documents cannot fill .* allowed: 5 or more"),
    ],
)
def test_too_few_documents_are_refused_and_nothing_is_left_behind(tmp_path, lines, message):
    path = write_lines(tmp_path / "a.txt", lines)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "c", path=str(path), txt_documents="line")
    assert not list((tmp_path / "c").iterdir())


def test_held_out_shares_that_leave_nothing_to_train_on_are_refused(tmp_path):
    path = write_lines(tmp_path / "a.txt", numbered(10))
    with pytest.raises(ValueError, match="corpora.c.held_out: .* sum to 1.2"):
        build(
            tmp_path / "c",
            path=str(path),
            txt_documents="line",
            held_out={"validation": 0.6, "test": 0.6, "prompts": 0},
        )


def test_a_training_split_without_usable_text_is_refused(tmp_path):
    splits = {split: str(tmp_path / f"{split}.txt") for split in ("train", "validation", "test")}
    for split, path in splits.items():
        write_lines(Path(path), ["  "] if split == "train" else numbered(3))
    with pytest.raises(ValueError, match="corpora.c.splits.train: .*train.txt' holds no usable"):
        build(tmp_path / "c", splits=splits, txt_documents="line")
    assert not list((tmp_path / "c").iterdir())


def test_short_documents_are_dropped_and_counted_and_max_documents_bounds_the_rest(tmp_path):
    path = write_lines(tmp_path / "a.txt", [*numbered(30), "short"] * 2)
    splits = build(
        tmp_path / "c", path=str(path), txt_documents="line", min_characters=10, max_documents=40
    )
    assert sum(map(len, splits.values())) == 40 and "short" not in texts(splits)
    assert artifacts.read_json(tmp_path / "c" / "corpus.json")["skipped"] == {
        "shorter than min_characters": 1
    }


# Files


def test_every_kind_of_file_gives_its_documents(tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    pq.write_table(
        pa.table({"body": pa.array(["p0 é", "p1", None]).dictionary_encode()}), data / "a.parquet"
    )
    rows = [{"body": "j0"}, {"body": 7}, {"other": "x"}, {"body": "\ud800"}, {"body": "j1\n日本"}]
    (data / "b.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    (data / "deep" / "b.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"body": "z0"}).encode() + b"\r\n")
    )
    (data / "c.txt").write_bytes("\ufefft0 line one\r\nt0 line two\r\n\r\n \r\nt1\r\n".encode())
    held_out = {"validation": 0, "test": 0, "prompts": 0}
    splits = build(
        tmp_path / "c", path=str(data), column="body", txt_documents="paragraph", held_out=held_out
    )
    assert texts(splits) == sorted(
        ["p0 é", "p1", "j0", "j1\n日本", "z0", "t0 line one\nt0 line two", "t1"]
    )
    assert artifacts.read_json(tmp_path / "c" / "corpus.json")["skipped"] == {"without text": 4}
    lines = build(tmp_path / "d", path=str(data / "*.txt"), txt_documents="line", held_out=held_out)
    assert texts(lines) == ["t0 line one", "t0 line two", "t1"]
    whole = build(
        tmp_path / "e", path=[str(data / "c.txt")], txt_documents="file", held_out=held_out
    )
    assert texts(whole) == ["t0 line one\nt0 line two\n\n \nt1\n"]


def test_files_of_one_name_in_two_folders_keep_their_documents_apart(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "a.txt", numbered(10))
    splits = build(
        tmp_path / "c", path=[str(tmp_path / "x"), str(tmp_path / "y")], txt_documents="line"
    )
    ids = [doc_id for documents in splits.values() for doc_id in documents]
    assert (
        len(set(ids)) == 20
        and "x/a.txt:0" in ids
        and not any(str(tmp_path) in doc_id for doc_id in ids)
    )


def bad_utf8_parquet(path: Path) -> None:
    array = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\5\0\0\0"), pa.py_buffer(b"okab\xff")]
    )
    pq.write_table(pa.table({"text": array}), path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("gone.parquet", lambda path: None, "corpora.c.path: .*names no .parquet, .* file"),
        (
            "a.docx",
            lambda path: path.write_text("text\nx\n"),
            "has another ending; allowed: .parquet",
        ),
        (
            "a.parquet",
            lambda path: path.write_bytes(b"PAR1 not so"),
            "a.parquet: not a readable parquet file",
        ),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"body": ["x"]}), path),
            "corpora.c.column: 'text' is not a column of .*a.parquet; allowed: body",
        ),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"text": [1]}), path),
            "corpora.c.column: 'text' holds int64, not text",
        ),
        ("a.parquet", bad_utf8_parquet, "row 2 is not valid UTF-8 at its byte 2"),
        (
            "a.jsonl",
            lambda path: path.write_text('{"text": "x"}\n{"text": '),
            "a.jsonl: line 2 is not valid JSON",
        ),
        (
            "a.jsonl",
            lambda path: path.write_text('["x"]\n'),
            "a.jsonl: line 1 is not a JSON object",
        ),
        (
            "a.jsonl",
            lambda path: path.write_text('{"body": "x"}\n'),
            "column: 'text': no line of .*a.jsonl has this key; its first line has the keys body",
        ),
        (
            "a.jsonl.gz",
            lambda path: path.write_bytes(gzip.compress(b'{"text": "x"}\n' * 999)[:-20]),
            "not a readable gzip file",
        ),
        (
            "a.jsonl.gz",
            lambda path: path.write_bytes(b'{"text": "x"}\n'),
            "not a readable gzip file",
        ),
        (
            "a.txt",
            lambda path: path.write_bytes(b"\xef\xbb\xbffine\n\xe9t\xe9\n"),
            "a.txt: line 2 is not valid UTF-8 at its byte 0",
        ),
    ],
)
@pytest.mark.parametrize("txt_documents", ["file", "line"])
def test_what_cannot_be_read_is_named_in_one_line_and_nothing_is_left_behind(
    tmp_path, name, write, message, txt_documents
):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        build(tmp_path / "c", path=str(tmp_path / name), txt_documents=txt_documents)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())


def test_a_damaged_corpus_is_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(artifacts.DamagedArtifact, match="train.parquet: not a readable corpus"):
        list(read_documents(tmp_path, "train"))


# The microworld and the hub


def test_a_microworlds_folder_rebuilds_its_world_and_scores_all_its_text(tmp_path):
    build_corpus({"kind": "microworld", "people": 8, "documents": 1500}, 100, tmp_path)
    world = World.from_json(artifacts.read_json(tmp_path / "world.json"))
    documents = [text for split in SPLITS for _, text in read_documents(tmp_path, split)]
    assert len(documents) == 1500 and all(
        np.isfinite(world.token_logprobs(text.split())).all() for text in documents
    )
    for name, questions in world.benchmarks().items():
        table = pd.read_parquet(tmp_path / "tasks" / f"{name}.parquet")
        assert {"question", "choices", "answer", "split"} <= set(table) and len(table) == len(
            questions
        )
    assert {"person", "attribute", "rank"} <= set(
        pd.read_parquet(tmp_path / "tasks" / "knowledge.parquet")
    )


def test_a_larger_microworld_corpus_begins_with_the_smaller_one(tmp_path):
    for count in (700, 1300):
        build_corpus(
            {"kind": "microworld", "people": 8, "documents": count}, 100, tmp_path / str(count)
        )
    small, large = (dict(read_documents(tmp_path / str(count), "train")) for count in (700, 1300))
    assert small.items() <= large.items() and len(large) > len(small)


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A data set in the format of the hub: a folder of parquet files."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [f"document {n} ".ljust(100, "x") for n in range(60)]
    for part in range(3):
        table = pa.table({"text": [*rows[part * 20 : part * 20 + 20], None], "id": list(range(21))})
        pq.write_table(table, folder / f"train-{part:05}-of-00003.parquet")
    return folder, rows


def stage(spec: dict, path: Path) -> None:
    work = path.parent / f".{path.stem}.work" / "key"
    work.mkdir(parents=True)
    stage_hub(spec, path, work, Stop())


def test_a_data_set_is_streamed_up_to_its_budget_and_becomes_a_corpus(tmp_path, data_set):
    folder, rows = data_set
    spec = {"kind": "hub", "name": str(folder), "max_tokens": 1000, "characters_per_token": 4.0}
    stage(spec, tmp_path / "staged.parquet")
    assert pq.read_table(tmp_path / "staged.parquet")["text"].to_pylist() == rows[:40]
    assert texts(build(tmp_path / "c", sources=(tmp_path / "staged.parquet",), **spec)) == sorted(
        rows[:40]
    )
    stage(spec | {"max_tokens": 10**9}, tmp_path / "all.parquet")
    assert pq.read_table(tmp_path / "all.parquet")["text"].to_pylist() == rows


def test_a_data_sets_own_splits_are_kept_and_a_union_puts_corpora_together(tmp_path, data_set):
    folder, rows = data_set
    for split in ("validation", "test"):
        pq.write_table(
            pa.table({"text": [f"{split} {n}" for n in range(4)]}),
            folder / f"{split}-00000-of-00001.parquet",
        )
    splits = {"train": "train", "validation": "validation", "test": "test"}
    spec = {
        "kind": "hub",
        "name": str(folder),
        "max_tokens": 10**6,
        "splits": splits,
        "max_documents": 3,
    }
    stage(spec, tmp_path / "staged.parquet")
    build_corpus(spec, 1, tmp_path / "hub", [tmp_path / "staged.parquet"])
    files = {split: str(min(folder.glob(f"{split}-*"))) for split in splits}
    build_corpus({"kind": "files", "splits": files, "max_documents": 3}, 1, tmp_path / "files")
    for name in ("hub", "files"):
        read = {
            split: [text for _, text in read_documents(tmp_path / name, split)] for split in SPLITS
        }
        assert read["train"] == rows[:3] and read["test"] == [f"test {n}" for n in range(3)]
        assert read["validation"] == read["prompts"] == [f"validation {n}" for n in range(3)]
    build_corpus({"kind": "union", "corpora": ["hub", "files"]}, 1, tmp_path / "both")
    for split in SPLITS:
        parts = [
            text for name in ("hub", "files") for _, text in read_documents(tmp_path / name, split)
        ]
        assert [text for _, text in read_documents(tmp_path / "both", split)] == parts
    assert len({doc_id for doc_id, _ in read_documents(tmp_path / "both", "train")}) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"column": "body"},
            "corpora.staged.column: 'body' is not a column of .*; allowed: text, id",
        ),
        ({"split": "dev"}, "corpora.staged.name: .*cannot be streamed .*dev"),
        ({"column": "id"}, "corpora.staged.column: 'id' holds no text"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused_and_nothing_is_left_behind(
    tmp_path, data_set, change, message
):
    with pytest.raises(ValueError, match=message) as error:
        stage_hub(
            {"name": str(data_set[0]), "max_tokens": 10} | change,
            tmp_path / "out" / "staged.parquet",
            tmp_path,
            Stop(),
        )
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


# Prompts


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        (
            "anna lives in paris . two plus two is four . ben likes red .",
            2,
            "anna lives in paris . two plus two is four .",
        ),
        ("One. Two! Three? Four.", 3, "One. Two! Three?"),
        (
            "Mr. Smith met J. K. Rowling, i.e. her, in the U.S. capital. Then he left.",
            1,
            "Mr. Smith met J. K. Rowling, i.e. her, in the U.S. capital.",
        ),
        (
            "It cost $3.50 at most... or so. “Really?” she said. Yes.",
            2,
            "It cost $3.50 at most... or so. “Really?” she said.",
        ),
        ("He said “Stop.” They did.", 1, "He said “Stop.”"),
        ("A heading\n\nIts text. More.", 2, "A heading\n\nIts text."),
        ("One.\n\nTwo. Three.", 2, "One.\n\nTwo."),
        ("我来了。你呢？走吧。", 2, "我来了。你呢？"),
        ("  no end at all ", 3, "no end at all"),
        ("One. Two.", 8, "One. Two."),
    ],
)
def test_the_first_sentences_of_a_text(text, count, expected):
    assert first_sentences(text, count) == expected


def test_prompts_come_from_held_out_documents_alone(tmp_path):
    build_corpus({"kind": "microworld", "people": 8, "documents": 600}, 100, tmp_path)
    held_out, given = dict(read_documents(tmp_path, "prompts")), prompts(tmp_path, 2)
    assert [doc_id for doc_id, _ in given] == list(held_out)
    for doc_id, prompt in given:
        assert held_out[doc_id].startswith(prompt) and prompt.endswith(" .")
        assert prompt.count(" .") == min(2, held_out[doc_id].count(" ."))


# Overlap with benchmarks


def corpus_of(folder: Path, documents: list[str], **held_out: list[str]) -> Path:
    folder.mkdir()
    for split in SPLITS:
        texts = documents if split == "train" else held_out.get(split, [])
        columns = {"doc_id": [str(n) for n in range(len(texts))], "text": texts}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


def test_a_question_is_found_wherever_it_stands_however_it_is_written(tmp_path):
    asked = "Which of the following is NOT a prime number, café?"
    found = overlap(
        corpus_of(
            tmp_path / "c",
            [
                "nothing",
                "He asked: which—of the “following”\n\nis not, a prime number: CAFE\u0301? Five",
            ],
        ),
        [
            asked,
            asked,
            "Which of the following is not a prime factor?",
            "too short to be counted at all",
        ],
    )
    assert (found["questions"], found["overlapping"], found["not_checked"]) == (4, 2, 1)
    assert found["examples"] == [{"question": asked, "doc_id": "1", "split": "train"}]


def test_a_match_may_not_run_over_two_documents_and_must_be_complete(tmp_path):
    folder = corpus_of(
        tmp_path / "c", ["one two three four five", "six seven eight nine", "a b c d e f g h i"]
    )
    found = overlap(
        folder,
        [
            "one two three four five six seven eight",
            "a b c d e f g h j",
            "b c d e f g h i j",
            "a b c d e f g h",
        ],
    )
    assert found["overlapping"] == 1 and found["examples"][0]["question"] == "a b c d e f g h"


def test_prompts_and_validation_text_are_searched_and_test_text_is_not(tmp_path):
    asked = {split: f"what is the true height of the tallest {split} tower" for split in SPLITS}
    held_out = {split: ["nothing", asked[split]] for split in SPLITS[1:]}
    found = overlap(corpus_of(tmp_path / "c", ["nothing"], **held_out), asked.values())
    assert found["overlapping"] == 2
    assert [(row["question"], row["doc_id"], row["split"]) for row in found["examples"]] == [
        (asked[split], "1", split) for split in ("validation", "prompts")
    ]


PLANTED = "Which of the following rivers is the longest one in the world?"


def removed(folder: Path, documents: list[str], **spec) -> tuple[dict[str, dict[str, str]], dict]:
    """Build a corpus of lines without the documents that contain PLANTED or another question."""
    write_lines(folder / "a.txt", documents)
    spec = {"kind": "files", "path": str(folder / "a.txt"), "txt_documents": "line"} | spec
    asked = [PLANTED, "a question of eight words that nobody wrote", "too short"]
    build_corpus(spec | {"on_overlap": "remove"}, 100, folder / "c", (), asked)
    splits = {split: dict(read_documents(folder / "c", split)) for split in SPLITS}
    return splits, artifacts.read_json(folder / "c" / "corpus.json")["removed"]


def test_documents_with_a_question_are_dropped_from_every_split_and_listed(tmp_path):
    plain = numbered(3000)
    planted = {n: f"{plain[n]} {PLANTED.upper()} Nile" for n in range(0, 3000, 7)}
    (tmp_path / "plain").mkdir()
    path = write_lines(tmp_path / "plain" / "a.txt", plain)
    whole = build(tmp_path / "whole", path=str(path), txt_documents="line")
    splits, said = removed(tmp_path, [planted.get(n, text) for n, text in enumerate(plain)])
    gone = [f"a.txt:{n}" for n in planted]
    assert said == {"documents": 429, "questions": [{"question": PLANTED, "doc_ids": gone}]}
    assert overlap(tmp_path / "c", [PLANTED])["overlapping"] == 0
    for split in SPLITS:  # the others stay where they were
        expected = [text for text in whole[split].values() if plain.index(text) not in planted]
        assert list(splits[split].values()) == expected and len(expected) < len(whole[split])


def test_a_removal_that_leaves_too_little_is_an_error_with_the_fix(tmp_path):
    with pytest.raises(ValueError, match="cannot fill .*remove dropped 26 documents"):
        removed(tmp_path, [*numbered(4), *[f"{n} {PLANTED}" for n in range(26)]])
    files = {split: tmp_path / f"{split}.txt" for split in ("train", "validation", "test")}
    for path in files.values():
        write_lines(path, [f"{n} {PLANTED}" for n in range(3)])
    write_lines(files["train"], numbered(30))
    own = {split: str(path) for split, path in files.items()}
    with pytest.raises(ValueError, match="splits.validation: .*no usable.*dropped 3 documents"):
        removed(tmp_path, [], splits=own)


def test_own_splits_and_unions_drop_what_models_read_and_keep_the_test_text(tmp_path):
    lines = [*numbered(30), f"One more: {PLANTED}"]
    files = {split: write_lines(tmp_path / f"{split}.txt", lines) for split in SPLITS[:3]}
    own = {"kind": "files", "splits": {split: str(path) for split, path in files.items()}}
    own |= {"txt_documents": "line"}
    build_corpus(own, 1, tmp_path / "part")
    cases = {
        "own": own,
        "union": {"kind": "union", "corpora": ["part"]},
    }
    for name, spec in cases.items():
        build_corpus(spec | {"on_overlap": "remove"}, 1, tmp_path / name, (), [PLANTED])
        count = {split: len(list(read_documents(tmp_path / name, split))) for split in SPLITS}
        assert count == {"train": 30, "validation": 30, "prompts": 30, "test": 31}, name


# Passages


def long_documents(path: Path, count: int = 27) -> Path:
    """Write documents of about 11,000 characters, as chapters of a book or reports are."""
    rng = np.random.default_rng(0)
    words = np.array(["the", "river", "runs", "slowly", "past", "old", "mills", "and", "meadows"])

    def sentence(number: int) -> str:
        return f"Sentence {number} says that {' '.join(rng.choice(words, 12))}."

    with open(path, "w") as file:
        for document in range(count):
            paragraphs = [
                " ".join(sentence(1000 * document + 5 * part + n) for n in range(5))
                for part in range(23)
            ]
            file.write(json.dumps({"text": "\n\n".join(paragraphs)}) + "\n")
    return path


def test_a_few_long_documents_give_distinct_prompts_that_no_model_trains_on(tmp_path):
    path = long_documents(tmp_path / "a.jsonl")
    sources = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert 9000 < np.mean([len(text) for text in sources]) < 12_000
    whole = build(tmp_path / "whole", path=str(path), passages="none")
    assert [len(whole[split]) for split in SPLITS[1:]] <= [2, 2, 2]  # what the default gave before
    splits = build(tmp_path / "c", path=str(path))
    opened = [prompt for _, prompt in prompts(tmp_path / "c", 8)]
    assert len(opened) >= 5 and len(set(opened)) == len(opened)
    assert len(splits["validation"]) >= 2 and len(splits["test"]) >= 2
    # every sentence is unique: no split shares one, and nothing else is in no split than the
    # passage after held-out text
    sentences = {
        split: set(re.findall(r"Sentence \d+ says", " ".join(documents.values())))
        for split, documents in splits.items()
    }
    for first, second in itertools.combinations(SPLITS, 2):
        assert not sentences[first] & sentences[second], (first, second)
    for text in (text for split in SPLITS[1:] for text in splits[split].values()):
        source = next(source for source in sources if text in source)
        following = source[source.index(text) + len(text) :][:200]
        assert not following or not any(following in text for text in splits["train"].values())
    about = artifacts.read_json(tmp_path / "c" / "corpus.json")
    assert about["passage_characters"] == 2000
    assert about["characters"]["train"] > 0.75 * sum(map(len, sources))


def test_one_book_fills_every_split_with_neighbouring_passages(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(f"Paragraph {n} of this book. " * 12 for n in range(1500)))
    splits = build(tmp_path / "c", path=str(path))
    count = {split: len(documents) for split, documents in splits.items()}
    assert count["train"] == 2 and 4 <= count["test"] <= 6 and 10 <= count["prompts"] <= 14
    numbers = [int(doc_id.split("#")[1]) for split in SPLITS[1:] for doc_id in splits[split]]
    assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
    text = path.read_text()
    assert all(part in text for documents in splits.values() for part in documents.values())


def test_passages_leave_corpora_of_short_or_many_documents_as_they_were(tmp_path):
    path = write_lines(tmp_path / "short.txt", numbered(100))
    many = write_lines(tmp_path / "many.txt", ["word " * 1000 + str(n) for n in range(2000)])
    for number, source in enumerate((path, many)):
        spec = {"path": str(source), "txt_documents": "line"}
        splits = [
            build(tmp_path / f"{number}{passages}", passages=passages, **spec)
            for passages in ("auto", "none")
        ]
        assert splits[0] == splits[1]
    forced = build(tmp_path / "forced", path=str(many), txt_documents="line", passages=1000)
    assert len(forced["prompts"]) > 3 * len(splits[0]["prompts"])


def test_only_prompts_of_a_data_sets_own_splits_are_cut(tmp_path):
    files = {split: str(long_documents(tmp_path / f"{split}.jsonl", 3)) for split in SPLITS[:3]}
    splits = build(tmp_path / "c", splits=files)
    assert [len(splits[split]) for split in SPLITS] == [3, 3, 3, len(splits["prompts"])]
    assert len(splits["prompts"]) >= 12


def test_passages_end_where_sentences_end_and_together_are_the_text():
    text = " ".join(f"This is sentence {n}." for n in range(1000))
    parts = cut(text, 500)
    assert "".join(parts) == text and all(250 <= len(part) <= 1000 for part in parts)
    assert all(part.endswith(". ") for part in parts[:-1])
    assert cut("x" * 1001, 500) == ["x" * 500, "x" * 501] and cut("x" * 1000, 500) == ["x" * 1000]


# Sizes


def test_check_counts_what_the_job_will_write(tmp_path):
    path = long_documents(tmp_path / "a.jsonl")
    few = long_documents(tmp_path / "few.jsonl", 3)
    own = {split: str(few) for split in SPLITS[:3]}
    held_out = {"validation": 0.02, "test": 0.02, "prompts": 0.05}
    common = {"passages": "auto", "held_out": held_out, "splits": None}
    corpora = {
        "books": {"kind": "files", "path": str(path)} | common,
        "own": {"kind": "files"} | common | {"splits": own},
        "world": {"kind": "microworld", "people": 6, "documents": 300} | common,
    }
    union = {"kind": "union", "corpora": ["books", "own"]} | common
    plan = Plan({"corpora": corpora | {"both": union}, "data_seed": 3}, "results/x")
    for name, spec in corpora.items():
        build_corpus(spec | {"passages": "none"} if name == "world" else spec, 3, tmp_path / name)
        made = artifacts.read_json(tmp_path / name / "corpus.json")["documents"]
        assert forecast(plan, name) == made
    both = forecast(plan, "both")
    assert both["prompts"] == sum(forecast(plan, part)["prompts"] for part in ("books", "own"))


def test_the_fast_search_agrees_with_a_plain_one(tmp_path):
    rng = np.random.default_rng(0)
    documents = [" ".join(rng.choice(list("abc"), rng.integers(1, 200))) for _ in range(60)]
    questions = [
        " ".join(rng.choice(list("abcd"), rng.integers(8, 12), p=[0.4, 0.35, 0.2, 0.05]))
        for _ in range(400)
    ]
    plain = sum(
        any(f" {question} " in f" {document} " for document in documents) for question in questions
    )
    assert 0 < plain < 400
    assert overlap(corpus_of(tmp_path / "c", documents), questions)["overlapping"] == plain


def test_real_benchmarks_against_real_text(tmp_path):
    build(tmp_path / "c", path=str(shared("data/openstax")))
    questions = pd.read_parquet(shared("data/mmlu") / "validation.parquet").question.tolist()
    planted = " ".join(
        dict(read_documents(tmp_path / "c", "train"))["train.parquet:6"].split()[40:60]
    )
    found = overlap(tmp_path / "c", [*questions, planted])
    assert planted in [example["question"] for example in found["examples"]]
    assert found["questions"] == len(questions) + 1 and found["not_checked"] < 300


def test_the_vocabulary_of_a_corpus_is_bounded(tmp_path):
    texts = ["The cat’s mat", "the CAT sat 3 times", "x" * 100]
    counted = dict(count_words(texts).itertuples(index=False))
    assert counted == {"the": 2, "cat": 1, "cat's": 1, "mat": 1, "sat": 1, "times": 1}
    few = count_words(["often often rare", "often other often", "more often"], kept=2)
    assert few.word.tolist() == ["often", "more"] and few["count"].tolist() == [5, 1]
    build_corpus({"kind": "microworld", "people": 6, "documents": 300}, 1, tmp_path)
    whole, some = vocabulary(tmp_path), vocabulary(tmp_path, most=2000)
    assert set(some.word) < set(whole.word) and some["count"].sum() < whole["count"].sum() / 4
