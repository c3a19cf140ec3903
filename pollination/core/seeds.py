"""Seeds from a stable hash: never null, never dependent on the order in which jobs run."""

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from what names its use: `derive_seed(42, "train", generation, member)`.

    The same parts give the same seed on every machine; neighbouring parts give unrelated seeds.
    """
    key = json.dumps(parts, separators=(",", ":"), ensure_ascii=True).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
