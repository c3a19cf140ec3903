"""keep: checkpoints and texts that nothing reads any more go, and neither a resume, nor lineage,
nor verify, nor reproduce misses them.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pollination.analysis.cost.disk import disk, on_disk
from pollination.analysis.cost.work import Loads
from pollination.cli import main
from pollination.cli.runs.planned import build_dag, loaded
from pollination.cli.runs.records import read_records
from pollination.cli.runs.status import report
from pollination.cli.runs.verification import verify
from pollination.core.artifacts import digest
from pollination.core.lease import kept_copies
from pollination.plan import pruning
from pollination.plan.config.resolve import resolve
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from pollination.plan.pruning import prunable_text, pruning_inputs, text_pruning_inputs
from tests.conftest import ROOT, TOY, planned, snakemake

ECOSYSTEM = ROOT / "config/test/ecosystem.yaml"


def config(folder: Path, checkpoints: str, text: str = "all", **defaults) -> Path:
    raw = yaml.safe_load(TOY.read_text()) | {"keep": {"checkpoints": checkpoints, "text": text}}
    raw["defaults"] |= defaults
    path = folder / f"{checkpoints}.{text}.yaml"
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


def texts(folder: Path) -> dict[str, str]:
    """Digest of every synthetic text of a run's folder, second names left out."""
    base = folder / "results/toy"
    return {
        path.relative_to(base).as_posix(): digest(path)
        for path in base.rglob("shard*.parquet")
        if ".work" not in path.as_posix()
    }


def estimated(plan: Plan) -> dict[str, float]:
    """Bytes on disk by kind, as `pollination cost` predicts them."""
    loads = Loads(plan)
    return disk(loads, list(loads))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))


@pytest.fixture
def plan(copy, monkeypatch) -> Plan:
    monkeypatch.chdir(copy)
    return Plan(resolve(yaml.safe_load(config(copy, "last").read_text())), "results/toy")


