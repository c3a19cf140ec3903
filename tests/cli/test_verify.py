"""`pollination verify`: one damaged file of every kind is found and named, and what is
typed makes exactly that again.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pollination.cli import main
from pollination.cli.runs.records import _in_place
from pollination.cli.runs.verification import verify
from pollination.core import artifacts
from tests.conftest import ROOT, TOY, TOY_PLAN, planned, snakemake

RUN = "results/toy"
BATCHES = 8  # in which files are damaged together: no file and its record in one
SHARDS = [f"{RUN}/population/gen0/synthetic0/shard{s}.parquet" for s in (0, 1)]
MEMBER = f"{RUN}/population/gen1/member2"


@pytest.fixture
def copy(finished, tmp_path, monkeypatch) -> Path:
    """A run of one's own; hard links stay links, as `cp -a` would have it."""
    os.system(f"cp -a '{finished}' '{tmp_path}/run'")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def say(capsys, *words: str) -> tuple[int, str]:
    status = main(["verify", "--configfile", str(TOY), *words])
    return status, capsys.readouterr().out


def found(**options) -> list[tuple[str, str]]:
    return [
        (finding.kind, finding.path) for finding in verify(Path(RUN), TOY_PLAN, **options).findings
    ]


def every_kind() -> list[str]:
    """One artifact of each kind: of files whose paths differ in numbers only, one."""
    kinds: dict[str, str] = {}
    for path in sorted(Path(RUN).rglob("*")):
        name = str(path)
        if (
            path.is_file()
            and "/." not in name
            and not re.match(f"{RUN}/(logs|benchmarks|staged)/", name)
        ):
            kinds.setdefault(re.sub(r"\d+", "", name), name)
    return list(kinds.values())


def flip(path: str, place: float = 0.5) -> None:
    content = bytearray(Path(path).read_bytes())
    content[int(len(content) * place)] ^= 1
    replace(path, bytes(content))


def replace(path: str, content: bytes) -> None:
    """Another file under this name: its kept second name, if any, stays what it was."""
    Path(path).unlink()
    Path(path).write_bytes(content)


def test_a_whole_run_is_as_it_was_written(copy, capsys):
    status, out = say(capsys, "--jobs", "2")
    assert status == 0 and "All files match their records." in out
    assert "no record names" not in out  # every artifact has a record


