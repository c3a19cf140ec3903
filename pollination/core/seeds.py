"""Derive seeds from a stable hash, independent of the order in which jobs run."""

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) for a use: `derive_seed(42, "train", generation, member)`.

    Equal parts give equal seeds on every machine; similar parts give unrelated seeds.
    """
    key = json.dumps(parts, separators=(",", ":"), ensure_ascii=True).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
