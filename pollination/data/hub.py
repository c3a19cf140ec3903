"""Stream data sets of the Hugging Face hub, up to a budget, into parquet for offline jobs."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pollination.core.artifacts import atomic

SCHEMA = pa.schema([("split", pa.string()), ("text", pa.string())])
ROW_GROUP_CHARACTERS = 8_000_000
LOG_EVERY_S = 30.0


def stage_hub(spec: dict, path: Path) -> None:
    """Stream the text column of a data set (corpus kind hub) into the parquet file `path`.

    The file has the name of the corpus. It holds the columns "split" and "text", and whole
    documents in their order. Streaming stops before the document that would exceed
    max_tokens * characters_per_token characters, but always keeps the first. `splits` ({our name:
    the hub's name}) gives each split this budget. Without it, "split" is "". `name` may also be a
    local data-set folder.
    ValueError: there is no such data set, subset, split or column, or it holds no text.
    """
    log = logging.getLogger("pollination")
    budget = int(spec["max_tokens"] * spec.get("characters_per_token", 4.0))
    log.info(
        "streaming %s: up to %d tokens, estimated as %d characters",
        spec["name"],
        spec["max_tokens"],
        budget,
    )
    with (
        atomic(Path(path)) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file,
    ):
        for split, name in (spec.get("splits") or {"": spec.get("split", "train")}).items():
            key = f"corpora.{Path(path).stem}"
            _stage_split(spec | {"split": name}, split, budget, file, log, key)


def _stage_split(
    spec: dict, split: str, budget: int, file: pq.ParquetWriter, log: logging.Logger, key: str
) -> None:
    rows: list[str] = []
    held, documents, characters, spoke = 0, 0, 0, time.monotonic()

    def flush() -> None:
        file.write_table(pa.table({"split": [split] * len(rows), "text": rows}, schema=SCHEMA))
        rows.clear()

    for text in _texts(spec, key):
        if documents and characters + len(text) > budget:
            break
        rows.append(text)
        held, documents, characters = held + len(text) + 100, documents + 1, characters + len(text)
        if held >= ROW_GROUP_CHARACTERS:
            flush()
            held = 0
        if time.monotonic() - spoke >= LOG_EVERY_S:
            spoke = time.monotonic()
            log.info(
                "%d documents, %d characters, %.0f %% of the budget",
                documents,
                characters,
                100 * characters / budget,
            )
    else:
        log.warning(
            "%s: the data set ended after %d of %d characters", spec["name"], characters, budget
        )
    if not documents:
        raise ValueError(
            f"{key}.column: {spec.get('column', 'text')!r} holds no text in {spec['name']!r}, "
            f"split {spec['split']!r}. Name a text column, or another split"
        )
    flush()
    log.info("staged %d documents, %d characters of split %s", documents, characters, spec["split"])


def _texts(spec: dict, key: str) -> Iterator[str]:
    import datasets

    name, column = spec["name"], spec.get("column", "text")
    source = os.path.expanduser(name)
    try:
        rows = datasets.load_dataset(
            source if os.path.isdir(source) else name,
            spec.get("subset"),
            split=spec.get("split", "train"),
            revision=spec.get("revision"),
            streaming=True,
        )
        columns = rows.column_names or list(next(iter(rows), {column: None}))
        if column in columns:
            for row in rows.select_columns([column]):
                if isinstance(row[column], str):
                    yield row[column]
    except Exception as error:  # many libraries may fail here, each in its own way
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{key}.name: {name!r} cannot be streamed ({reason}). Check name, subset, split, "
            "revision and the network, or name a local data-set folder"
        ) from error
    if column not in columns:
        raise ValueError(
            f"{key}.column: {column!r} is not a column of {name!r}; allowed: {', '.join(columns)}"
        )
