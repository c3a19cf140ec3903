"""Text of a config, of data or of a model as one line that no terminal or log acts on."""

import unicodedata

# Signs that turn the writing direction.
DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LONGEST = 2000  # characters of a message; of a longer one the middle is left out


def hidden(c: str) -> bool:
    """Whether a character is a control, half a surrogate pair, a line separator, or a direction."""
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in DIRECTION


def line(value: object, longest: int = LONGEST) -> str:
    """`value` as text on one line of at most `longest` characters, hidden ones as escapes."""
    text = str(value)
    if len(text) > longest:
        text = f"{text[: longest // 2]} [...] {text[-longest // 2 :]}"
    return "".join(c.encode("unicode_escape").decode() if hidden(c) else c for c in text)
