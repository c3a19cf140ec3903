"""Make a model folder or a data set with a card, and upload it to the Hugging Face hub.

A card says where a model or text comes from: its ancestors, the data that they read, scores and
licence. It holds no local paths. transformers loads the model folder, datasets the data set.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from pollination import __version__
from pollination.cli.common import CONFIGFILE
from pollination.cli.lineage import find_model
from pollination.core import artifacts
from pollination.plan.config.loading import is_absent_folder
from pollination.plan.corpora import joined_corpora, kind_of
from pollination.plan.datasets import dataset_of, datasets
from pollination.plan.layout import place_of
from pollination.plan.lineage import ancestry, format_ancestry
from pollination.plan.plan import MEMBER_FILES, Plan

HUB = "hub:"
REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
SHARD = re.compile(r"(?P<place>.+/gen\d+)/synthetic(?P<rank>\d+)/(?P<file>shard\d+\.parquet)")
LOAD_MODEL = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```"""
LOAD_TEXT = """\
```python
from datasets import load_dataset

texts = load_dataset("FOLDER", split="train")
```"""
COLUMNS = {
    "prompt_id": "the prompt's number",
    "prompt": "text that the model continued",
    "completion": "text that the model wrote",
    "token_ids": "tokens of prompt and completion, in the model's vocabulary",
    "prompt_tokens": "how many of the tokens are the prompt's",
    "seed": "the seed of the row",
    "vocabulary": "digest of the tokenizer",
}


@dataclass(frozen=True)
class Folder:
    """A folder or repository, its files with sizes in bytes, and whether it was written."""

    place: str
    files: dict[str, int]
    written: bool


