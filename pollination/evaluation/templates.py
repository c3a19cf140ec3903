"""lm-eval's task templates on local files or hub data: leaf tasks, their splits and rows."""

import difflib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pollination.evaluation.template_source import (
    TemplateSource,
    opened,
    task_root,
    texts,
)
from pollination.plan.benchmark_folder import Leaf, read_benchmark

SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's warnings and the progress bars that it offers no switch for."""
    import lm_eval.api.task

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with patch.object(lm_eval.api.task, "tqdm", lambda items, **_: items):
            yield
    finally:
        logger.setLevel(level)


def stage_lm_eval(spec: dict) -> dict:
    """What `tasks.stage_task` writes of a template, built-in or of a user's folder: its leaves,
    each with the tables of the splits it needs.
    """
    if not spec.get("include_path"):
        with opened(None, None) as source:
            members = [
                Leaf(name, str(path.relative_to(source.root)), extra, None)
                for name, path, extra in _leaves(spec["template"])
            ]
            return _stage(spec, source, members)
    benchmark = read_benchmark(spec)
    files = texts(benchmark)
    with opened(benchmark.folder, files) as source:
        stage = _stage(spec, source, benchmark.leaves)
    return stage | {"include_path": benchmark.folder, "files": files}


def _stage(spec: dict, source: TemplateSource, members: list[Leaf]) -> dict:
    template, files = spec["template"], spec.get("data")
    local = {
        split: read_parquet(Path(path), f"data.{split}") for split, path in (files or {}).items()
    }
    leaves, absent = [], []
    plan: dict = {}
    for member in members:
        with source.blamed(member.yaml):
            config = source.load(member.yaml) | member.overrides
            if config.get("output_type") != "multiple_choice":
                raise ValueError(
                    f"task template {template!r} is not multiple choice (output_type "
                    f"{config.get('output_type')!r}); "
                    "name one that is, such as mmlu, winogrande, mathqa, social_iqa, arc_easy, piqa"
                )
            available = files or member.data
            plan = _plan_splits(
                template, config, set(available) if available else None, spec.get("num_fewshot")
            )
            tables = _tables(config, plan, member, local, group=len(members) > 1)
            if len(tables[plan["evaluated"]]) == 0:
                absent.append(config.get("dataset_name") or member.name)
                continue
            own = source.folder is not None
            leaves.append(_staged_leaf(config, plan, member, tables, own))
    if not leaves:
        raise ValueError(
            f"task template {template!r}: column 'subject' of its data names none of "
            f"{', '.join(absent[:5])}, ..."
        )
    if source.folder and any(_form(leaf) != _form(leaves[0]) for leaf in leaves):
        raise ValueError(
            f"tasks: {source.folder}: the tasks of {template!r} differ in num_fewshot, splits or "
            "columns; give them the same, or name each of them under tasks"
        )
    return {
        "template": template,
        "data": _provenance(files, members),
        "leaves": leaves,
        "splits": {key: plan[key] for key in ("evaluated", "examples")},
        "shots": plan["shots"],
        "absent": absent,
    }


def _form(leaf: dict) -> tuple:
    """What the leaves of an own group must share: one table a split holds them all."""
    settings = {key: leaf["config"][key] for key in (*SPLIT_KEYS, "num_fewshot")}
    return settings, {
        split: {(field.name, str(field.type)) for field in table.schema}
        for split, table in leaf["tables"].items()
    }


def _provenance(files: dict | None, members: list[Leaf]) -> dict | str:
    """Where the questions come from, as task.json says it: local files by split, or the hub."""
    if files:
        return {split: str(path) for split, path in files.items()}
    paths: dict[str, list[str]] = {}
    for member in members:
        for split, names in (member.data or {}).items():
            paths[split] = sorted({*paths.get(split, []), *names})
    return paths or "hub"


def _tables(
    config: dict, plan: dict, member: Leaf, local: dict[str, pa.Table], group: bool
) -> dict[str, pa.Table]:
    """The questions and the examples of a leaf before its own processing, by split: of the
    config's files `local`, else of the template's own files, else of the hub.
    """
    tables = {}
    for split in dict.fromkeys([plan["evaluated"], plan["examples"]]):
        if split and local:
            subset = config.get("dataset_name")
            tables[split] = _subject(numbered(local[split]), subset, group, f"data.{split}")
        elif split and member.data:
            tables[split] = read_files(config, member.data[split], split)
        elif split:
            tables[split] = fetch(config, split)
    return tables


