"""`pollination reproduce` and `diff`: a generation made again elsewhere, and what differs
between two runs.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from pollination.cli import main
from pollination.cli.runs.reproduction import located, why
from pollination.core import artifacts
from pollination.core.driver import FOLDER
from pollination.core.settings import differing
from pollination.plan.config.resolve import resolve
from tests.conftest import TOY

RUN = "results/toy"


@pytest.fixture
def copy(finished, tmp_path, monkeypatch) -> Path:
    os.system(f"cp -a '{finished}' '{tmp_path}/run'")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def stamps(folder: Path) -> dict:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def change_record(path: str, **changes) -> None:
    record = artifacts.read_json(path)
    record.pop("seal")
    for key, value in changes.items():
        record[key] |= value
    os.unlink(path)
    artifacts.write_json(path, artifacts.seal(record))


@pytest.mark.slow
def test_a_generation_is_made_again_elsewhere_bit_for_bit_and_the_run_is_left_alone(copy, capsys):
    before = stamps(copy / RUN)
    assert main(["reproduce", "line", "1", "--configfile", str(TOY), "--cores", "2"]) == 0
    out = capsys.readouterr().out
    assert ", 0 differ" in out and "files equal" in out
    assert stamps(copy / RUN) == before
    made = copy / "reproduced/toy.line.gen1/results/toy"
    assert (made / "line/gen1/member0/model.safetensors").is_file()
    assert (
        made / "founders/human/member0/model.safetensors"
    ).is_symlink()  # its inputs are not made again
    assert not (made / "line/gen2").exists() and not (made / "population").exists()
    assert (
        main(["reproduce", "line", "1", "--configfile", str(TOY)]) == 2
    )  # never over an earlier one
    assert "is not empty" in capsys.readouterr().err


def test_what_differs_is_explained_by_versions(copy, capsys):
    member = f"{RUN}/line/gen2/member0"
    other = Path(f"{RUN}/founders/human/member0/model.safetensors").read_bytes()
    Path(f"{member}/model.safetensors").unlink()
    Path(f"{member}/model.safetensors").write_bytes(other)  # as if another version had made it
    change_record(
        f"{member}/run.json",
        outputs={"model.safetensors": artifacts.digest(f"{member}/model.safetensors")},
        versions={"torch": "1.0"},
    )
    assert (
        main(
            ["reproduce", "line", "2", "--into", "again", "--configfile", str(TOY), "--cores", "2"]
        )
        == 1
    )
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "gen2/member0/model.safetensors" in line]
    assert "torch was 1.0, is " in line


def test_reasons_are_named_in_the_order_in_which_they_count():
    same = {
        "params": {"device": "auto", "cpu_threads": 1},
        "inputs": {"a": "1"},
        "versions": {"torch": "2"},
        "commit": "c" * 40,
    }
    assert "hardware (device auto)" in why(same, same)
    assert (
        why(same, same | {"params": {"device": "auto", "cpu_threads": 4}})
        == "cpu_threads was 1, is 4"
    )
    assert why(same, same | {"inputs": {"a": "2"}}) == "the job read a different a"
    gpus = [same | {"hardware": {"device": name}} for name in ("NVIDIA A100", "NVIDIA H100")]
    assert why(*gpus) == "other hardware: device was NVIDIA A100, is NVIDIA H100"
    assert (
        why(same, same | {"commit": "d" * 40 + "+"})
        == "commit was ccccccccc, is ddddddddd with uncommitted changes"
    )
    codes = [same | {"code": one * 64} for one in "ef"]  # two states of one uncommitted checkout
    assert why(*codes) == "the code was eeeeeeeeeeee, is ffffffffffff (digests)"


def test_a_config_means_the_same_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    raw = yaml.safe_load(TOY.read_text())
    raw["data"] = "shared"
    raw["corpora"] |= {
        "a": {"kind": "files", "path": ["text", "{data}/more"]},
        "b": {"kind": "hub", "name": "owner/set", "max_tokens": 1000},
    }
    raw["models"] |= {
        "m": {"pretrained": "model", "context_tokens": 64},
        "n": {"pretrained": "owner/model", "context_tokens": 64},
    }
    raw["evaluate"]["measures"] = {"own": "own/measure.py:function"}
    config = resolve(raw)
    found = located(config, tmp_path / "results/toy")
    assert found["data"] == f"{tmp_path}/shared"
    assert found["corpora"]["a"]["path"] == [f"{tmp_path}/text", f"{tmp_path}/shared/more"]
    assert found["corpora"]["b"]["name"] == "owner/set"
    assert found["models"]["m"]["pretrained"] == f"{tmp_path}/model"
    assert found["models"]["n"]["pretrained"] == "owner/model"
    assert found["evaluate"]["measures"] == {"own": f"{tmp_path}/own/measure.py:function"}
    assert config == resolve(raw)  # the original stays


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(("line", "7"), "generation 7 is not in 'line'"), (("line", "1"), "no such file")],
)
def test_what_cannot_be_reproduced_is_one_line(words, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words, "--configfile", str(TOY)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_equal_runs_do_not_differ(copy, finished, capsys):
    assert main(["diff", RUN, str(finished / RUN)]) == 0
    out = capsys.readouterr().out
    assert (
        "settings that differ (key, first, second): none" in out
        and " 0 different, 0 only in the first run, 0 only in the second run" in out
    )
    assert "line: none" in out


def test_it_says_where_two_runs_part(copy, finished, capsys):
    config = yaml.safe_load(Path(f"{RUN}/config.yaml").read_text())
    config["experiments"]["line"]["seed"] = 43
    shutil.rmtree(f"{RUN}/{FOLDER}")  # the config that its driver pinned
    os.unlink(f"{RUN}/config.yaml")
    Path(f"{RUN}/config.yaml").write_text(yaml.safe_dump(config))
    change_record(f"{RUN}/line/gen1/member0/run.json", outputs={"model.safetensors": "0" * 64})
    os.unlink(f"{RUN}/population/gen2/selection.run.json")
    assert main(["diff", str(finished / RUN), RUN, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"experiments.line.seed": [42, 43]}
    assert found["different"] == ["line/gen1/member0/model.safetensors"] and found[
        "only_first"
    ] == ["population/gen2/selection.json"]
    assert found["lineages"]["line"]["generation"] == 1 and found["lineages"]["population"] is None
    assert set(found["scores"]["line"][0]) == {
        "accuracy, knowledge (reporting half)",
        "accuracy, coreference",
        "nats per token, world/test",
    }
    assert main(["diff", RUN, "nowhere"]) == 2


def test_settings_are_compared_by_key_path():
    assert differing({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 3, "c": [1]}}) == {
        "a.b": [1, 3],
        "d": [2, None],
    }