def export_folder(
    what: str,
    to: str,
    run: str | None,
    configfile: str | None,
    licence: str | None,
    may_upload: bool,
) -> Folder:
    """Write a model or a synthetic text to a new folder `to`, or upload it to hub:OWNER/NAME.

    ValueError: `what` is neither, a file is damaged, the folder exists, or the hub refuses.
    """
    repository = to.removeprefix(HUB) if to.startswith(HUB) else None
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise ValueError(f"--to: {to!r} names no repository; allowed: hub:OWNER/NAME, or a folder")
    if repository is None and may_upload:
        raise ValueError(f"--yes-upload: {to!r} is a folder; allowed with it: --to hub:OWNER/NAME")
    if repository is None and os.path.lexists(to):
        raise ValueError(f"{to} exists, and nothing was overwritten; name a new folder with --to")
    path = os.path.normpath(what)
    if run and not Path(path).is_relative_to(run):
        path = os.path.join(run, path)
    found = SHARD.fullmatch(path)
    write: Callable[[Path], None]
    if found:
        plan, (name, generation, member) = _writer(found, configfile)
        kind = "dataset"

        def write(folder: Path) -> None:
            _write_text(folder, path, plan, name, generation, member, licence)
    else:
        plan, (name, generation, member) = find_model(path, configfile or CONFIGFILE)
        kind = "model"

        def write(folder: Path) -> None:
            _write_model(folder, plan, name, generation, member, licence)

    if repository is None:
        target = Path(to)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
        try:
            temporary.mkdir()
            write(temporary)
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Folder(to, _sizes(target), True)
    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
        files = _sizes(Path(place))
        if may_upload:
            _upload(Path(place), repository, kind)
    return Folder(to, files, may_upload)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _upload(folder: Path, repository: str, kind: str) -> None:
    """Upload a folder to a repository of the hub, which becomes private if it is new.

    The user's token is the one of `hf auth login`, or HF_TOKEN. ValueError: the hub refuses.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type=kind,
            folder_path=folder,
            commit_message=f"Upload with pollination {__version__}",
        )
    except (HTTPError, OSError, HFValidationError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--to: hub:{repository}: the upload failed ({reason}); log in with `hf auth login`, "
            "check the name, and type the command again"
        ) from None


def _writer(found: re.Match, configfile: str | None) -> tuple[Plan, tuple[str, int, int]]:
    """Return the plan, and the member that wrote a file of synthetic text."""
    plan, (name, generation, _) = find_model(f"{found['place']}/member0", configfile or CONFIGFILE)
    rank = int(found["rank"])
    selection = Path(plan.results, name, f"gen{generation}", "selection.json")
    parents = artifacts.read_json(selection)["parents"] if selection.is_file() else None
    return plan, (name, generation, parents[rank] if parents else rank)


def _copy(source: Path, folder: Path) -> str:
    """Copy a file after comparing it with its record, and return its digest."""
    digest = artifacts.check(source)
    shutil.copyfile(source, folder / source.name)
    return digest


def _write_model(
    folder: Path, plan: Plan, name: str, generation: int, member: int, licence: str | None
) -> None:
    place = Path(plan.results, place_of(plan, name, generation), f"member{member}")
    digests = {file: _copy(place / file, folder) for file in MEMBER_FILES}
    record = artifacts.read_record(place / "run.json")
    scored = place / "scores.json"
    scores = artifacts.read_json(scored) if scored.is_file() else {}
    tree = ancestry(plan, name, generation, member)
    pretrained = sorted({node["pretrained"] for node in tree["nodes"] if node["pretrained"]})
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    head |= {"tags": ["pollination"]} | _licence(licence)
    if hub := [model for model in pretrained if _is_on_hub(plan, model)]:
        head["base_model"] = [plan.config["models"][model]["pretrained"] for model in hub]
    title = f"{plan.config['run']}: {name}, generation {generation}, member {member}"
    parts = [
        f"# {title}",
        f"A language model of a population, trained by pollination {__version__}.",
        LOAD_MODEL,
        *_origin(plan, tree),
        *_scores(scores),
        *_made(record, digests, licence),
    ]
    _card(folder, head, parts)


def _write_text(
    folder: Path,
    path: str,
    plan: Plan,
    name: str,
    generation: int,
    member: int,
    licence: str | None,
) -> None:
    file = Path(path)
    if not path.startswith(f"{plan.results}/"):
        file = Path(plan.results, path)
    digests = {file.name: _copy(file, folder)}
    record = artifacts.read_record(file.with_name(f"{file.stem}.run.json"))
    rows = artifacts.read_table(file).num_rows
    head: dict[str, Any] = {"tags": ["pollination", "synthetic"]} | _licence(licence)
    split = {"split": "train", "path": file.name}
    head["configs"] = [{"config_name": "default", "data_files": [split]}]
    title = f"{plan.config['run']}: text of {name}, generation {generation}, member {member}"
    parts = [
        f"# {title}",
        f"Synthetic text of a language model: {rows:,} rows, made by pollination {__version__}.",
        LOAD_TEXT,
        "\n".join(f"- `{column}`: {about}." for column, about in COLUMNS.items()),
        "The writer:",
        *_origin(plan, ancestry(plan, name, generation, member)),
        *_made(record, digests, licence),
    ]
    _card(folder, head, parts)


def _licence(licence: str | None) -> dict[str, str]:
    return {"license": licence.lower() if licence else "unknown"}


def _card(folder: Path, head: dict, parts: list[str]) -> None:
    text = f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n" + "\n\n".join(parts) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _origin(plan: Plan, tree: dict) -> list[str]:
    """Return the sections on lineage and on the data that the ancestors read."""
    lineage = format_ancestry(tree).replace(f"{plan.results}/", "")
    named = {node["human"] for node in tree["nodes"] if node["human"]}
    corpora = sorted(
        named | {part for one in named for part in joined_corpora(plan.config["corpora"], one)}
    )
    shards = {path for node in tree["nodes"] for path in node["shards"]}
    lines = [f"- `{corpus}`: {_source(plan, corpus)}." for corpus in corpora]
    files = "1 file" if len(shards) == 1 else f"{len(shards):,} files"
    lines.append(f"- synthetic text of ancestors: {files}, listed above.")
    pretrained = sorted({node["pretrained"] for node in tree["nodes"] if node["pretrained"]})
    bases = [f"- `{model}`: {_base(plan, model)}." for model in pretrained]
    return [
        "## Lineage",
        f"```text\n{lineage}\n```",
        *(["## Pretrained models", "\n".join(bases)] if bases else []),
        "## Data",
        "\n".join(lines),
    ]


def _recorded(plan: Plan, model: str) -> dict[str, str]:
    """Return what a model's record says about its source: a revision of the hub, or digests."""
    record = Path(plan.results, "models", model, "run.json")
    return artifacts.read_record(record).get("source", {}) if record.is_file() else {}