def _staged_leaf(
    config: dict, plan: dict, member: Leaf, tables: dict[str, pa.Table], own: bool
) -> dict:
    what = f"template {member.name!r}"
    for split, table in tables.items():
        if not own:
            require_columns(table, _template_columns(config), what, f"data.{split}")
        examples = split != plan["evaluated"]
        table = _process(config, table, what, split, examples=examples)
        tables[split] = _without_fingerprint(table) if own else table
    return {
        "name": member.name,
        "yaml": member.yaml,
        "config": member.overrides | plan["config"],
        "tables": tables,
        "sampler": (config.get("fewshot_config") or {}).get("sampler", "default"),
    }


def _leaves(template: str) -> list[tuple[str, Path, dict]]:
    """(name, YAML file, keys that override it) of the leaf tasks that a built-in name stands for.

    All 14,000 names take 9 s to index, so only the folder that defines the name is; all of it where
    that does not suffice.
    """
    from lm_eval.tasks._index import TaskIndex

    root = task_root()
    line = re.compile(
        rf"^[\"']?(?:task|group)[\"']?\s*:\s*[\"']?{re.escape(template)}[\"']?\s*$", re.MULTILINE
    )
    files = sorted(root.glob("**/*.yaml"))
    file = next((path for path in files if line.search(path.read_text(errors="replace"))), None)
    try:
        return _expand(template, TaskIndex.build([file.parent]) if file else {}, {})
    except KeyError:
        with quiet():
            index = TaskIndex.build([root])
    if template not in index:
        near = difflib.get_close_matches(template, index, n=3) or [
            "mmlu",
            "winogrande",
            "mathqa",
            "social_iqa",
        ]
        raise ValueError(
            f"unknown task template {template!r}; nearest built-in names of lm-eval: "
            f"{', '.join(near)}"
        )
    return _expand(template, index, {})


def _expand(name: str, index: dict, extra: dict) -> list[tuple[str, Path, dict]]:
    from lm_eval.tasks._index import Kind

    entry = index[name]
    if entry.kind is Kind.TAG:
        return [leaf for tag in sorted(entry.tags) for leaf in _expand(tag, index, extra)]
    if entry.kind is not Kind.GROUP:
        return [(name, entry.yaml_path, extra)]
    leaves = []
    for member in entry.cfg["task"]:
        if isinstance(member, str):
            leaves += _expand(member, index, extra)
        elif member.get("task") in index:
            leaves += _expand(
                member["task"], index, extra | {key: member[key] for key in member if key != "task"}
            )
        else:
            raise ValueError(
                f"task template {name!r} is a group with members defined inside it; name its "
                "members instead"
            )
    return leaves


def _plan_splits(
    template: str, config: dict, available: set[str] | None, shots: int | None
) -> dict:
    """Which split is asked and which one gives examples, as lm-eval would choose among those that
    are available (None: all).

    Split keys that are not staged become None, the others stay as the template has them: lm-eval's
    sampler depends on them.
    """
    shots = (config.get("num_fewshot") or 0) if shots is None else shots
    fewshot = dict(config.get("fewshot_config") or {})
    named = {key: config.get(key) for key in SPLIT_KEYS} | (
        {"fewshot_split": fewshot["split"]} if "split" in fewshot else {}
    )
    there = {
        key: split
        for key, split in named.items()
        if split and (available is None or split in available)
    }
    evaluated = there.get("test_split") or there.get("validation_split")
    have = ", ".join(sorted(available or ())) or "none"
    if evaluated is None:
        asks = " or ".join(
            repr(named[key]) for key in ("test_split", "validation_split") if named[key]
        )
        raise ValueError(
            f"tasks: template {template!r} is evaluated on split {asks}; data names: {have}"
        )
    examples = None
    if shots and not (fewshot.get("samples") and not named["fewshot_split"]):
        examples = next(
            (there[key] for key in ("fewshot_split", *SPLIT_KEYS[:3]) if key in there), None
        )
        if named["fewshot_split"] and "fewshot_split" not in there:
            split = named["fewshot_split"]
            raise ValueError(
                f"tasks: num_fewshot {shots} of template {template!r} needs data.{split}; "
                "data names: "
                f"{have}"
            )
    staged = {evaluated, examples}
    splits = {key: there.get(key) if there.get(key) in staged else None for key in SPLIT_KEYS}
    if not shots:
        splits |= {"training_split": None, "fewshot_split": None}
    if (
        examples == evaluated
    ):  # said outright, so that lm-eval leaves the question itself out of its examples
        splits |= {
            "test_split": evaluated,
            "fewshot_split": evaluated,
            "validation_split": None,
            "training_split": None,
        }
    return {
        "evaluated": evaluated,
        "examples": examples,
        "shots": shots,
        "config": splits | {"num_fewshot": shots, "process_docs": None},
    }


def read_parquet(path: Path, key: str) -> pa.Table:
    """A user's parquet file; ValueError names the config key where it is absent or unreadable."""
    if not path.is_file():
        raise ValueError(f"tasks: {key}: {path}: the file does not exist")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"tasks: {key}: {path}: not a readable parquet file ({str(error).splitlines()[0]})"
        ) from None


