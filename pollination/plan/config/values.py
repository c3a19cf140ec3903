"""Values of the config: one name or a list by member, and the name nearest to a misspelt one."""

import difflib
from typing import Any

OWN = "own"  # evaluate.perplexity: in place of a corpus, the member's own


def nearest(word: str, allowed: list[str]) -> str:
    """' (did you mean ...?)' if an allowed name is close, else nothing."""
    close = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(value: str | list[str] | None) -> list[str]:
    """The names of a key that takes one name or a list by member."""
    return [] if value is None else [value] if isinstance(value, str) else value


def by_member(value: Any, member: int) -> Any:
    """The member's entry of a key that takes one name or a list by member."""
    return value[member] if isinstance(value, list) else value
