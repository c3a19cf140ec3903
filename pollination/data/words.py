"""Split a text into words or tokens, in one way for all counts."""

import re
from collections.abc import Iterator

TOKEN = re.compile(r"\w+|[^\w\s]+")

# A word is letters with inner apostrophes. In a script without spaces, each sign is a word.
_SIGNS = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_SIGNS}]|(?:(?![{_SIGNS}])[^\W\d_])+(?:['’](?:(?![{_SIGNS}])[^\W\d_])+)*")


def words(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, word) of each word of a text: lower case, with straight apostrophes."""
    return (
        (match.start(), match.end(), match[0].lower().replace("’", "'"))
        for match in _WORD.finditer(text)
    )


def tokenize(text: str) -> list[str]:
    """Return runs of word characters and runs of punctuation, in lower case."""
    return TOKEN.findall(text.lower())