@pytest.mark.slow
def test_a_flipped_byte_a_cut_and_an_emptied_file_of_every_kind_are_found(copy):
    kinds = every_kind()
    assert len(kinds) > 60
    again = set()
    for some in (kinds[start::BATCHES] for start in range(BATCHES)):
        whole = {path: Path(path).read_bytes() for path in some}
        for number, path in enumerate(some):
            flip(path, (number % 7) / 7)
        findings = verify(Path(RUN), TOY_PLAN).findings
        again |= {finding.rebuild for finding in findings}
        assert {finding.path for finding in findings} >= set(some), "a flipped byte"
        for path, content in whole.items():
            replace(path, content[: -max(1, len(content) // 3)])
        assert {name for _, name in found()} >= set(some), "cut short"
        for path in some:
            replace(path, b"")
        assert {name for _, name in found()} >= set(some), "emptied"
        for path, content in whole.items():
            replace(path, content)
    assert found() == []
    for path in again:
        Path(path).unlink()
    snakemake(copy, "-n", "--", *sorted(again))  # each of them is something that Snakemake makes


def test_what_is_wrong_is_said(copy):
    flip(SHARDS[0])
    replace(f"{MEMBER}/model.safetensors", Path(f"{MEMBER}/model.safetensors").read_bytes()[:-100])
    replace(f"{MEMBER}/scores.json", b"")
    Path(f"{RUN}/tokens/toy/world/train.bin").unlink()
    Path(f"{RUN}/population/gen1/selection.run.json").unlink()
    assert sorted(found()) == [
        ("cut short", f"{MEMBER}/model.safetensors"),
        ("damaged", SHARDS[0]),
        ("empty", f"{MEMBER}/scores.json"),
        ("missing", f"{RUN}/tokens/toy/world/train.bin"),
        ("unrecorded", f"{RUN}/population/gen1/selection.json"),
    ]


def test_a_deleted_generation_is_named_if_later_jobs_have_read_it(copy):
    shutil.rmtree(f"{RUN}/population/gen1")
    deleted = {path for kind, path in found() if kind == "deleted"}
    assert f"{MEMBER}/scores.json" in deleted
    assert all(path.startswith(f"{RUN}/population/gen1/") for path in deleted)
    snakemake(copy, "-n", "--", *sorted(deleted))


def test_swapped_shards_are_found_with_and_without_their_records(copy):
    def swap(*pairs: tuple[str, str]) -> None:
        for one, two in pairs:
            Path(one).rename("aside")
            Path(two).rename(one)
            Path("aside").rename(two)

    swap(SHARDS)
    assert sorted(found()) == [("damaged", path) for path in SHARDS]
    records = [path.replace(".parquet", ".run.json") for path in SHARDS]
    swap(records)
    assert sorted(found()) == [("damaged", path) for path in SHARDS] + [
        ("misplaced", path) for path in records
    ]
    swap(SHARDS, records)
    swap((MEMBER, MEMBER.replace("member2", "member1")))  # two whole members
    assert {kind for kind, _ in found()} == {"misplaced"}


def test_a_stale_file_with_a_new_time_stamp_is_found_and_what_was_made_from_another(copy):
    other = Path(f"{RUN}/founders/human/member0/model.safetensors").read_bytes()
    replace(f"{MEMBER}/model.safetensors", other)  # an older model, younger than all that follows
    assert ("damaged", f"{MEMBER}/model.safetensors") in found()
    record = artifacts.read_json(
        f"{MEMBER}/run.json"
    )  # and with a record that fits it: what was made from the right one is stale
    record["outputs"]["model.safetensors"] = artifacts.digest(f"{MEMBER}/model.safetensors")
    record.pop("seal")
    os.unlink(f"{MEMBER}/run.json")
    artifacts.write_json(f"{MEMBER}/run.json", artifacts.seal(record))
    kinds = found()
    assert ("stale", f"{MEMBER}/scores.run.json") in kinds and {kind for kind, _ in kinds} == {
        "stale"
    }


def test_a_changed_word_in_a_record_is_found(copy):
    path = f"{MEMBER}/run.json"
    text = Path(path).read_text()
    replace(path, text.replace('"pollination": "', '"pollination": "9').encode())
    assert found() == [("damaged record", path)]


def test_a_record_that_leads_nowhere_is_damaged_and_one_that_a_run_at_work_deletes_meanwhile_is_not(
    copy, monkeypatch
):
    gone, nowhere = (
        Path(RUN, "population/gen1/selection.run.json"),
        Path(RUN, "population/gen0/selection.run.json"),
    )
    nowhere.unlink()
    nowhere.symlink_to("nowhere")
    pipe = Path(RUN, "line/gen0/selection.run.json")
    os.mkfifo(pipe)
    read = artifacts.read_record
    monkeypatch.setattr(
        artifacts, "read_record", lambda path: (path == gone and gone.unlink(), read(path))[1]
    )
    assert [path for kind, path in found() if kind == "damaged record"] == [str(pipe), str(nowhere)]


def test_a_linked_folder_is_checked_once_and_a_circle_ends(copy):
    shutil.move(MEMBER, "other disk")
    Path(MEMBER).symlink_to(Path("other disk").resolve())
    Path(RUN, "population/again").symlink_to(Path(RUN).resolve())
    assert not found()
    flip(f"{MEMBER}/model.safetensors")
    assert ("damaged", f"{MEMBER}/model.safetensors") in found()


def test_another_users_read_only_results_are_verified_without_the_config(copy, capsys):
    flip(SHARDS[1])
    names = [path for path in Path(RUN).rglob("*") if path.is_dir()]
    for path in [*names, Path(RUN)]:
        path.chmod(0o555)
    before = sorted(str(path) for path in Path(RUN).rglob("*"))
    try:
        status = main(["verify", str(copy / RUN)])
        assert status == 1 and f"damaged  {copy}/{SHARDS[1]}" in capsys.readouterr().out
        assert sorted(str(path) for path in Path(RUN).rglob("*")) == before
    finally:
        for path in [*names, Path(RUN)]:
            path.chmod(0o755)


def type_what_it_says(copy: Path, capsys) -> dict[str, int]:
    """Rule -> jobs that the commands plan; after the first command that runs, all is whole."""
    status, out = say(capsys, "--profile", str(ROOT / "profiles/local"))
    lines = [line.strip() for line in out.splitlines()]
    (remove,) = [line for line in lines if line.startswith("rm ")]
    again, after = [line for line in lines if line.startswith("snakemake ")]
    assert status == 1 and again.endswith(remove.removeprefix("rm "))
    for name in remove.split()[1:]:
        Path(name).unlink()
    base = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(copy / "project/Snakefile"),
        "--cores",
        "2",
    ]
    typed = [*base, *shlex.split(again)[1:]]
    dry = subprocess.run([*typed, "-n"], capture_output=True, text=True, check=True).stdout
    subprocess.run(typed, capture_output=True, check=True)
    assert found() == []
    rest = subprocess.run(
        [*base, *shlex.split(after.split("#")[0])[1:]], capture_output=True, text=True, check=True
    )
    assert "Nothing to be done" in rest.stdout + rest.stderr
    return planned(dry)


@pytest.mark.slow
def test_what_it_says_to_type_makes_exactly_that_again(copy, capsys):
    path = f"{MEMBER}/model.safetensors"
    whole = artifacts.digest(path)
    with open(path, "r+b") as file:  # in place: the kept second name has it too
        file.seek(-50, 2)
        file.write(b"x")
    flip(
        f"{RUN}/line/gen0/synthetic0/shard1.parquet"
    )  # a new file of that name: the second name is whole, and linked again
    assert type_what_it_says(copy, capsys) == {"train_child": 1, "generate_shard": 1, "total": 2}
    assert artifacts.digest(path) == whole


def test_a_file_of_a_folder_that_a_job_writes_as_a_whole_is_made_again(copy, capsys):
    flip(f"{RUN}/tasks/knowledge/splits/test.parquet")
    (finding,) = verify(Path(RUN), TOY_PLAN).findings
    assert (
        finding.rebuild == f"{RUN}/tasks/knowledge/task.json"
    )  # which evaluations read: a run that is not asked for it makes it too
    assert type_what_it_says(copy, capsys) == {"stage_task": 1, "total": 1}


def test_names_and_json_serve_scripts(copy, capsys):
    assert say(capsys, "--names") == (0, "")
    flip(SHARDS[0])
    assert say(capsys, "--names") == (1, f"{SHARDS[0]}\n")
    status, out = say(capsys, "--json")
    told = json.loads(out)
    assert (
        status == 1
        and told["findings"][0]["path"] == SHARDS[0]
        and told["type"][0] == f"rm {SHARDS[0]}"
    )


@pytest.mark.parametrize("words", [("nowhere",), ("--jobs", "0"), ()])
def test_what_cannot_be_verified_is_a_usage_error(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["verify", *words, *(() if "nowhere" in words else ("--configfile", str(TOY)))]) == 2
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_many_findings_do_not_become_one_endless_line(copy, capsys):
    for path in every_kind()[:20]:
        replace(path, b"")
    shutil.copytree(RUN, "my run", symlinks=True)
    assert main(["verify", "my run"]) == 1
    out = capsys.readouterr().out
    list_them = next(line.strip() for line in out.splitlines() if "again.txt" in line)
    assert list_them == "pollination verify 'my run' --names > again.txt"
    main(["verify", "my run", "--names"])
    Path("again.txt").write_text(capsys.readouterr().out)
    (remove,) = [line.strip() for line in out.splitlines() if line.endswith("rm -f")]
    subprocess.run(remove, shell=True, check=True)
    assert not [path for path in Path("again.txt").read_text().splitlines() if Path(path).exists()]


def rewrite(path: str, change) -> None:
    """Change the params of a record, and seal it again as its job would."""
    record = artifacts.read_json(path)
    change(record["params"])
    record.pop("seal")
    os.unlink(path)
    artifacts.write_json(path, artifacts.seal(record))


def test_weights_of_another_learning_rate_than_the_config_are_found(copy, capsys, monkeypatch):
    """A job that starts after the config was edited records what it used."""
    record = f"{RUN}/founders/human/member1/run.json"
    rewrite(record, lambda params: params["training"]["train"].update(learning_rate=0.005))
    status, out = say(capsys)
    line = "founders.human.train.learning_rate: recorded 0.005, the config says 0.01"
    assert status == 1 and f"  other settings  {record}  {line}" in out, out
    assert out.count("other settings") == 1 and f"rm {record}" in out
    elsewhere = copy.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # a copy anywhere, with the config that its folder holds
    assert main(["verify", str(copy / RUN)]) == 1
    assert line in capsys.readouterr().out and not list(elsewhere.iterdir())


def test_an_edited_config_is_found_in_every_record_that_it_concerns(copy, capsys):
    text = TOY.read_text().replace("learning_rate: 1.0e-3", "learning_rate: 2.0e-3")
    Path("edited.yaml").write_text(text)
    assert main(["verify", "--configfile", "edited.yaml", "--names"]) == 1
    names = capsys.readouterr().out.split()
    trained = sorted(str(path) for path in Path(RUN).glob("*/gen[12]/member*/run.json"))
    assert sorted(name for name in names if name in trained) == trained
    assert not [name for name in names if "/founders/" in name or "/scores" in name]


def test_records_of_older_versions_are_no_findings_but_an_earlier_recipe_is(copy, capsys):
    member = f"{RUN}/founders/human/member0"

    def older(params: dict) -> None:
        params["device"] = "cuda"  # was a setting
        params["training"]["train"].pop("dropout", None)  # a key that came later

    rewrite(f"{member}/run.json", older)
    rewrite(f"{RUN}/corpora/world/run.json", lambda params: params["corpus"].update(max_overlap=2))
    assert say(capsys)[0] == 0
    rewrite(f"{member}/run.json", lambda params: params.update(recipe=params["recipe"] - 1))
    status, out = say(capsys)
    said = "made by an earlier recipe (3, now 4); snakemake recomputes it"
    assert status == 1 and f"  other recipe  {member}/run.json  {said}" in out, out


def test_a_record_nested_without_end_is_damaged_after_the_rules_were_loaded_too(copy, capsys):
    path = f"{MEMBER}/run.json"
    replace(path, b'{"a":' * 100_000)
    status, out = say(capsys)  # the rules raise the recursion limit
    assert status == 1 and f"damaged record  {path}" in out


@pytest.mark.parametrize(
    ("path", "wildcards", "in_place"),
    [
        ("7/gen1/member0/scores.run.json", {"place": "7/gen1", "member": "0"}, True),
        ("007/gen1/member0/scores.run.json", {"place": "7/gen1", "member": "0"}, False),
        ("7/gen11/member0/scores.run.json", {"place": "7/gen1", "member": "0"}, False),
        ("pop.s42/gen1/member0/run.json", {"experiment": "pop.s4", "gen": "1"}, False),
        ("pop.s4/gen1/member0/run.json", {"experiment": "pop", "gen": "1"}, False),
        ("founders/human/member1/run.json", {"pool": "human", "member": "1"}, True),
        ("founders/human/member11/run.json", {"pool": "human", "member": "1"}, False),
        ("tokens/tiny/world/train.run.json", {"model": "tiny", "split": "train"}, True),
        ("staged/a.b.run.json", {"corpus": "a.b"}, True),
        ("report/families.members.run.json", {"survey": "members"}, True),
        ("report/families.members2.run.json", {"survey": "members"}, False),
    ],
)
def test_a_record_is_of_its_own_folder_and_no_other_of_a_like_name(path, wildcards, in_place):
    assert _in_place({"wildcards": wildcards}, Path(path)) is in_place