@pytest.mark.slow
def test_only_the_last_generation_stays_and_nothing_misses_the_others(copy, plan, tmp_path):
    before, last = weights(copy), config(tmp_path, "last")
    pool, line = "population/gen1", "line/gen1/member0"
    expected = {name for name in before if "/gen1/" not in name and "/parent" not in name}
    snakemake(copy, configfile=last)
    assert weights(copy) == {name: before[name] for name in expected}
    assert (
        f"{pool}/member0/model.safetensors" not in expected
        and "population/gen2/member0/model.safetensors" in expected
    )
    assert not kept_copies(
        f"results/toy/{pool}/member0/model.safetensors"
    )  # their second names held the space
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_text_goes_and_nothing_misses_it(copy, plan, tmp_path, capsys):
    before, weighed, none = texts(copy), weights(copy), config(tmp_path, "all", "none")
    jobs_left = planned(snakemake(copy, "-n", configfile=none))
    assert jobs_left["prune_text"] == 4
    assert not {"train_child", "generate_shard", "evaluate_member"} & jobs_left.keys()
    shard = "results/toy/line/gen0/synthetic0/shard0.parquet"
    assert len(before) == 2 * (2 * 2 + 1 * 2) and kept_copies(shard)  # gens, ranks, shards
    snakemake(copy, configfile=none)
    assert texts(copy) == {} and weights(copy) == weighed
    assert not kept_copies(shard)  # its second name held the space
    pruned = Plan(resolve(yaml.safe_load(none.read_text())), "results/toy")
    found = verify(Path("results/toy"), pruned)
    assert not found.findings and (found.pruned, found.unmade) == (len(before), 0)
    assert ", 0 waiting" in report(pruned)
    assert main(["verify", "--configfile", str(none)]) == 0
    assert f"files deleted on purpose (config key keep): {len(before)}" in capsys.readouterr().out
    main(["plan", "--configfile", str(none), "--json"])
    again = json.loads(capsys.readouterr().out)["again"]
    # the run's figures are those of the project's copy, whose code lies elsewhere
    assert all(job["rule"].startswith(("draw_", "write_landing")) for job in again)
    assert main(["lineage", "line/gen1/member0", "--configfile", str(none)]) == 0
    assert f"read  {shard} (deleted on purpose: config key keep)" in capsys.readouterr().out
    assert estimated(pruned)["synthetic text"] == 0 < estimated(plan)["synthetic text"]
    left = Path("results/toy").glob("*/gen*/synthetic*/*")
    assert {path.name.split(".", 1)[1] for path in left if path.is_file()} == {"run.json"}

    # a generation whose text is gone is reproduced, once the text that it reads is here again
    words = ["reproduce", "line", "1", "--configfile", str(none), "--cores", "2"]
    assert main(words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{shard} and 1 more: the run deleted this input of the generation on purpose" in said
    rebuild = said.split(f"--configfile {none} -- ")[1].split()
    output = snakemake(copy, "--", *rebuild, configfile=none)
    assert "train_" not in output and "gen1" not in output
    here = texts(copy)
    assert here == {name: before[name] for name in here} and len(here) == 2
    assert "Nothing to be done" in snakemake(copy, "-n", configfile=none)
    found = verify(Path("results/toy"), pruned)
    assert not found.findings and found.pruned == len(before) - 2
    assert main(["lineage", "line/gen1/member0", "--configfile", str(none), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == []
    assert main(words) == 0
    assert ", 0 differ: the generation is reproduced bit for bit" in capsys.readouterr().out

    # a run that goes on needs none of the text
    more = config(tmp_path, "all", "none", generations=4)
    todo = planned(snakemake(copy, "-n", configfile=more))
    assert (todo["train_child"], todo["generate_shard"]) == (5, 6)
    assert "train_founder" not in todo


@pytest.mark.parametrize("keep", [{"text": "none"}, {"text": "last", "checkpoints": "last"}])
@pytest.mark.parametrize("path", [TOY, ECOSYSTEM], ids=lambda path: path.stem)
def test_every_reader_of_the_plan_is_waited_for(path, keep, tmp_path, monkeypatch):
    """By Snakemake's DAG: whoever reads a file that may go writes what the pruning waits for."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load(path.read_text()) | {"keep": {"checkpoints": "last"} | keep}
    plan = Plan(resolve(raw, str(path)), "results/any")
    plan = Plan(plan.config, f"results/{plan.config['run']}")
    with loaded(plan, deep=True) as workflow:
        dag = [
            (job.rule.name, set(map(str, job.input)), set(map(str, job.output)), job.params)
            for job in build_dag(workflow).jobs
        ]
    known = len(list(jobs(plan)))
    extra = ("all", "write_config")
    assert known == sum(rule not in extra for rule, *_ in dag)  # status lists the same jobs
    written = {path for _, _, outputs, _ in dag for path in outputs}
    read = 0
    for rule, waits, _, params in dag:
        if not rule.startswith("prune_"):
            continue
        gone = set(params.prunable)
        assert gone <= written  # nothing that no job of the plan writes
        assert not gone & waits
        for reader, inputs, outputs, _ in dag:
            # a parent's own weights are pruned too: whoever reads those is waited for
            if gone & inputs and reader != "mutate_parent":
                read += 1
                assert outputs & waits, f"{rule} does not wait for {reader} {sorted(outputs)[0]}"
    assert read > 10


def eco(text: str, **change) -> Plan:
    raw = yaml.safe_load(ECOSYSTEM.read_text()) | {"keep": {"text": text}} | change
    return Plan(resolve(raw, str(ECOSYSTEM)), "r")


def test_which_text_goes_and_after_whom():
    plan = eco("none")
    pruned = {
        path.removeprefix("r/").removesuffix("/pruned_text.json")
        for path in pruning.text_prunings(plan)
    }
    assert pruned == {
        *("families/gen0", "families/gen1", "heap/gen0", "heap/gen1", "alone/gen0", "line/gen0"),
        *("reader/gen0", "reader/gen1"),  # which is dealt the text of families
    }
    shards = [f"r/families/gen1/synthetic{m}/shard0.parquet" for m in (0, 1)]
    deals = [f"r/families/gen1/deal{m}/text.parquet" for m in (0, 1)]
    assert prunable_text(plan, "families", 1) == [*shards, *deals]
    assert prunable_text(plan, "reader", 1) == ["r/reader/gen1/deal0/text.parquet"]
    waits = text_pruning_inputs(plan, "families", 0)
    assert set(waits) == {
        *(f"r/families/gen0/deal{m}/run.json" for m in (0, 1)),
        "r/reader/gen0/deal0/run.json",  # another experiment's
        *(
            f"r/families/gen1/member{m}/{f}"
            for m in (0, 1)
            for f in ("train.jsonl", "quality.json")
        ),
        *(f"r/reader/gen1/member0/{file}" for file in ("train.jsonl", "quality.json")),
        "r/corpora/wrote/corpus.json",
    }
    # all later generations accumulate it
    assert "r/heap/gen2/member1/train.jsonl" in text_pruning_inputs(plan, "heap", 0)
    kept = eco("last")
    assert {path.split("/")[1:3] == ["heap", "gen0"] for path in pruning.text_prunings(kept)} == {
        False  # the last generation reads it
    }
    assert prunable_text(kept, "families", 1) == [] != prunable_text(kept, "families", 0)
    assert pruning.text_prunings(eco("all")) == []
    sizes = {text: estimated(eco(text)) for text in ("all", "last", "none")}
    for kind in ("synthetic text", "dealt text"):
        assert sizes["all"][kind] > sizes["last"][kind] > sizes["none"][kind] == 0


def test_text_that_only_a_corpus_reads_waits_for_it_and_a_corpus_that_nothing_reads_for_none():
    corpora = yaml.safe_load(ECOSYSTEM.read_text())["corpora"]
    own = {"kind": "synthetic", "experiment": "line", "generation": 1}
    joined = {"kind": "union", "corpora": ["late", "world"]}
    measured = [{"corpus": "world"}, {"corpus": "own"}, {"corpus": "both", "split": "train"}]
    evaluate = yaml.safe_load(ECOSYSTEM.read_text())["evaluate"] | {"perplexity": measured}
    plan = eco("last", corpora=corpora | {"late": own, "both": joined}, evaluate=evaluate)
    assert prunable_text(plan, "line", 1) == ["r/line/gen1/synthetic0/shard0.parquet"]
    assert text_pruning_inputs(plan, "line", 1) == ["r/corpora/late/corpus.json"]
    unread = eco("last", corpora=corpora | {"late": own})
    assert prunable_text(unread, "line", 1) == []


def test_a_run_from_before_the_key_of_text_keeps_all():
    config = resolve(yaml.safe_load(TOY.read_text()))
    older = config | {"keep": {"checkpoints": "last"}}
    assert pruning.text_prunings(Plan(older, "results/toy")) == []
    lacking = {key: value for key, value in config.items() if key != "keep"}
    assert pruning.text_prunings(Plan(lacking, "results/toy")) == []


@pytest.mark.parametrize(
    ("keep", "section", "entry", "key"),
    [
        ("text", "corpora", {"kind": "files", "path": "results/eco/line/gen0"}, "path"),
        ("text", "corpora", {"kind": "files", "path": ["results/eco/*/gen0"]}, "path"),
        (
            "text",
            "corpora",
            {
                "kind": "files",
                "splits": dict.fromkeys(
                    ("train", "validation", "test"),
                    f"{ROOT}/results/eco/line/gen0/synthetic0/shard0.parquet",
                ),
            },
            "splits.test",
        ),
        ("text", "fingerprint", {"kind": "outputs", "path": "results/eco/line"}, "path"),
        ("checkpoints", "models", {"pretrained": "results/eco/line/gen1/member0"}, "pretrained"),
    ],
)
def test_a_path_to_files_that_may_go_is_refused(keep, section, entry, key, monkeypatch):
    """No job of the plan reads them as the run's own, so their deletion would not wait."""
    monkeypatch.chdir(ROOT)
    raw = yaml.safe_load(ECOSYSTEM.read_text())
    entry = {"models": "models.csv", **entry} if section == "fingerprint" else entry
    entry = {"context_tokens": 16, **entry} if section == "models" else entry
    raw[section] = raw.get(section, {}) | {"mine": entry}
    resolve(raw)
    with pytest.raises(ValueError, match=f"keep.{keep}: last deletes") as refused:
        resolve(raw | {"keep": {keep: "last"}})
    assert f"{section}.mine.{key}: " in str(refused.value)
    raw[section]["mine"] = json.loads(json.dumps(entry).replace("results/eco", "elsewhere"))
    resolve(raw | {"keep": {keep: "last"}})
