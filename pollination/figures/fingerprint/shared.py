"""Helpers for figures of fingerprints: tables, colours of families, formats of numbers."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps

from pollination.core import artifacts
from pollination.figures import style

WITHIN, CROSS = style.BLUE, style.ORANGE  # as study A's figure 3
PALETTE = (
    style.BLUE,
    style.VERMILLION,
    style.GREEN,
    style.PURPLE,
    style.ORANGE,
    style.SKY,
    style.BLACK,
)


def read(tables: dict[str, Path]) -> tuple[pd.DataFrame, dict]:
    """Return (ordered pairs, statistics)."""
    pairs = artifacts.read_table(tables["pairs"]).to_pandas()
    return pairs, artifacts.read_json(tables["statistics"])


def colours(families: list[str]) -> dict[str, Any]:
    """Return family -> colour, from a colour map if there are more than seven families."""
    names = sorted(set(families))
    if len(names) <= len(PALETTE):
        return dict(zip(names, PALETTE, strict=False))
    return {
        name: colormaps["turbo"](0.05 + 0.9 * index / (len(names) - 1))
        for index, name in enumerate(names)
    }


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "\u2212")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    return f"[{number(low, digits)}, {number(high, digits)}]"
