"""Handle config values: one name or a list by member, and suggestions for misspelt names."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

OWN = "own"  # in evaluate.perplexity, stands for the member's own corpus
REPEATS = 20  # of a name's end: as many are a cycle to Snakemake
SEGMENT = "segment"  # in evaluate.perplexity, the human text that the member's founder has read


def is_held_out(entry: dict) -> bool:
    """Return whether an entry of evaluate.perplexity measures text that no model trains on."""
    return entry["split"] not in ("train", SEGMENT)


def nearest(word: str, allowed: list[str]) -> str:
    """Return ' (did you mean ...?)' if an allowed name is similar, else an empty string."""
    close = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def periodic(section: str, names: Iterable[str]) -> list[str]:
    """Return a mistake for each name that Snakemake takes for a cycle (PeriodicityDetector)."""
    return [
        f"{section}.{name}: the name ends in a text that repeats {REPEATS} times or more, which "
        "Snakemake refuses; choose another name"
        for name in names
        if re.search(rf"(.+)\1{{{REPEATS - 1}}}$", name)
    ]


def listed(value: str | list[str] | None) -> list[str]:
    """Return the names of a key that takes one name or a list by member."""
    return [] if value is None else [value] if isinstance(value, str) else value


def by_member(value: Any, member: int) -> Any:
    """Return the member's entry of a key that takes one name or a list by member."""
    return value[member] if isinstance(value, list) else value


def entry_of(run: str) -> str:
    """Return the experiment of a run: `NAME` of the replicate `NAME.s{seed}`."""
    return re.sub(r"\.s\d+$", "", run)


def runs_of(experiments: Iterable[str]) -> dict[str, list[str]]:
    """Return experiment -> its runs: itself, or its replicates, or both."""
    found: dict[str, list[str]] = {}
    for run in experiments:
        found.setdefault(entry_of(run), []).append(run)
    return found
