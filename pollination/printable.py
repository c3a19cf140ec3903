"""Text of others (of a config, of data, of a model) as one line that a terminal or a log can show and does not act on."""

import unicodedata

DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # signs that turn the writing direction
LONGEST = 2000  # characters of a message; of a longer one the middle is left out


def hidden(c: str) -> bool:
    """Whether a character acts on what shows it: control characters, halves of surrogate pairs, line separators, and turns of the writing direction."""
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in DIRECTION


def line(value: object, longest: int = LONGEST) -> str:
    """`value` as text on one line: each hidden character as its Python escape, and no more than `longest` characters."""
    text = str(value)
    if len(text) > longest:
        text = f"{text[: longest // 2]} [...] {text[-longest // 2 :]}"
    return "".join(c.encode("unicode_escape").decode() if hidden(c) else c for c in text)
