"""lm-eval's built-in task templates on local files or hub data: which leaf tasks, which splits, which rows."""

import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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


def task_root() -> Path:
    """The folder of lm-eval's built-in templates."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def stage_lm_eval(spec: dict) -> dict:
    """What `tasks.stage_task` writes of a built-in template: its leaves, each with the tables of the splits it needs."""
    from lm_eval.tasks._yaml_loader import load_yaml

    template, files = spec["template"], spec.get("data")
    members = _leaves(template)
    local = {split: read_parquet(Path(path), f"data.{split}") for split, path in (files or {}).items()}
    leaves, absent, plan = [], [], None
    for name, path, extra in members:
        config = load_yaml(path) | extra
        if config.get("output_type") != "multiple_choice":
            raise ValueError(
                f"task template {template!r} is not multiple choice (output_type {config.get('output_type')!r}); "
                "name one that is, such as mmlu, winogrande, mathqa, social_iqa, arc_easy, piqa"
            )
        plan = _plan_splits(template, config, set(local) if files else None, spec.get("shots"))
        subset = config.get("dataset_name")
        tables = {
            split: _subject(numbered(local[split]), subset, len(members) > 1, f"data.{split}") if files else fetch(config, split)
            for split in {plan["evaluated"]: 0, plan["examples"]: 0}
            if split
        }
        if len(tables[plan["evaluated"]]) == 0:
            absent.append(subset)
            continue
        for split, table in tables.items():
            require_columns(table, _template_columns(config), f"template {name!r}", f"data.{split}")
            tables[split] = _process(config, table, f"template {name!r}", split, examples=split != plan["evaluated"])
        leaf_config = extra | plan["config"]
        sampler = (config.get("fewshot_config") or {}).get("sampler", "default")
        leaf = {"name": name, "yaml": str(path.relative_to(task_root())), "config": leaf_config, "tables": tables}
        leaves.append(leaf | {"sampler": sampler})
    if not leaves:
        raise ValueError(f"task template {template!r}: column 'subject' of its data names none of {', '.join(absent[:5])}, ...")
    splits = {key: plan[key] for key in ("evaluated", "examples")}
    data = {split: str(path) for split, path in files.items()} if files else "hub"
    return {
        "template": template,
        "data": data,
        "leaves": leaves,
        "splits": splits,
        "shots": plan["shots"],
        "absent": absent,
    }


def _leaves(template: str) -> list[tuple[str, Path, dict]]:
    """(name, YAML file, keys that override it) of the leaf tasks that a built-in name stands for.

    All 14,000 names take 9 s to index, so only the folder that defines the name is; all of it where that does not suffice.
    """
    from lm_eval.tasks._index import TaskIndex

    root = task_root()
    line = re.compile(rf"^[\"']?(?:task|group)[\"']?\s*:\s*[\"']?{re.escape(template)}[\"']?\s*$", re.MULTILINE)
    found = next((path for path in sorted(root.glob("**/*.yaml")) if line.search(path.read_text(errors="replace"))), None)
    try:
        return _expand(template, TaskIndex.build([found.parent]) if found else {}, {})
    except KeyError:
        with quiet():
            index = TaskIndex.build([root])
    if template not in index:
        near = difflib.get_close_matches(template, index, n=3) or ["mmlu", "winogrande", "mathqa", "social_iqa"]
        raise ValueError(f"unknown task template {template!r}; nearest built-in names of lm-eval: {', '.join(near)}")
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
            leaves += _expand(member["task"], index, extra | {key: member[key] for key in member if key != "task"})
        else:
            raise ValueError(f"task template {name!r} is a group with members defined inside it; name its members instead")
    return leaves


def _plan_splits(template: str, config: dict, available: set[str] | None, shots: int | None) -> dict:
    """Which split is asked and which one gives examples, as lm-eval would choose among those that are available (None: all).

    Split keys that are not staged become None, the others stay as the template has them: lm-eval's sampler depends on them.
    """
    shots = (config.get("num_fewshot") or 0) if shots is None else shots
    fewshot = dict(config.get("fewshot_config") or {})
    named = {key: config.get(key) for key in SPLIT_KEYS} | ({"fewshot_split": fewshot["split"]} if "split" in fewshot else {})
    there = {key: split for key, split in named.items() if split and (available is None or split in available)}
    evaluated = there.get("test_split") or there.get("validation_split")
    have = ", ".join(sorted(available or ())) or "none"
    if evaluated is None:
        asks = " or ".join(repr(named[key]) for key in ("test_split", "validation_split") if named[key])
        raise ValueError(f"tasks: template {template!r} is evaluated on split {asks}; data names: {have}")
    examples = None
    if shots and not (fewshot.get("samples") and not named["fewshot_split"]):
        examples = next((there[key] for key in ("fewshot_split", *SPLIT_KEYS[:3]) if key in there), None)
        if named["fewshot_split"] and "fewshot_split" not in there:
            split = named["fewshot_split"]
            raise ValueError(f"tasks: shots {shots} of template {template!r} needs data.{split}; data names: {have}")
    staged = {evaluated, examples}
    splits = {key: there.get(key) if there.get(key) in staged else None for key in SPLIT_KEYS}
    if not shots:
        splits |= {"training_split": None, "fewshot_split": None}
    if examples == evaluated:  # said outright, so that lm-eval leaves the question itself out of its examples
        splits |= {
            "test_split": evaluated,
            "fewshot_split": evaluated,
            "validation_split": None,
            "training_split": None,
        }
    return {"evaluated": evaluated, "examples": examples, "shots": shots, "config": splits | {"num_fewshot": shots, "process_docs": None}}


def read_parquet(path: Path, key: str) -> pa.Table:
    """A user's parquet file; ValueError names the config key where it is absent or unreadable."""
    if not path.is_file():
        raise ValueError(f"tasks: {key}: {path}: the file does not exist")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"tasks: {key}: {path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def fetch(config: dict, split: str) -> pa.Table:
    """One split of the template's data set from the hub, through datasets' own cache."""
    import datasets

    path, name = config["dataset_path"], config.get("dataset_name")
    options = {key: value for key, value in (config.get("dataset_kwargs") or {}).items() if key != "trust_remote_code"}
    try:
        data = datasets.load_dataset(path, name, split=split, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"tasks: data set {path!r} ({name or 'default'}, {split}) cannot be fetched ({reason}); "
            f"stage it where there is a network, or name local files: data: {{{split}: file.parquet}}"
        ) from error
    return numbered(data.with_format("arrow")[:])


