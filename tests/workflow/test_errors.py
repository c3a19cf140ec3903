"""Wrong input ends in one clear line, before anything runs where that can be known, and leaves
nothing half-written behind.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import TOY, snakemake


def toy(tmp_path: Path, **changes) -> Path:
    """The toy config with top-level entries merged over it; dotted keys reach into mappings."""
    raw = yaml.safe_load(TOY.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = raw
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def the_error(output: str) -> str:
    """The one line that a failed job says on the terminal."""
    lines = {line.strip() for line in output.splitlines() if line.strip().startswith("error: ")}
    assert len(lines) == 1, output[-3000:]
    assert "Traceback" not in output
    return lines.pop()


def left_behind(folder: Path) -> list[str]:
    files = (
        [p for p in (folder / "results").rglob("*") if p.is_file()]
        if (folder / "results").exists()
        else []
    )
    return [
        str(p.relative_to(folder))
        for p in files
        if not {"logs", "benchmarks", ".driver"} & set(p.parts)
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"experiments__line__popluation": 2},
            ["experiments.line.popluation", "did you mean 'population'"],
        ),
        ({"experiments__population__population": 6}, ["population: 6", "a square"]),
        (
            {"experiments__population__select": {"task": "trivia"}},
            ["'trivia'", "allowed: coreference, knowledge"],
        ),
        (
            {"corpora__text": {"kind": "files", "path": "nowhere/*.parquet"}},
            ["corpora.text.path", "nowhere"],
        ),
    ],
)
def test_a_wrong_config_stops_before_anything_runs(tmp_path, changes, words):
    output = snakemake(tmp_path, configfile=toy(tmp_path, **changes), ok=False)
    lines = [line for line in output.splitlines() if "wrong.yaml:" in line]
    assert len(lines) == 1 and all(word in lines[0] for word in words), output
    assert "Traceback" not in output
    assert left_behind(tmp_path) == []


def corpus(tmp_path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(tmp_path / "text.parquet")
    return toy(tmp_path, corpora__text={"kind": "files", "path": str(tmp_path / "text.parquet")})


def test_a_corpus_that_cannot_be_used_is_refused(tmp_path):
    frame = pd.DataFrame({"body": ["a b c"] * 20, "title": "x"})
    output = snakemake(
        tmp_path,
        "--",
        "results/toy/corpora/text/train.parquet",
        configfile=corpus(tmp_path, frame),
        ok=False,
    )
    line = the_error(output)
    assert all(word in line for word in ("text.parquet", "'text'", "body, title"))
    assert left_behind(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "target", "damage", "words"),
    [
        (
            "population/gen0/synthetic0/shard1.parquet",
            "population/gen1/member0/model.safetensors",
            0,
            "empty (0 bytes)",
        ),
        (
            "population/gen1/member1/model.safetensors",
            "population/gen1/member1/scores.json",
            -100,
            "damaged: its digest",
        ),
        (
            "tokens/toy/world/train.bin",
            "segments/human/member2.bin",
            -64,
            "train.json says",
        ),
    ],
)
def test_a_damaged_input_is_named_before_anything_is_computed_on_it(
    finished, tmp_path, victim, target, damage, words
):
    folder = Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))
    path, target = folder / "results/toy" / victim, f"results/toy/{target}"
    os.truncate(path, path.stat().st_size + damage if damage else 0)
    (folder / target).unlink()
    line = the_error(snakemake(folder, "--", target, ok=False))
    assert victim in line and words in line and "run snakemake again" in line
    assert not (folder / target).exists()


def test_a_full_disk_is_one_clear_line_and_no_half_file(tmp_path):
    disk = tmp_path / "results"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        line = the_error(
            snakemake(tmp_path, "--", "results/toy/corpora/world/train.parquet", ok=False)
        )
        assert "no space left" in line
        assert left_behind(tmp_path) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