def _is_on_hub(plan: Plan, model: str) -> bool:
    """Return whether a pretrained model is one of the hub; its folder may be of another machine."""
    source, known = plan.config["models"][model]["pretrained"], _recorded(plan, model)
    if known or not isinstance(source, str):
        return "revision" in known
    return not os.path.isdir(os.path.expanduser(source)) and not is_absent_folder(source)


def _base(plan: Plan, model: str) -> str:
    """Return what a pretrained model is, without local paths: its weights' digests, or revision."""
    source = plan.config["models"][model]["pretrained"]
    if not isinstance(source, str):
        return f"founder 0 of the pool `{source['founders']}` of this run"
    what = f"`{source}`" if _is_on_hub(plan, model) else "a local folder"
    known = _recorded(plan, model)
    said = [f"revision `{known['revision']}`"] if "revision" in known else []
    weights = (name for name in sorted(known) if name.endswith(".safetensors"))
    return ", ".join([what, *said, *(f"sha256 of `{name}`: `{known[name]}`" for name in weights)])


def _source(plan: Plan, corpus: str) -> str:
    """Return what a corpus is, without local paths."""
    spec, kind = plan.config["corpora"][corpus], kind_of(plan, corpus)
    if kind.world:
        return "a microworld, generated from a grammar"
    if kind.stager:
        name = spec["name"]
        return "a folder of local data" if os.path.exists(name) else f"`{name}` of the hub"
    if kind.local:
        paths = [*(spec["splits"] or {}).values(), spec.get("path")]
        flat = [one for path in paths for one in ([path] if isinstance(path, str) else path or [])]
        known = {name for path in flat if (name := dataset_of(path, plan.config["data"]))}
        texts = [f"{name} (licence {datasets()[name]['licence']})" for name in sorted(known)]
        return ", ".join(texts) or "local files"
    return f"corpus of the kind {spec['kind']}"


def _scores(scores: dict) -> list[str]:
    rows = [
        f"| {task} | accuracy | {one['accuracy']:.4f} | {one['stderr']:.4f} |"
        for task, one in sorted(scores.get("tasks", {}).items())
    ] + [
        f"| {text} | perplexity | {one['perplexity']:.4f} | |"
        for text, one in sorted(scores.get("perplexity", {}).items())
    ]
    head = "| text or benchmark | measure | value | standard error |\n|---|---|---|---|"
    return ["## Scores", "\n".join([head, *rows])] if rows else []


def _made(record: dict, digests: dict[str, str], licence: str | None) -> list[str]:
    """Return the sections on training or writing, and on the licence."""
    versions = ", ".join(f"{name} {one}" for name, one in sorted(record["versions"].items()))
    lines = [
        f"- Rule `{record['rule']}`, commit `{record['commit']}`.",
        f"- Versions: {versions}.",
        *(f"- sha256 of `{name}`: `{digest}`." for name, digest in sorted(digests.items())),
    ]
    granted = licence or "Not stated. Ask the person who gave you this folder."
    settings = yaml.safe_dump(_public(record["params"]), sort_keys=True)
    return [
        "## How it was made",
        "\n".join(lines),
        f"```yaml\n{settings}```",
        "## Licence",
        granted,
    ]


def _public(value: Any) -> Any:
    """Return settings without local paths."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    is_path = isinstance(value, str) and (value.startswith(("/", "~", ".")) or ".py:" in value)
    return "(local path)" if is_path else value