def read_files(config: dict, paths: list[str], split: str) -> pa.Table:
    """One split of a template's local files, as datasets reads them for lm-eval; nothing is cached.

    ValueError names the split and the reason.
    """
    import datasets

    ours = ("data_files", "split", "cache_dir", "keep_in_memory", "streaming", "trust_remote_code")
    options = _options(config, *ours)
    datasets.disable_progress_bars()
    try:
        with TemporaryDirectory(prefix="pollination-") as cache:
            data = datasets.load_dataset(
                config["dataset_path"],
                config.get("dataset_name"),
                data_files={split: paths},
                split=split,
                cache_dir=cache,
                keep_in_memory=True,
                **options,
            )
            table = data.with_format("arrow")[:]
    except Exception as error:  # its readers raise whatever their parsers do
        reason = error.__cause__ or error
        raise ValueError(
            f"data_files: {', '.join(paths)}: not readable as {config['dataset_path']} "
            f"({type(reason).__name__}: {reason})"
        ) from error
    if not len(table):
        raise ValueError(f"data_files: {', '.join(paths)}: split {split!r} has no questions")
    return numbered(table)


def _options(config: dict, *without: str) -> dict:
    return {
        key: value
        for key, value in (config.get("dataset_kwargs") or {}).items()
        if key not in without
    }


def fetch(config: dict, split: str) -> pa.Table:
    """One split of the template's data set from the hub, through datasets' own cache."""
    import datasets

    path, name = config["dataset_path"], config.get("dataset_name")
    options = _options(config, "trust_remote_code")
    try:
        data = datasets.load_dataset(path, name, split=split, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"tasks: data set {path!r} ({name or 'default'}, {split}) cannot be fetched "
            f"({reason}); "
            "stage it where there is a network, or name local files: "
            f"data: {{{split}: file.parquet}}"
        ) from error
    return numbered(data.with_format("arrow")[:])


def _process(config: dict, table: pa.Table, what: str, split: str, examples: bool) -> pa.Table:
    """A template's own processing of its questions, done once here.

    `__row__` stays the source row where it keeps columns.
    """
    import datasets

    process = config.get("process_docs")
    if examples:
        process = (config.get("fewshot_config") or {}).get("process_docs") or process
    if process is None:
        return table
    datasets.disable_progress_bars()
    try:
        processed = process(datasets.Dataset(datasets.table.InMemoryTable(table))).with_format(
            "arrow"
        )[:]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"tasks: {what} cannot process data.{split} ({type(error).__name__}: {error}); its "
            f"columns are {_names(table)}"
        ) from error
    return processed if "__row__" in processed.column_names else numbered(processed)


def _without_fingerprint(table: pa.Table) -> pa.Table:
    """The fingerprint of datasets depends on where the code lies, here a temporary folder."""
    metadata = dict(table.schema.metadata or {})
    if b"huggingface" in metadata:
        said = json.loads(metadata[b"huggingface"])
        said.pop("fingerprint", None)
        metadata[b"huggingface"] = json.dumps(said).encode()
    return table.replace_schema_metadata(metadata)


def numbered(table: pa.Table) -> pa.Table:
    """The table with its row numbers as column `__row__`; they stay through all subsets."""
    return table.append_column("__row__", pa.array(np.arange(len(table))))


def _subject(table: pa.Table, subset: str | None, group: bool, key: str) -> pa.Table:
    """A local file holds all subjects of a group: the rows whose column `subject` is the leaf's
    data set name.
    """
    if "subject" not in table.column_names:
        if group:
            raise ValueError(
                f"tasks: {key}: a group's file needs column 'subject'; it has {_names(table)}"
            )
        return table
    rows = table.filter(pc.equal(table["subject"], pa.scalar(subset, table["subject"].type)))
    return rows if group or len(rows) else table


def _names(table: pa.Table) -> str:
    return ", ".join(name for name in table.column_names if name != "__row__")


def require_columns(
    table: pa.Table, columns: tuple[str, ...] | list[str], what: str, where: str
) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(
            f"tasks: {what} needs columns {', '.join(missing)}, which {where} lacks; it has "
            f"{_names(table)}"
        )


def _template_columns(config: dict) -> list[str]:
    """Columns that the template's Jinja strings name; what its Python functions read shows when the
    first row is built.
    """
    from jinja2 import meta
    from lm_eval.utils import env

    if config.get("process_docs"):
        return []
    names = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        text = config.get(key)
        if isinstance(text, str):
            names |= (
                {text} if text.isidentifier() else meta.find_undeclared_variables(env.parse(text))
            )
    return sorted(names - set(env.globals))
