"""Stage lm-eval's task templates on local files or hub data: leaf tasks, their splits and rows."""

import difflib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pollination.core import datafiles
from pollination.evaluation.template_source import (
    TemplateSource,
    opened,
    task_root,
    texts,
)
from pollination.plan import task_metrics
from pollination.plan.benchmark_folder import Leaf, read_benchmark
from pollination.plan.benchmark_tasks import aggregate_refusal, refusal
from pollination.plan.benchmark_yaml import definition_line

SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's warnings, and its progress bars, which have no option.

    Its bootstrap then runs in this process, with the draws of its worker processes.
    """
    import lm_eval.api.metrics
    import lm_eval.api.task

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            patch.object(lm_eval.api.task, "tqdm", lambda items, **_: items),
            patch.object(lm_eval.api.metrics, "bootstrap_stderr", _bootstrap_stderr),
        ):
            yield
    finally:
        logger.setLevel(level)


def _bootstrap_stderr(function: Callable, items: list, iters: int) -> float:
    """Return lm-eval's bootstrap standard error; its chunk i of 1,000 draws has the seed i."""
    from lm_eval.api.metrics import _bootstrap_internal, sample_stddev

    size = min(1000, iters)
    draw = _bootstrap_internal(function, size)
    return sample_stddev([value for i in range(iters // size) for value in draw((i, items))])


def stage_lm_eval(spec: dict) -> dict:
    """Return the parts of a template that `tasks.stage_task` writes.

    These are its leaves, each with the tables of its splits, and how lm-eval aggregates them. The
    template is built-in, or comes from a user's folder.
    """
    if not spec.get("include_path"):
        with opened(None, None) as source:
            found, aggregates = _leaves(spec["template"])
            members = [
                Leaf(name, str(path.relative_to(source.root)), extra, None)
                for name, path, extra in found
            ]
            stage = _stage(spec, source, members)
            return stage | ({"aggregates": aggregates} if aggregates else {})
    benchmark = read_benchmark(spec)
    files = texts(benchmark)
    with opened(benchmark.folder, files) as source:
        stage = _stage(spec, source, benchmark.leaves)
    stage |= {"aggregates": benchmark.aggregates} if benchmark.aggregates else {}
    return stage | {"include_path": benchmark.folder, "files": files}


def _stage(spec: dict, source: TemplateSource, members: list[Leaf]) -> dict:
    template, files = spec["template"], spec.get("data")
    local = {split: read_data(Path(path), f"data.{split}") for split, path in (files or {}).items()}
    leaves, absent = [], []
    for member in members:
        with source.blamed(member.yaml):
            config = source.load(member.yaml, member.name) | member.overrides
            if reason := _refusal(config, spec):
                raise ValueError(f"task template {member.name!r}: {reason}")
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
            f"task template {template!r}: column 'subject' of its data has none of the allowed "
            f"values {', '.join(absent[:5])}, ...; correct the column"
        )
    return {
        "template": template,
        "data": _provenance(files, members),
        "leaves": leaves,
        "absent": absent,
    }


def _refusal(config: dict, spec: dict) -> str | None:
    """Return why a task cannot be scored as the config asks; None if it can."""
    if reason := refusal(config):
        return reason
    if spec.get("method") == "generate":
        if task_metrics.output_type(config) != "multiple_choice":
            return (
                "method generate asks multiple-choice questions, but the task has output_type "
                f"{task_metrics.output_type(config)}; remove method"
            )
        if spec.get("metric"):
            return "method generate has the metric accuracy; remove metric, or method"
        return None
    try:
        task_metrics.chosen(config, spec.get("metric"))
    except ValueError as error:
        return str(error)
    return None


def _provenance(files: dict | None, members: list[Leaf]) -> dict | str:
    """Return the source of the questions for task.json: local files by split, or "hub"."""
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
    """Return a leaf's questions and examples by split, before the template processes them.

    They come from the config's files `local`, else the template's own files, else the hub.
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
        "splits": {key: plan[key] for key in ("evaluated", "examples")},
        "shots": plan["shots"],
        "output_type": task_metrics.output_type(config),
        "tried": own or bool(config.get("process_results")) or _generates(config),
        "sampler": (config.get("fewshot_config") or {}).get("sampler", "default"),
    }


def _generates(config: dict) -> bool:
    return task_metrics.output_type(config) == "generate_until"


def _leaves(template: str) -> tuple[list[tuple[str, Path, dict]], list[dict]]:
    """Return the leaf tasks of a built-in template, and how lm-eval aggregates a group's.

    A leaf is (name, YAML file, overriding keys).

    An index of all 14,000 names takes 9 s. So the index covers the folder that defines the name,
    and all folders only if that fails.
    """
    from lm_eval.tasks._index import TaskIndex

    root = task_root()
    line = definition_line(template)
    files = sorted(root.glob("**/*.yaml"))
    file = next((path for path in files if line.search(path.read_text(errors="replace"))), None)
    try:
        return _expanded(template, TaskIndex.build([file.parent]) if file else {})
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
    return _expanded(template, index)


def _expanded(template: str, index: dict) -> tuple[list[tuple[str, Path, dict]], list[dict]]:
    group = index[template].cfg or {}
    if reason := aggregate_refusal(group):
        raise ValueError(f"task template {template!r}: {reason}")
    aggregates = group.get("aggregate_metric_list") or []
    leaves: list[tuple[str, Path, dict]] = []
    for leaf in _expand(template, index, {}):
        if leaf not in leaves:
            leaves.append(leaf)
    names = [name for name, *_ in leaves]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"task template {template!r} contains task {again!r} with different settings; name its "
            "tasks one by one"
        )
    return leaves, aggregates if isinstance(aggregates, list) else [aggregates]


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
                f"task template {name!r} is a group that defines its tasks inline, which is not "
                "supported; name its tasks instead"
            )
    return leaves


def _plan_splits(
    template: str, config: dict, available: set[str] | None, shots: int | None
) -> dict:
    """Choose the evaluated split and the split of the examples among those available (None: all).

    The choice is lm-eval's. Keys of splits that are not staged become None. The others keep the
    template's values, because lm-eval's sampler depends on them.
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
            f"tasks: template {template!r} is evaluated on split {asks}, but there are "
            f"files only for: {have}. Add a file for that split"
        )
    examples = None
    if shots and not (fewshot.get("samples") and not named["fewshot_split"]):
        examples = next(
            (there[key] for key in ("fewshot_split", *SPLIT_KEYS[:3]) if key in there), None
        )
        if named["fewshot_split"] and "fewshot_split" not in there:
            split = named["fewshot_split"]
            raise ValueError(
                f"tasks: num_fewshot: {shots}: template {template!r} takes its few-shot examples "
                f"from split {split!r}, but there are files only for: {have}. Add a file for that "
                "split, or set num_fewshot: 0"
            )
    staged = {evaluated, examples}
    splits = {key: there.get(key) if there.get(key) in staged else None for key in SPLIT_KEYS}
    if not shots:
        splits |= {"training_split": None, "fewshot_split": None}
    # With equal names, lm-eval leaves the question itself out of its examples.
    if examples == evaluated:
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


def read_data(path: Path, key: str) -> pa.Table:
    """Read a user's table. ValueError: it is missing or unreadable; names the config key."""
    if not path.is_file():
        raise ValueError(f"tasks: {key}: {path}: the file does not exist; correct the path")
    try:
        return datafiles.read_table(path)
    except ValueError as error:
        raise ValueError(f"tasks: {key}: {error}") from None


def read_files(config: dict, paths: list[str], split: str) -> pa.Table:
    """Read one split of a template's local files with `datasets`, as lm-eval does, without a cache.

    ValueError: the files are unreadable, or the split has no questions.
    """
    import datasets

    ours = ("data_files", "split", "cache_dir", "keep_in_memory", "streaming", "trust_remote_code")
    options = _options(config, *ours)
    datasets.disable_progress_bars()
    try:
        with TemporaryDirectory(prefix="pollination-") as cache:
            paths = [_plain(path, Path(cache, "plain", str(n))) for n, path in enumerate(paths)]
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
    except Exception as error:  # the readers raise exceptions of many parsers
        reason = error.__cause__ or error
        raise ValueError(
            f"data_files: {', '.join(paths)}: not readable as {config['dataset_path']} "
            f"({type(reason).__name__}: {reason}); correct the files or dataset_path"
        ) from error
    if not len(table):
        raise ValueError(
            f"data_files: {', '.join(paths)}: split {split!r} has no questions; add questions"
        )
    return numbered(table)


def _plain(path: str, folder: Path) -> str:
    """Return a local file as the readers of `datasets` expect it; a URL stays as it is."""
    return path if "://" in path else datafiles.as_plain(path, folder)


def _options(config: dict, *without: str) -> dict:
    return {
        key: value
        for key, value in (config.get("dataset_kwargs") or {}).items()
        if key not in without
    }


def fetch(config: dict, split: str) -> pa.Table:
    """Download one split of the template's data set from the hub; `datasets` caches it."""
    import datasets

    path, name = config["dataset_path"], config.get("dataset_name")
    options = _options(config, "trust_remote_code")
    try:
        data = datasets.load_dataset(path, name, split=split, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"tasks: data set {path!r} ({name or 'default'}, {split}) cannot be downloaded "
            f"({reason}); run this job where there is a network, or name local files: "
            f"data: {{{split}: file.parquet}}"
        ) from error
    return numbered(data.with_format("arrow")[:])


def _process(config: dict, table: pa.Table, what: str, split: str, examples: bool) -> pa.Table:
    """Run a template's own processing of its questions, once.

    `__row__` stays the source row if the processing keeps columns.
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
            f"columns are {_names(table)}; correct the data or the template"
        ) from error
    return processed if "__row__" in processed.column_names else numbered(processed)


def _without_fingerprint(table: pa.Table) -> pa.Table:
    """Remove the fingerprint of `datasets`, which depends on the temporary folder of the code."""
    metadata = dict(table.schema.metadata or {})
    if b"huggingface" in metadata:
        said = json.loads(metadata[b"huggingface"])
        said.pop("fingerprint", None)
        metadata[b"huggingface"] = json.dumps(said).encode()
    return table.replace_schema_metadata(metadata)


def numbered(table: pa.Table) -> pa.Table:
    """Return the table with its row numbers in column `__row__`, which every subset keeps."""
    return table.append_column("__row__", pa.array(np.arange(len(table))))


def _subject(table: pa.Table, subset: str | None, group: bool, key: str) -> pa.Table:
    """Return the rows of one subject (`subset`), because a local file holds a group's subjects."""
    if "subject" not in table.column_names:
        if group:
            raise ValueError(
                f"tasks: {key}: a group's file needs column 'subject'; it has {_names(table)}; add "
                "the column"
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
            f"{_names(table)}; add or rename columns"
        )


def _template_columns(config: dict) -> list[str]:
    """Return the columns that the template's Jinja strings name.

    Columns that its Python functions read are unknown until the first row is built.
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
