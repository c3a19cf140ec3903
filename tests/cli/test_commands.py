"""The command `pollination`: what it prints, and one line where it cannot."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pollination.cli import COMMANDS, main
from pollination.plan.outputs import generation_files
from tests.conftest import TOY, TOY_PLAN


def say(capsys, *words: str) -> tuple[int, str, str]:
    status = main([*words, "--configfile", str(TOY)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_check_counts_the_models_of_a_config(capsys):
    assert say(capsys, "check") == (
        0,
        f"{TOY}: no mistakes. Experiments: 2; models to train: 14, including 4 founders.\n",
        (
            "warning: corpora.world: 19 test documents, fewer than 20, so held-out measures are "
            "uncertain; raise corpora.world.documents or raise corpora.world.held_out.test if you "
            "can\n"
            "warning: tasks.knowledge: 24 questions, fewer than 50, so the standard error of an "
            "accuracy is 7 percentage points or more; add questions if you can\n"
        ),
    )


def small(folder: Path, passages: str, documents: list[str]) -> Path:
    """Write the toy config with a few documents of local text in place of the microworld's."""
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    config = yaml.safe_load(TOY.read_text())
    text = {"kind": "files", "path": str(folder / "text.jsonl"), "passages": passages}
    config["corpora"]["text"] = text
    config["founders"]["human"]["corpus"] = "text"
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    return folder / "small.yaml"


def test_check_and_cost_warn_of_few_prompts_and_refuse_fewer_than_two(capsys, tmp_path):
    chapters = [" ".join(f"Line {n} of part {m}." for n in range(600)) for m in range(27)]
    for passages, count in (("none", 2), ("auto", 8)):
        path = str(small(tmp_path, passages, chapters))
        for command, status, stream in (("check", 0, "err"), ("cost", None, "out")):
            given = main([command, "--configfile", path])
            lines = getattr(capsys.readouterr(), stream).split("\n")
            told = [line for line in lines[:5] if line.startswith("warning: corpora.text")]
            assert status in (given, None) and len(told) == 1, lines
            assert re.match(rf"warning: corpora.text: {count} prompt documents, fewer", told[0])
    path = str(small(tmp_path, "auto", ["a few words"] * 4))
    assert main(["check", "--configfile", path]) == 1
    assert "corpora.text.held_out: 4 documents cannot fill" in capsys.readouterr().err


def test_files_lists_what_a_generation_consists_of(capsys):
    _, out, _ = say(capsys, "files", "population", "1")
    files = out.split()
    assert files == generation_files(TOY_PLAN, "population", 1)
    assert {
        "results/toy/population/gen1/parent1/model.safetensors",
        "results/toy/population/gen1/synthetic0/shard1.parquet",
    } < set(files)
    _, out, _ = say(capsys, "files", "population", "2")  # the last generation hands nothing on
    assert "selection.json" in out and "parent" not in out and "synthetic" not in out


def test_lineage_follows_the_selections(finished, capsys, monkeypatch):
    monkeypatch.chdir(finished)
    _, out, _ = say(capsys, "lineage", "population/gen2/member3")
    assert out.startswith("Ancestors of population, generation 2, member 3")
    assert "founder" in out and "mutated" in out and "synthetic1/shard1.parquet" in out
    for path in (
        "results/toy/population/gen2/member3",
        "results/toy/population/gen2/member3/",
        f"{finished}/results/toy/population/gen2/member3",
    ):
        assert say(capsys, "lineage", path)[1].replace(f"{finished}/", "") == out
    _, out, _ = say(capsys, "lineage", "founders/human/member1", "--json")
    assert [(node["generation"], node["member"]) for node in json.loads(out)["nodes"]] == [(0, 1)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("files", "populatoin", "1"),
            "experiment 'populatoin' is not in the config; allowed: population, line",
        ),
        (("files", "line", "3"), "generation 3 is not in 'line'; allowed: 0 to 2"),
        (("lineage", "line/gen1/member1"), "member 1 is not in 'line'; allowed: 0 to 0"),
        (
            ("lineage", "founders/humn/member1"),
            "no experiment uses founders 'humn'; allowed: human",
        ),
        (
            ("lineage", "line.1"),
            (
                "model 'line.1' is not the path of a member; allowed: a path such as "
                "EXPERIMENT/gen2/member1 or founders/POOL/member0"
            ),
        ),
    ],
)
def test_what_is_not_there_is_named(capsys, words, complaint):
    assert say(capsys, *words) == (2, "", f"error: {complaint}\n")


def test_a_file_that_is_no_yaml_or_not_there_is_one_line(capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text("run: [")
    for name, words in (("bad.yaml", "not readable as YAML"), ("none.yaml", "no such file")):
        assert main(["check", "--configfile", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and "Errno" not in error


def test_lineage_before_a_selection_names_the_fix(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = say(capsys, "lineage", "population/gen2/member3")
    assert status == 2 and "selection.json does not exist" in error and "resume the run" in error


def test_a_mistake_in_a_config_is_an_answer(capsys, tmp_path):
    (tmp_path / "wrong.yaml").write_text("run: x\nrum: 3\n")
    assert main(["check", "--configfile", str(tmp_path / "wrong.yaml")]) == 1
    assert "rum: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and f"pollination {command}" in out.split("example:")[1]
