"""`pollination export` and `import`: one generation in an archive, checked and made again
elsewhere; models and texts with cards.
"""

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from pollination.cli import main
from pollination.cli.runs.archive import LEFT_OUT, MANIFEST, mirrored
from pollination.cli.runs.cards import _base
from pollination.cli.runs.reproduction import located
from pollination.cli.runs.verification import verify
from pollination.core import artifacts
from pollination.plan.outputs import generation_files
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run
from tests.cli.test_reproduce import change_record
from tests.cli.test_verify import replace
from tests.conftest import TOY, TOY_PLAN, serving

RUN = "results/toy"
MEMBER = "population/gen1/member0"
SHARD = "population/gen1/synthetic0/shard0.parquet"


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Path:
    """A folder of one's own with the finished run."""
    shutil.copytree(finished / RUN, tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory) -> Path:
    """Generation 1 of the population: whole.zip with its inputs, bare.zip without."""
    folder = tmp_path_factory.mktemp("packed")
    words = ["export", "population", "1", "--run", str(finished / RUN), "--to"]
    assert main([*words, str(folder / "whole.zip"), "--inputs", "--licence", "CC-BY-4.0"]) == 0
    assert main([*words, str(folder / "bare.zip")]) == 0
    return folder


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def error_of(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main([*words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


@pytest.mark.slow
def test_a_generation_is_verified_and_made_again_in_an_empty_clone(finished, packed, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(finished / "project", clone)

    def say(*words: str) -> str:
        command = [sys.executable, "-m", "pollination", *words]
        done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    archive = tmp_path / "whole.zip"
    shutil.copy(packed / "whole.zip", archive)
    say("import", str(archive))
    assert "All files match their records." in say("verify", RUN)
    out = say("reproduce", "population", "1", "--run", RUN, "--cores", "2")
    assert f"{len(generation_files(TOY_PLAN, 'population', 1))} files equal, 0 differ" in out
    made = clone / "reproduced/toy.population.gen1"
    for path in generation_files(TOY_PLAN, "population", 1):
        assert (made / path).read_bytes() == (finished / path).read_bytes()
        assert not (made / path).is_symlink()


def test_the_same_files_give_the_same_bytes(here, packed):
    for path in Path(RUN).rglob("*"):
        os.utime(path, (1e9, 1e9))
    words = ["export", "population", "1", "--run", RUN, "--inputs", "--licence", "CC-BY-4.0"]
    if "unknown" in contents(packed / "whole.zip")["README.md"].decode():
        # Without a commit, the day of publication is that of the files.
        crate = json.loads(contents(packed / "whole.zip")["ro-crate-metadata.json"])
        root = next(one for one in crate["@graph"] if one["@id"] == "./")
        words += ["--date", root["datePublished"]]
    assert main([*words, "--to", "again.zip"]) == 0
    assert Path("again.zip").read_bytes() == (packed / "whole.zip").read_bytes()
    # An imported run gives the same archive again.
    assert main(["import", "again.zip", "--into", "results/other"]) == 0
    words[words.index(RUN)] = "results/other"
    assert main([*words, "--to", "third.zip"]) == 0
    assert Path("third.zip").read_bytes() == Path("again.zip").read_bytes()


def test_an_archive_holds_what_it_says(packed, finished):
    whole, bare = contents(packed / "whole.zip"), contents(packed / "bare.zip")
    made = {path.removeprefix(f"{RUN}/") for path in generation_files(TOY_PLAN, "population", 1)}
    assert made < bare.keys() < whole.keys() | {LEFT_OUT}
    assert f"{MEMBER}/run.json" in bare and f"{MEMBER}/train.jsonl" in bare
    assert "founders/human/member0/model.safetensors" in whole.keys() - bare.keys()
    assert not any("/." in name or name.startswith(("line", "logs")) for name in whole)
    left_out = {line[66:] for line in bare[LEFT_OUT].decode().splitlines()}
    assert left_out <= whole.keys()
    assert "pollination reproduce population 1 --run results/toy" in whole["README.md"].decode()
    assert "cannot be recomputed alone" in bare["README.md"].decode()
    assert b"torch==" in whole["requirements.txt"]
    with zipfile.ZipFile(packed / "whole.zip") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_the_metadata_are_a_workflow_run_crate(packed):
    from rocrate.rocrate import ROCrate

    crate = ROCrate(packed / "whole.zip")
    root, workflow = crate.root_dataset, crate.mainEntity
    profiles = {one.id for one in root["conformsTo"]}
    assert {
        "https://w3id.org/ro/wfrun/process/0.5",
        "https://w3id.org/ro/wfrun/workflow/0.5",
        "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
    } == profiles
    assert root["license"].id == "https://spdx.org/licenses/CC-BY-4.0"
    assert root["name"] and root["description"] and root["datePublished"]
    assert workflow.type == ["File", "SoftwareSourceCode", "ComputationalWorkflow"]
    assert workflow["programmingLanguage"].id.endswith("#snakemake")
    (action,) = root["mentions"]
    assert action.type == "CreateAction" and action["instrument"] is workflow
    results, inputs = ({one.id for one in action[key]} for key in ("result", "object"))
    assert f"{MEMBER}/model.safetensors" in results and "config.yaml" in inputs
    assert "founders/human/member0/model.safetensors" in inputs
    files, digests = contents(packed / "whole.zip"), {}
    for line in files[MANIFEST].decode().splitlines():
        digests[line[66:]] = line[:64]
    described = {one.id: one for one in crate.data_entities}
    about = {MANIFEST, "ro-crate-metadata.json"}
    assert described.keys() == files.keys() - about
    for name, one in described.items():
        assert one.get("sha256", digests[name]) == digests[name]
    assert "license" in ROCrate(packed / "bare.zip").root_dataset


def test_a_damaged_or_unfinished_generation_is_not_packed(here, capsys):
    words = ["export", "population", "1", "--run", RUN, "--to", "x.zip"]
    path = Path(RUN, MEMBER, "scores.json")
    path.write_bytes(path.read_bytes() + b" ")
    assert "its digest" in error_of(capsys, *words)
    path.unlink()
    assert "scores.json: no such file" in error_of(capsys, *words)
    Path(RUN, MEMBER, "scores.run.json").unlink()
    path.write_text("{}")
    assert "no record names this file" in error_of(capsys, *words)
    assert [path.name for path in here.iterdir()] == ["results"]
    Path("x.zip").touch()
    assert "nothing was overwritten" in error_of(capsys, *words)


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy of an archive whose list of (entry, bytes) `change` has edited."""
    with zipfile.ZipFile(source) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(target, "w") as archive:
        for entry, content in change(entries):
            archive.writestr(entry, content)
    return target


def extra(name: str, kind: int = stat.S_IFREG, compressed: bool = False):
    def change(entries: list) -> list:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (kind | 0o777) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        return [*entries, (entry, b"/etc/passwd")]

    return change


def other_scores(entries: list) -> list:
    return [
        (entry, content + b" " if entry.filename.endswith("scores.json") else content)
        for entry, content in entries
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (extra("../outside.txt"), "leads out of the folder"),
        (extra("/tmp/outside.txt"), "leads out of the folder"),
        (extra("population/../../outside.txt"), "leads out of the folder"),
        (extra("C:/outside.txt"), "leads out of the folder"),
        (extra("population/link", stat.S_IFLNK), "no regular file"),
        (extra("population/gen1/"), "leads out of the folder"),
        (extra(".driver/pins"), "hidden"),
        (extra("zeros.bin", compressed=True), "compressed"),
        (extra("README.md/inner.txt"), "both a file and a folder"),
        (extra("more.txt"), "do not fit"),
        (lambda entries: entries[1:], "do not fit"),
        (lambda entries: [one for one in entries if one[0].filename != MANIFEST], f"no {MANIFEST}"),
        (other_scores, "its digest differs"),
    ],
)
def test_what_could_do_harm_is_refused_and_nothing_stays_behind(
    change, complaint, packed, tmp_path, monkeypatch, capsys
):
    archive = rewritten(packed / "bare.zip", tmp_path / "odd.zip", change)
    folder = tmp_path / "a/clone"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert complaint in error_of(capsys, "import", str(archive))
    assert not [path for path in folder.rglob("*") if path.name != "results"]
    assert sorted(os.listdir(tmp_path)) == ["a", "odd.zip"]


def test_half_an_archive_and_a_taken_folder_are_refused(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = (packed / "bare.zip").read_bytes()
    Path("half.zip").write_bytes(content[: len(content) // 2])
    assert "not a whole zip file" in error_of(capsys, "import", "half.zip")
    middle = bytearray(content)
    middle[len(middle) // 2] ^= 1
    Path("bad.zip").write_bytes(middle)
    error_of(capsys, "import", "bad.zip")
    Path(RUN).mkdir(parents=True)
    Path(RUN, "mine.txt").touch()
    assert "nothing was overwritten" in error_of(capsys, "import", str(packed / "bare.zip"))
    assert os.listdir("results") == ["toy"] and os.listdir(RUN) == ["mine.txt"]


def test_verify_judges_an_imported_run_by_its_archive(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(packed / "bare.zip"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == RUN
    assert main(["verify", RUN]) == 0
    out = capsys.readouterr().out
    assert "inputs that the archive leaves out" in out and "not done yet" not in out
    assert "All settings are those of the config" in out
    Path(RUN, "requirements.txt").write_text("other==1\n")
    Path(RUN, MEMBER, "run.json").unlink()
    assert main(["verify", RUN]) == 1
    out = capsys.readouterr().out
    assert "requirements.txt" in out and f"{MEMBER}/run.json" in out
    assert "pollination import ARCHIVE" in out and "rm " not in out and "snakemake -" not in out
    error = error_of(capsys, "reproduce", "population", "1", "--run", RUN)
    assert "no record names this file" in error


def test_without_inputs_reproduce_names_the_option(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(packed / "bare.zip")]) == 0
    assert "--inputs" in error_of(capsys, "reproduce", "population", "1", "--run", RUN)


def test_verify_never_deletes_what_it_has_no_record_of(finished, tmp_path, monkeypatch, capsys):
    for path in generation_files(TOY_PLAN, "population", 1):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / path, tmp_path / path)
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--configfile", str(TOY)]) == 1
    out = capsys.readouterr().out
    assert "unrecorded" in out and "rm " not in out and "move them elsewhere" in out
    assert main(["verify", "--configfile", str(TOY), "--names"]) == 1
    assert capsys.readouterr().out == ""


def test_files_from_outside_the_run_travel_too(here, capsys):
    record = f"{RUN}/population/gen1/selection.run.json"
    before = Path(record).read_bytes()
    # Any name that an archive can hold is read again; others are refused before it is written.
    for name, whole in (("a\u2028b.txt", True), ("a\\b.txt", False), ("a\nb.txt", False)):
        Path(name).write_text("text")
        change_record(record, inputs={name: artifacts.digest(name)})
        to = ["--inputs", "--to", f"{whole}.zip"]
        assert main(["export", "population", "1", "--run", RUN, *to]) == 2 * (not whole), name
        replace(record, before)
        if whole:
            assert main(["import", to[-1], "--into", "strange"]) == 0
        else:
            assert "cannot be in an archive" in capsys.readouterr().err
    Path("own").mkdir()
    Path("own/rule.py").write_text("def rule(scores): ...\n")
    change_record(record, inputs={"own/rule.py": artifacts.digest("own/rule.py")})
    assert main(["export", "population", "1", "--run", RUN, "--inputs", "--to", "x.zip"]) == 0
    shutil.rmtree("own")
    assert main(["import", "x.zip", "--into", "elsewhere/results/toy"]) == 0
    folder = Path("elsewhere/results/toy")
    assert verify(folder, read_run(str(folder))).outside == 0
    config = read_run(str(folder)).config
    config["experiments"]["population"]["select"]["rule"] = "own/rule.py:rule"
    rule = located(config, folder)["experiments"]["population"]["select"]["rule"]
    assert rule == f"{here}/{folder}/inputs.d/own/rule.py:rule" and Path(rule[:-5]).is_file()
    assert mirrored("../text/a.txt") == "inputs.d/up/text/a.txt"
    assert mirrored("/data/a.txt") == "inputs.d/absolute/data/a.txt"
    # Without the file, the archive is refused rather than written without it.
    assert "own/rule.py" in error_of(capsys, "export", "population", "1", "--run", RUN, "--inputs")


def test_a_model_folder_has_a_card_and_loads(here, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = ["export", MEMBER, "--run", RUN, "--to", "model", "--licence", "CC-BY-4.0"]
    assert main(words) == 0
    model, tokenizer = (
        one.from_pretrained("model") for one in (AutoModelForCausalLM, AutoTokenizer)
    )
    assert model.num_parameters() > 0 and tokenizer("ada lives in")["input_ids"]
    card = Path("model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "license: cc-by-4.0" in card
    assert "generation 0, member" in card and "a microworld" in card
    assert "| knowledge | accuracy | 0." in card and str(here) not in card
    assert "nothing was overwritten" in error_of(capsys, *words)
    weights = Path(RUN, MEMBER, "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "damaged" in error_of(capsys, *words[:-3], "second")
    assert sorted(os.listdir()) == ["model", "results"]


@pytest.mark.parametrize(
    ("source", "recorded", "said"),
    [
        (".", {"model.safetensors": "1f"}, "a local folder, sha256 of `model.safetensors`: `1f`"),
        ("/of/another/machine", {}, "a local folder"),
        (
            "of/another",
            {"model.safetensors": "1f"},
            "a local folder, sha256 of `model.safetensors`: `1f`",
        ),
        ("owner/name", {}, "`owner/name`"),
        ("owner/name", {"revision": "2e"}, "`owner/name`, revision `2e`"),
        ({"founders": "human"}, {}, "founder 0 of the pool `human` of this run"),
    ],
)
def test_a_card_says_where_a_pretrained_model_is_from(tmp_path, source, recorded, said):
    (tmp_path / "models/base").mkdir(parents=True)
    record = artifacts.seal({"source": recorded})
    artifacts.write_json(tmp_path / "models/base/run.json", record)
    plan = Plan(TOY_PLAN.config | {"models": {"base": {"pretrained": source}}}, str(tmp_path))
    assert _base(plan, "base") == said


def test_a_synthetic_text_has_a_card_and_loads(here):
    from datasets import load_dataset

    assert main(["export", f"{RUN}/{SHARD}", "--to", "my_text", "--json"]) == 0
    loaded = load_dataset("my_text", split="train", cache_dir="cache")
    assert loaded["completion"] == artifacts.read_table(f"{RUN}/{SHARD}")["completion"].to_pylist()
    card = Path("my_text/README.md").read_text()
    parents = artifacts.read_json(f"{RUN}/population/gen1/selection.json")["parents"]
    assert f"text of population, generation 1, member {parents[0]}" in card
    assert all(f"- `{column}`:" in card for column in loaded.column_names)


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does when a repository is made and files are committed to it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append((self.path, body))
        place = f"http://127.0.0.1:{self.server.server_port}/me/it"
        said: dict = {"url": place, "name": "me/it", "errors": [], "warnings": []}
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            said = {"files": [{"path": one["path"]} | plain for one in files]}
        if "/commit/" in self.path:
            said = {"commitUrl": f"{place}/commit/1", "commitOid": "1" * 40}
        text = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, *_words) -> None:
        pass


UPLOAD = """
import sys
from pollination.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_upload_needs_the_users_word(here):
    with serving(Hub, asked=[]) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        env = os.environ | {"HF_ENDPOINT": address, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0"}
        words = ["export", MEMBER, "--run", RUN, "--to", "hub:me/it"]

        def say(*more: str) -> tuple[int, str]:
            command = [sys.executable, "-c", UPLOAD, *words, *more]
            done = subprocess.run(command, capture_output=True, text=True, env=env)
            return done.returncode, done.stdout + done.stderr

        status, out = say()
        assert status == 1 and "Nothing was uploaded" in out and "model.safetensors" in out
        assert server.asked == []
        status, out = say("--yes-upload")
        assert status == 0, out
    made = next(json.loads(body) for path, body in server.asked if path.endswith("/repos/create"))
    assert made["visibility"] == "private"
    lines = next(body for path, body in server.asked if "/commit/" in path).splitlines()
    sent = {
        one["value"]["path"]: base64.b64decode(one["value"]["content"])
        for one in map(json.loads, lines)
        if one["key"] == "file"
    }
    weights = Path(RUN, MEMBER, "model.safetensors").read_bytes()
    assert sent["model.safetensors"] == weights and b"# toy: population" in sent["README.md"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("population",), "takes EXPERIMENT and GENERATION"),
        (("population", "1", "--yes-upload"), "MODEL or SHARD"),
        (("population", "1", "--licence", "NOPE"), "Unknown license: 'nope'; allowed: SPDX"),
        (("population", "1", "--licence", "MIT OR Zlib"), "'MIT OR Zlib' is not one licence"),
        (("population", "7"), "generation 7 is not in 'population'"),
        ((MEMBER, "--to", "hub:it"), "allowed: hub:OWNER/NAME"),
        ((MEMBER, "--to", "folder", "--yes-upload"), "is a folder"),
        (("model.bin", "--to", "folder"), "is not the path of a member"),
    ],
)
def test_what_cannot_be_exported_is_one_line(words, complaint, here, capsys):
    assert complaint in error_of(capsys, "export", *words, "--configfile", str(TOY))
