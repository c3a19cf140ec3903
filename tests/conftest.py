"""Shared fixtures: where real data lies."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def shared(relative: str) -> Path:
    """A path inside the shared real data (POLLINATION_DATA, else ../shared); skips the test where it is absent."""
    for base in (os.environ.get("POLLINATION_DATA"), ROOT.parent / "shared"):
        if base and (path := Path(base) / relative).exists():
            return path
    pytest.skip(f"real data {relative!r} is not here: set POLLINATION_DATA to the folder that holds it")
