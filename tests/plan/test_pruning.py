"""keep: checkpoints that nothing reads any more go, and neither a resume, nor lineage, nor verify
misses them.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from pollination.analysis.cost.disk import disk, on_disk
from pollination.analysis.cost.work import Loads
from pollination.cli.runs.status import report
from pollination.cli.runs.verification import read_records, verify
from pollination.core.artifacts import digest
from pollination.core.lease import kept_copies
from pollination.plan import pruning
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from pollination.plan.pruning import pruning_inputs
from tests.conftest import TOY, planned, snakemake


def config(folder: Path, checkpoints: str, **defaults) -> Path:
    raw = yaml.safe_load(TOY.read_text()) | {"keep": {"checkpoints": checkpoints}}
    raw["defaults"] |= defaults
    path = folder / f"{checkpoints}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def weights(folder: Path) -> dict[str, str]:
    """Digest of every checkpoint of a run's folder, second names left out."""
    base = folder / "results/toy"
    return {
        path.relative_to(base).as_posix(): digest(path)
        for path in base.rglob("model.safetensors")
        if ".work" not in path.as_posix()
    }


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))


@pytest.fixture
def plan(copy, monkeypatch) -> Plan:
    monkeypatch.chdir(copy)
    return Plan(resolve(yaml.safe_load(config(copy, "last").read_text())), "results/toy")


def test_only_the_last_generation_stays_and_nothing_misses_the_others(copy, plan, tmp_path):
    before, last = weights(copy), config(tmp_path, "last")
    pool, line = "population/gen1", "line/gen1/member0"
    expected = {name for name in before if "/gen1/" not in name and "/parent" not in name}
    assert planned(snakemake(copy, "-n", configfile=last))["prune_generation"] == 3
    snakemake(copy, configfile=last)
    assert weights(copy) == {name: before[name] for name in expected}
    assert (
        f"{pool}/member0/model.safetensors" not in expected
        and "population/gen2/member0/model.safetensors" in expected
    )
    assert not kept_copies(
        f"results/toy/{pool}/member0/model.safetensors"
    )  # their second names held the space
    assert "Nothing to be done" in snakemake(copy, "-n", configfile=last)
    found = verify(Path("results/toy"), plan)
    assert not found.findings and (found.pruned, found.unmade) == (len(before) - len(expected), 0)
    assert ", 0 waiting" in report(plan)
    assert disk(loads := Loads(plan), list(loads))["weights of members"] == pytest.approx(
        on_disk("results/toy")["weights of members"], 0.05
    )

    # what was pruned is made again on request, the same, with what it needs and nothing else
    wanted = f"results/toy/{line}/model.safetensors"
    output = snakemake(copy, "--", wanted, configfile=last)
    assert digest(copy / wanted) == before[f"{line}/model.safetensors"] and "gen2" not in output
    assert "Nothing to be done" in snakemake(copy, "-n", configfile=last)

    # a run that goes on needs none of them
    jobs = planned(snakemake(copy, "-n", configfile=config(tmp_path, "last", generations=4)))
    assert (jobs["train_child"], jobs["generate_shard"], jobs["mutate_parent"]) == (5, 6, 2)
    assert "train_founder" not in jobs


def test_a_pruning_waits_for_all_that_reads_the_weights(plan):
    records = read_records(Path("results/toy"))[0]
    for name, generation in [(name, g) for name in ("line", "population") for g in range(2)]:
        weights, waits = (
            set(pruning.prunable(plan, name, generation)),
            pruning_inputs(plan, name, generation),
        )
        waits = {path for paths in waits.values() for path in paths}
        readers = {
            path: record for path, record in records.items() if weights & set(record["inputs"])
        }
        # a parent's own weights are pruned too: whoever reads those is waited for
        readers = {
            path: record for path, record in readers.items() if record["rule"] != "mutate_parent"
        }
        assert bool(readers) == bool(weights)
        for path, record in readers.items():
            assert waits & {
                path,
                *(str(Path(path).parent / output) for output in record["outputs"]),
            }, (name, generation, path)


def test_parents_stay(copy, plan, tmp_path):
    before = weights(copy)
    parents = yaml.safe_load((copy / "results/toy/population/gen1/selection.json").read_text())[
        "parents"
    ]
    snakemake(copy, configfile=config(tmp_path, "parents"))
    assert {name for name in weights(copy) if "/gen1/" in name} == {
        "line/gen1/member0/model.safetensors",
        *(f"population/gen1/member{m}/model.safetensors" for m in parents),
    }
    assert not any("/parent" in name for name in weights(copy)) and any(
        "/parent" in name for name in before
    )
    assert "Nothing to be done" in snakemake(copy, "-n", configfile=config(tmp_path, "parents"))


def test_a_pruning_that_was_cut_off_is_finished(copy, plan, tmp_path):
    victim = copy / "results/toy/population/gen1/member0/model.safetensors"
    was = digest(victim)
    for name in (str(victim), *kept_copies(str(victim))):
        Path(name).unlink()
    snakemake(copy, configfile=config(tmp_path, "last"))
    told = yaml.safe_load((copy / "results/toy/population/gen1/pruned.json").read_text())["removed"]
    assert told["member0/model.safetensors"] == was
    assert not verify(Path("results/toy"), plan).findings


def test_a_run_from_before_the_key_keeps_all():
    older = {
        key: value
        for key, value in resolve(yaml.safe_load(TOY.read_text())).items()
        if key != "keep"
    }
    plan = Plan(older, "results/toy")
    assert (
        pruning.keeps(plan) == "all" and pruning.prunings(plan) == [] and ", 0 done" in report(plan)
    )
