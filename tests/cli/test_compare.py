"""`pollination compare`: the numbers of several runs, against a key, on one page."""

import csv
import re
import shutil
from pathlib import Path

import pytest
import yaml

import pollination
from pollination.cli import main

SCALE = "mutate.scale"


@pytest.fixture
def runs(finished, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The finished run, and another with other settings and other members."""
    monkeypatch.chdir(tmp_path)
    first, other = Path("toy"), Path("other")
    for folder in (first, other):
        shutil.copytree(finished / "results/toy", folder, symlinks=True)
    shutil.rmtree(other / ".driver")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["run"] = "other"
    config["experiments"]["population"]["mutate"]["scale"] = 0.5
    config["founders"]["human"]["train"]["learning_rate"] = "<b>$x$</b>"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    for m in range(4):
        shutil.rmtree(other / f"population/gen2/member{m}")
        shutil.copytree(f"toy/founders/human/member{m}", f"other/population/gen2/member{m}")
    return first, other


def compare(*words: str) -> int:
    return main(["compare", "toy", "other", *words])


def rows(folder: str = "comparison") -> list[dict]:
    with open(f"{folder}/comparison.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_means_of_each_run_and_generation(runs, capsys):
    assert compare() == 0
    said = capsys.readouterr().out
    assert said.startswith("knowledge, accuracy (%):\nrun    experiment")
    assert "The page is comparison/comparison.html" in said
    found = {(r["run"], r["experiment"], int(r["generation"])): r for r in rows()}
    for folder in runs:
        results = pollination.load_run(folder)
        mine = results.scores.query("name == 'knowledge' and metric == 'accuracy'")
        for (name, g), expected in mine.groupby(["experiment", "generation"]).value.mean().items():
            row = found.pop((folder.name, name, g))
            assert float(row["mean"]) == pytest.approx(100 * expected, abs=1e-3)
            assert float(row["low"]) < float(row["mean"]) < float(row["high"])
            assert (row["value"], row["interval"]) == (folder.name, "questions")
    assert not found


def test_the_page_is_whole_and_shows_what_differs(runs):
    assert compare("--measure", "EXCESS", "--against", SCALE, "--into", "a/b") == 0
    text = Path("a/b/comparison.html").read_text()
    assert text.count("<svg role=") == 2 and not re.search(r'(src|href)="(?!#)', text)
    assert "<title>Comparison of 2 runs: world/test, excess nats</title>" in text
    settings = text[text.index("Settings that differ") :]
    differing = re.findall(r"<tr><td><bdi>([\w.]+)</bdi></td>((?:<td>.*?</td>){2})</tr>", settings)
    assert dict(differing) == {
        "founders.human.train.learning_rate": (
            "<td><bdi>0.01</bdi></td><td><bdi>&lt;b&gt;$x$&lt;/b&gt;</bdi></td>"
        ),
        "experiments.population.mutate.scale": "<td><bdi>0.01</bdi></td><td><bdi>0.5</bdi></td>",
    }
    values = {(row["run"], row["experiment"]): row["value"] for row in rows("a/b")}
    assert [values[name, "population"] for name in ("toy", "other")] == ["0.01", "0.5"]
    before = {path.name: path.read_bytes() for path in Path("a/b").iterdir()}
    assert compare("--measure", "EXCESS", "--against", SCALE, "--into", "a/b") == 0
    assert before == {path.name: path.read_bytes() for path in Path("a/b").iterdir()}


def test_a_key_of_the_config_and_text_are_values_too(runs):
    assert compare("--against", "founders.human.train.learning_rate") == 0
    assert {row["value"] for row in rows()} == {"0.01", "<b>$x$</b>"}
    assert "&lt;b&gt;$x$" in Path("comparison/comparison.html").read_text()


def test_unfinished_runs_meet_at_their_last_common_generation(runs):
    (runs[1] / "population/gen2/member3/scores.json").unlink()
    assert compare() == 0
    lasts = {(row["run"], row["experiment"]): int(row["generation"]) for row in rows()}
    assert lasts["toy", "population"] == 2 and lasts["other", "population"] == 1
    text = Path("comparison/comparison.html").read_text()
    table = text[text.index("Last common generation") : text.index("Trajectories")]
    found = re.findall(r"<bdi>(toy|other)</bdi></td><td><bdi>(\w+)</bdi></td>.*?>(\d)</td>", table)
    assert sorted(found) == [
        *(
            (run, name, g)
            for run in ("other", "toy")
            for name, g in (("line", "2"), ("population", "1"))
        )
    ]


def test_an_experiment_that_is_left_out_is_named(runs, capsys):
    (runs[1] / "founders/human/member1/scores.json").unlink()
    assert compare() == 0
    assert "Left out: population of other; not all" in capsys.readouterr().out
    assert {row["experiment"] for row in rows() if row["run"] == "other"} == {"line"}


def test_what_cannot_be_compared_is_one_line(runs, capsys):
    for words, complaint in (
        (("--measure", "accuracy"), "'accuracy' fits several measures; allowed: coreference, acc"),
        (("--measure", "bleu"), "'bleu' is not a measure of all runs; allowed: coreference, acc"),
        (("--against", "mutate.scal"), "'mutate.scal' is not a key of these configs; the keys"),
    ):
        assert compare(*words) == 2
        error = capsys.readouterr().err
        assert f"error: {words[0]}: {complaint}" in error and error.count("\n") == 1
    assert SCALE in error and "founders.human.train.learning_rate" in error
    (runs[1] / "founders/human/member0/scores.json").unlink()
    assert compare() == 2
    assert "other: no generation 0 is completely scored yet" in capsys.readouterr().err
    assert not Path("comparison").exists()
