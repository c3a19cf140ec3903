"""Make text from configs, data or models safe for one line of a terminal or log."""

import unicodedata

# Characters that change the writing direction.
DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LONGEST = 2000  # characters of a message; the middle of a longer one is cut


def hidden(c: str) -> bool:
    """Return whether a character is a control, surrogate, line separator or direction mark."""
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in DIRECTION


def line(value: object, longest: int = LONGEST) -> str:
    """Return `value` as one line of about `longest` characters, with hidden ones escaped."""
    text = str(value)
    if len(text) > longest:
        text = f"{text[: longest // 2]} [...] {text[-longest // 2 :]}"
    return "".join(c.encode("unicode_escape").decode() if hidden(c) else c for c in text)


def reason(error: BaseException) -> str:
    """Return the message of an error; of an OSError, without its number and file name."""
    text = getattr(error, "strerror", None)
    return text[0].lower() + text[1:] if text else str(error)
