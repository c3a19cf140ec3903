"""What a campaign compares: digests of artifacts, temporary files that stayed, tracebacks in
logs.
"""

from dataclasses import dataclass
from pathlib import Path

from pollination.core import artifacts


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its digests by name, its size, and how long it took."""

    digests: dict[str, str]
    bytes: int
    seconds: float = 0.0


def digests(results: Path) -> dict[str, str]:
    """Digest of every artifact of a run by name: all but logs, timings, the figure of them, the
    page that shows it, and records (which name the commit).
    """
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        timed = name.startswith(
            ("logs/", "benchmarks/", "report/cost", "report/index")
        ) or name.endswith("run.json")
        if path.is_file() and "/." not in f"/{name}" and not timed:
            found[name] = artifacts.digest(path)
    return found


def same(found: dict[str, str], reference: dict[str, str]) -> None:
    """AssertionError names what differs, is missing, or is one too many."""
    other = sorted(
        name for name in reference.keys() | found.keys() if reference.get(name) != found.get(name)
    )
    assert not other, f"{len(other)} artifacts differ from the reference: {', '.join(other[:10])}"


def leftovers(results: Path) -> list[str]:
    """Half-written files of jobs that hold a lease: the copy that goes on has removed them.

    (Of others a hidden file may stay.)
    """
    leased = {path.parent for path in results.rglob(".*.work")}
    return sorted(
        str(path)
        for path in results.rglob("*.tmp")
        if path.parent in leased or path.parent.name.endswith(".work")
    )


def tracebacks(text: str) -> list[str]:
    """The innermost place and the exception of each traceback in a log, where one clear line was
    expected.
    """
    found, lines = [], [line for line in text.splitlines() if line.strip()]
    for start, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if not line.startswith("Traceback (", indent):
            continue
        end = start + 1
        while end < len(lines) - 1 and lines[end].startswith(" " * (indent + 1)):
            end += 1
        places = [one.strip() for one in lines[start:end] if one.strip().startswith("File ")]
        found.append(f"{places[-1] if places else ''}: {lines[min(end, len(lines) - 1)].strip()}")
    return found
