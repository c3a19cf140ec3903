"""Read parquet in batches of rows, whose size in bytes has a limit."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pollination.core.datafiles.formats import column_place, form_of
from pollination.core.datafiles.streams import CHUNK, blamed, decompressed

PAGES = 2**20  # bytes of a parquet column; without it, a whole row group would be in memory
# Limits of a batch. A batch of long rows has fewer of them.
ROWS, BATCH_BYTES = 512, 64_000_000


def read_batches(
    path: str | Path, columns: tuple[str, ...], key: str, text: tuple[str, ...]
) -> Iterator[tuple[int, list[list]]]:
    """Yield (number of rows before, values of each column) of one batch after another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    errors = (pa.ArrowException, OSError)
    with (
        blamed(path, errors),
        _source(path) as source,
        pq.ParquetFile(source, buffer_size=PAGES) as file,
    ):
        schema = file.schema_arrow
        for name in columns:
            column_place(schema.names, name, path, key)
            if name in text and not _is_text(kind := schema.field(name).type):
                raise ValueError(
                    f"{key}: {name!r} holds {kind}, not text, in {path}. Name a text column; "
                    f"its columns are: {', '.join(schema.names)}"
                )
        number, rows = 0, batch_rows(file.metadata, columns)
        batches = file.iter_batches(rows, columns=list(columns))
        while True:
            with blamed(path, errors, f" after row {number}"):
                batch = next(batches, None)
            if batch is None:
                return
            yield number, [_cells(batch.column(name), path, number) for name in columns]
            number += len(batch)


def read_parquet(path: str | Path) -> Any:
    """Return a whole file as a pyarrow Table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with blamed(path, (pa.ArrowException, OSError)), _source(path) as source:
        return pq.read_table(source)


def column_names(path: str | Path) -> list[str]:
    """Return the names of the columns, from the schema alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with blamed(path, (pa.ArrowException, OSError)), _source(path) as source:
        return pq.read_schema(source).names


def batch_rows(about: Any, columns: tuple[str, ...]) -> int:
    """Return the number of rows per batch, from the row group with the longest mean row."""
    longest = 1.0
    for group in map(about.row_group, range(about.num_row_groups)):
        sizes = [
            leaf.total_uncompressed_size
            for leaf in map(group.column, range(group.num_columns))
            if leaf.path_in_schema in columns or leaf.path_in_schema.split(".")[0] in columns
        ]
        longest = max(longest, sum(sizes) / max(1, group.num_rows))
    return int(min(ROWS, max(1, BATCH_BYTES // longest)))


@contextmanager
def _source(path: str | Path) -> Iterator[Any]:
    """Yield a parquet file for pyarrow. A compressed one is unpacked to a temporary file first."""
    with decompressed(path) as stream:
        if not form_of(path)[1]:
            yield str(path)
            return
        with tempfile.TemporaryFile(prefix="pollination-") as file:
            shutil.copyfileobj(stream, file, CHUNK)
            file.seek(0)
            yield file


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _cells(array: Any, path: str | Path, before: int) -> list:
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        for row, value in enumerate(array, before + 1):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: row {row} is not valid UTF-8 at its byte {error.start}. Convert the "
                    "text to UTF-8"
                ) from None
        raise
