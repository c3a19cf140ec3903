"""A job that is about to read a damaged input stops before its first line: whatever kind of file,
whatever became of it.
"""

import os
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from snakemake.iocontainers import Namedlist

from pollination.core import artifacts
from pollination.core.job import Job

WRITE = {
    "model.safetensors": lambda path, n: save_file({"w": torch.full((9,), float(n))}, path),
    "shard.parquet": lambda path, n: pd.DataFrame({"text": [f"text {n}"] * 9}).to_parquet(path),
    "train.bin": lambda path, n: np.full(99, n, dtype=np.uint16).tofile(path),
    "scores.json": lambda path, n: artifacts.write_json(path, {"tasks": {}, "n": n}),
    "train.jsonl": lambda path, n: path.write_text(f'{{"step": 1, "loss": {n}.5}}\n'),
    "config.json": lambda path, n: artifacts.write_json(path, {"model_type": "llama", "n": n}),
    "tokenizer.json": lambda path, n: artifacts.write_json(path, {"version": str(n)}),
    "report.csv": lambda path, n: path.write_text(f"a,b\n1,{n}\n"),
    "figure.svg": lambda path, n: path.write_text(f"<svg>{n}</svg>\n"),
    "page.html": lambda path, n: path.write_text(f"<html>{n}</html>\n"),
    "config.yaml": lambda path, n: path.write_text(f"run: r{n}\n"),
    "words.txt": lambda path, n: path.write_text(f"word{n}\n"),
}


def flipped(path: Path, _other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swapped(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


DAMAGE = {
    "a flipped byte": flipped,
    "cut short": lambda path, _: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path, _: os.truncate(path, 0),
    "one byte more": lambda path, _: path.write_bytes(path.read_bytes() + b"\n"),
    "an older file with a new time stamp": lambda path, other: path.write_bytes(other.read_bytes()),
    "swapped with another's": swapped,
    "gone": lambda path, _: path.unlink(),
}


def made(folder: Path, name: str, number: int) -> Path:
    """An artifact with the record that its job wrote."""
    path = folder / name
    folder.mkdir()
    WRITE[name](path, number)
    record = {
        "rule": "any",
        "wildcards": {},
        "inputs": {},
        "outputs": {name: artifacts.digest(path)},
    }
    artifacts.write_json(folder / "run.json", artifacts.seal(record))
    return path


def job(tmp_path: Path, *inputs: Path) -> Job:
    given = types.SimpleNamespace(rule="reads", threads=1, config={}, log=[str(tmp_path / "a.log")])
    given.input = Namedlist(map(str, inputs))
    given.output, given.params, given.wildcards = (
        Namedlist([str(tmp_path / "out")]),
        Namedlist(),
        Namedlist(),
    )
    return Job(given)


@pytest.mark.parametrize("name", WRITE)
def test_a_damaged_input_of_any_kind_stops_the_job_before_it_computes(tmp_path, name):
    for number, (what, damage) in enumerate(DAMAGE.items()):
        paths = [made(tmp_path / f"{number}{side}", name, n) for n, side in enumerate("ab")]
        with job(tmp_path, *paths):
            pass  # whole
        damage(*paths)
        begun = False
        with pytest.raises(SystemExit) as ended, job(tmp_path, *paths):
            begun = True
        last = (tmp_path / "a.log").read_text().splitlines()[-1]
        assert ended.value.code == 1 and not begun, what
        assert str(paths[0]) in last and ("run snakemake again" in last or what == "gone"), last
