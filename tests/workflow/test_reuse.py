"""reuse: a run takes what another run has done, and nothing else, and does not need it later."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pollination.cli import main
from pollination.core import artifacts
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from tests.conftest import TOY, snakemake

FOUNDER, CHILD = "founders/human/member0", "population/gen1/member0"
SEGMENTS, LINE = "segments/human", "results/toy/line/gen1/member0"


def second(folder: Path, **change) -> Path:
    """The toy under another name, which may reuse the first."""
    raw = yaml.safe_load(TOY.read_text()) | {"run": "second", "reuse": ["results/toy"]} | change
    path = folder / "second.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture
def copy(finished, tmp_path, monkeypatch) -> Path:
    folder = Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))
    monkeypatch.chdir(folder)
    return folder


def records(run: str) -> dict[str, dict]:
    """Path below a run -> its record."""
    folder = Path("results", run)
    paths = [path for path in folder.rglob("*run.json") if "/." not in str(path)]
    found = {str(path.relative_to(folder)): artifacts.read_json(path) for path in paths}
    return {path: record for path, record in found.items() if "rule" in record}


@pytest.mark.slow
def test_a_run_takes_what_another_has_done_and_outlives_it(copy, tmp_path, capsys):
    config = second(tmp_path)
    main(["plan", "--configfile", str(config), "--json"])
    planned = json.loads(capsys.readouterr().out)
    trained = {"train_founder", "train_child", "evaluate_member", "generate_shard"}
    assert all(planned["reused"][rule] == planned["new"][rule] for rule in trained)
    assert not planned["gpu_hours"]
    targets = [f"results/second/{CHILD}/{name}" for name in ("model.safetensors", "scores.json")]
    snakemake(copy, "--", *targets, configfile=config)
    taken, given = records("second"), records("toy")
    assert {f"{CHILD}/run.json", f"{FOUNDER}/run.json"} <= taken.keys()
    for path, record in taken.items():
        assert record["reused"] == f"results/toy/{path}"
        assert record["outputs"] == given[path]["outputs"]
        assert record["hardware"] == given[path]["hardware"]
        assert not any(name.startswith("results/toy") for name in record["inputs"])
    weights = [Path("results", run, CHILD, "model.safetensors") for run in ("second", "toy")]
    assert weights[0].samefile(weights[1])
    told = Path(f"results/second/logs/{CHILD}/train.log").read_text()
    assert f"the files of this job are those of results/toy/{CHILD}/run.json" in told

    assert "Nothing to be done" in snakemake(copy, "-n")  # in the first, all is as it was
    shutil.rmtree("results/toy")
    main(["verify", "results/second"])
    assert "All files match their records" in capsys.readouterr().out
    without = second(tmp_path, reuse=[])
    assert "Nothing to be done" in snakemake(copy, "-n", "--", *targets, configfile=without)


@pytest.mark.slow
def test_what_differs_is_computed_and_damage_is_not_taken(copy, tmp_path, capsys):
    founders = yaml.safe_load(TOY.read_text())["founders"]
    founders["human"]["train"]["learning_rate"] *= 0.5
    damaged = Path(f"results/toy/{SEGMENTS}/member1.bin")
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.unlink()
    damaged.write_bytes(content)
    wanted = [f"{FOUNDER}/model.safetensors", f"{SEGMENTS}/member1.bin"]
    wanted = [f"results/second/{path}" for path in wanted]
    config = second(tmp_path, founders=founders)
    main(["plan", "--configfile", str(config), "--json"])
    reused = json.loads(capsys.readouterr().out)["reused"]
    assert reused["cut_segment"] == 4 and "train_founder" not in reused
    assert not {"train_child", "generate_shard", "evaluate_member"} & reused.keys()
    snakemake(copy, "--", *wanted, configfile=config)
    taken = records("second")
    reused = {path for path, record in taken.items() if "reused" in record}
    assert taken.keys() - reused == {f"{FOUNDER}/run.json", f"{SEGMENTS}/member1.run.json"}
    logs = Path("results/second/logs")
    said = (logs / FOUNDER / "train.log").read_text()
    assert f"results/toy/{FOUNDER}/run.json is of another job: its params differ" in said
    said = (logs / SEGMENTS / "member1.log").read_text()
    assert f"{damaged} is damaged, so this job computes it again" in said
    recorded = artifacts.read_json(f"results/toy/{SEGMENTS}/member1.run.json")["outputs"]
    assert artifacts.digest(wanted[1]) == recorded["member1.bin"]


def test_a_folder_that_is_no_other_run_is_refused(copy, tmp_path):
    Path("results/second").mkdir()
    shutil.copytree("results/toy", "results/renamed")
    for entry, words in {
        "results/nowhere": "there is no such folder",
        "results/second": "is the folder of this run",
        "project": "is not the folder of a run",
        "results/renamed": "is the folder of run 'toy'; give it this name back",
    }.items():
        config = resolve(yaml.safe_load(second(tmp_path, reuse=[entry]).read_text()))
        with pytest.raises(ConfigError, match=words):
            check_files(config)


@pytest.mark.slow
def test_a_founder_may_be_a_checkpoint_as_it_is(copy, tmp_path):
    raw = yaml.safe_load(TOY.read_text())
    raw["models"]["taken"] = {"pretrained": LINE, "context_tokens": 64}
    raw["founders"]["human"]["model"] = "taken"
    raw["founders"]["human"]["train"]["epochs"] = 0
    config = second(tmp_path, models=raw["models"], founders=raw["founders"])
    wanted = [f"results/second/{FOUNDER}/{name}" for name in ("model.safetensors", "scores.json")]
    snakemake(copy, "--", *wanted, configfile=config)
    given, taken = [
        load_file(f"{f}/model.safetensors") for f in (LINE, f"results/second/{FOUNDER}")
    ]
    assert given.keys() == taken.keys()
    assert all(torch.equal(given[name], taken[name]) for name in given)
    source = artifacts.read_json("results/second/models/taken/run.json")["source"]
    assert source["model.safetensors"] == artifacts.digest(f"{LINE}/model.safetensors")

    raw["founders"]["human"]["model"] = "toy"
    with pytest.raises(ConfigError, match="epochs: 0 leaves model 'toy' untrained"):
        resolve(raw)
    raw["founders"]["human"]["train"]["epochs"] = 1
    raw["defaults"]["train"]["epochs"] = 0
    with pytest.raises(ConfigError, match="train.epochs: 0 is for founders alone"):
        resolve(raw)