def _process(config: dict, table: pa.Table, what: str, split: str, examples: bool) -> pa.Table:
    """A template's own processing of its questions, done once here. `__row__` stays the source row where it keeps columns."""
    import datasets

    process = config.get("process_docs")
    if examples:
        process = (config.get("fewshot_config") or {}).get("process_docs") or process
    if process is None:
        return table
    datasets.disable_progress_bars()
    try:
        processed = process(datasets.Dataset(datasets.table.InMemoryTable(table))).with_format("arrow")[:]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"tasks: {what} cannot process data.{split} ({type(error).__name__}: {error}); its columns are {_names(table)}"
        ) from error
    return processed if "__row__" in processed.column_names else numbered(processed)


def numbered(table: pa.Table) -> pa.Table:
    """The table with its row numbers as column `__row__`, which follow a question through subsets."""
    return table.append_column("__row__", pa.array(np.arange(len(table))))


def _subject(table: pa.Table, subset: str | None, group: bool, key: str) -> pa.Table:
    """A local file holds all subjects of a group: the rows whose column `subject` is the leaf's data set name."""
    if "subject" not in table.column_names:
        if group:
            raise ValueError(f"tasks: {key}: a group's file needs column 'subject'; it has {_names(table)}")
        return table
    rows = table.filter(pc.equal(table["subject"], pa.scalar(subset, table["subject"].type)))
    return rows if group or len(rows) else table


def _names(table: pa.Table) -> str:
    return ", ".join(name for name in table.column_names if name != "__row__")


def require_columns(table: pa.Table, columns: tuple[str, ...] | list[str], what: str, where: str) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(f"tasks: {what} needs columns {', '.join(missing)}, which {where} lacks; it has {_names(table)}")


def _template_columns(config: dict) -> list[str]:
    """Columns that the template's Jinja strings name; what its Python functions read shows when the first row is built."""
    from jinja2 import meta
    from lm_eval.utils import env

    if config.get("process_docs"):
        return []
    names = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        text = config.get(key)
        if isinstance(text, str):
            names |= {text} if text.isidentifier() else meta.find_undeclared_variables(env.parse(text))
    return sorted(names - set(env.globals))
