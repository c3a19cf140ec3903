"""Read the questions of a template: the user's files, the template's own files, or hub data.

A table has one row per question. Its column `__row__` numbers the rows of the source.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pollination.core.datafiles import read_table
from pollination.core.datafiles.text import as_plain
from pollination.plan.benchmark_folder import Leaf


def read_tables(
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


def read_data(path: Path, key: str) -> pa.Table:
    """Read a user's table. ValueError: it is missing or unreadable; names the config key."""
    if not path.is_file():
        raise ValueError(f"tasks: {key}: {path}: the file does not exist; correct the path")
    try:
        return read_table(path)
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
    return path if "://" in path else as_plain(path, folder)


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


def process_questions(
    config: dict, table: pa.Table, what: str, split: str, examples: bool
) -> pa.Table:
    """Run a template's own processing of its questions, once.

    `__row__` stays the source row if the processing keeps columns. ValueError: the processing fails
    on the columns or values of the table.
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


def without_fingerprint(table: pa.Table) -> pa.Table:
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
    """Check that a table has all columns. ValueError: it lacks one; names `what` and `where`."""
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(
            f"tasks: {what} needs columns {', '.join(missing)}, which {where} lacks; it has "
            f"{_names(table)}; add or rename columns"
        )


def template_columns(config: dict) -> list[str]:
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
