"""How jobs, durations and reasons read on the terminal."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

# Snakemake's reasons, in the order in which they count, and their short forms.
REASONS = (
    ("Forced execution", "forced"),
    ("Incomplete output files", "incomplete output"),
    ("Missing output files", "missing output"),
    ("Params have changed", "changed params"),
    ("Updated input files", "updated input"),
    ("Set of input files has changed", "changed list of inputs"),
    ("Software environment definition has changed", "changed environment"),
    ("Code has changed", "changed code"),
    ("Input files updated by another job", "input from a job above"),
)
EXPECTED = ("missing output", "input from a job above")  # reasons that need no names of rules


def line(text: str) -> str:
    """Return text as one line without control characters."""
    return "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else " " for c in text
    ).strip()


def job(rule: str, wildcards: Mapping[str, object]) -> str:
    """Return the name of a job: rule and wildcards, as in "train_child demo gen2 member3"."""
    labels = {"rank": "parent"}
    words = [rule]
    for name, wildcard in wildcards.items():
        value = str(wildcard)
        if name == "place":
            value = value.replace("/", " ")
        words.append(f"{labels.get(name, name)}{value}" if value.isdigit() else value)
    return line(" ".join(words))


def duration(seconds: float) -> str:
    """Return a duration with its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def reason(text: str) -> str:
    """Return the short form of the first reason that counts for a job."""
    given = re.split(r"; (?=[A-Z])", text)
    for start, short in REASONS:
        if any(part.startswith(start) for part in given):
            return short
    return given[0] or "no input and no output"


def reasons(given: Iterable[tuple[str, str]]) -> str:
    """Return one line that counts the jobs by reason, from pairs of rule and reason.

    Rules are named where the reason is a change that the reader may not expect.
    """
    counts: Counter[str] = Counter()
    rules: dict[str, dict[str, None]] = {}
    for rule, text in given:
        short = reason(text)
        counts[short] += 1
        rules.setdefault(short, {})[rule] = None
    parts = []
    for short, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        names = list(rules[short])
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        parts.append(f"{count} {short}" + ("" if short in EXPECTED else f" ({shown})"))
    return "Reasons: " + "; ".join(parts) + "."


def table(counts: Mapping[str, int], width: int = 100) -> str:
    """Return the jobs of each rule in columns, read downwards, and the total below."""
    cells = [f"{count:6}  {rule}" for rule, count in counts.items()]
    broad = max((len(cell) for cell in cells), default=0) + 2
    columns = max(1, min(width // broad, -(-len(cells) // 8)))
    rows = -(-len(cells) // columns)
    lines = [
        "".join(cell.ljust(broad) for cell in cells[row::rows]).rstrip() for row in range(rows)
    ]
    return "\n".join([*lines, f"{sum(counts.values()):6}  total"])
