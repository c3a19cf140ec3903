"""Cut the human segment of a founder out of a packed corpus.

A segment has the two files of a packed text (data/tokens.py) and a table with the column `block`:
the number of each of its blocks in the packed corpus. Its blocks are in shuffled order, so its
first blocks are a random sample of the segment.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pollination.core import artifacts
from pollination.core.seeds import derive_seed
from pollination.data.mixture import segment
from pollination.data.tokens import TokenBlocks

CUT_TOKENS = 2**26  # tokens in memory


def cut(packed: Path, spec: dict, member: int, data_seed: int, path: Path, numbers: Path) -> dict:
    """Write the segment of founder `member` to `path` and the blocks' numbers to `numbers`.

    `spec` is as in data/mixture.py's `segment`. Return the content of `<stem>.json`.
    ValueError: as in `segment`.
    """
    whole = TokenBlocks(packed)
    chosen = segment(
        whole, whole.context_tokens, spec, member, derive_seed(data_seed, "slices")
    ).chosen
    size = max(1, CUT_TOKENS // whole.context_tokens)
    with artifacts.atomic(path) as temporary, open(temporary, "wb") as file:
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            order = np.argsort(part)  # reads the corpus from front to back
            rows = np.empty((len(part), whole.context_tokens), dtype=whole.tokens_NT.dtype)
            rows[order] = whole.tokens_NT[part[order]]
            file.write(rows.data)
    artifacts.write_table(numbers, pa.table({"block": chosen}))
    about = {
        "blocks": len(chosen),
        "context_tokens": whole.context_tokens,
        "tokens": len(chosen) * whole.context_tokens,
        "dtype": whole.tokens_NT.dtype.name,
        "eos_id": whole.eos_id,
    }
    artifacts.write_json(path.with_suffix(".json"), about)
    return about
