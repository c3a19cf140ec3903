"""The code blocks of the documentation's pages: files to save, changes to apply, lines to type.

A block is a file if its first line is a comment with a path (`# own/text.yaml`), or if the line
before the block is that path alone (`own/letters.csv`:). A block of the language `diff` is a change
of the file that its first line names.
"""

import re
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?ms)^(?:`(?P<before>[\w./-]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
)
NAMED = re.compile(r"# (?P<path>[\w./-]+\.\w+)\n")


def pages(folder: str) -> list[Path]:
    return sorted((DOCS / folder).glob("*.md"))


def files(page: Path) -> dict[str, str]:
    """Path -> text of each file that a page asks the reader to save."""
    found = {}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        named = NAMED.match(block["text"])
        if block["language"] == "diff":
            continue
        if block["before"]:
            found[block["before"]] = block["text"]
        elif named:
            drops = named["path"].endswith(".rst")  # a caption has no comments
            found[named["path"]] = block["text"][named.end() if drops else 0 :]
    return found


def changes(page: Path) -> list[tuple[str, list[str]]]:
    """(path, lines of the change) of each diff of a page."""
    found = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == "diff":
            named = NAMED.match(block["text"])
            assert named, f"{page}: a diff names its file in its first line"
            found.append((named["path"], block["text"][named.end() :].splitlines()))
    return found


def typed(page: Path) -> list[str]:
    """The lines of a page that the reader types into a shell."""
    blocks = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [
        line
        for block in blocks
        if block["language"] == "bash"
        for line in re.sub(r"\s*\\\n\s*", " ", block["text"]).splitlines()
    ]


def save(page: Path, folder: Path) -> list[Path]:
    """Save a page's files into a folder."""
    paths = []
    for name, text in files(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def apply(page: Path, folder: Path) -> None:
    """Apply a page's changes to the files of a checkout.

    A line with `+` is added. The other lines stand in the file, or begin lines of it, one after
    the other.
    """
    for name, change in changes(page):
        path = folder / name
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line[1:] for line in change if not line.startswith("+")]
        places = [
            start
            for start in range(len(lines))
            if all(
                line.startswith(old)
                for line, old in zip(lines[start : start + len(kept)], kept, strict=False)
            )
            and start + len(kept) <= len(lines)
        ]
        assert len(places) == 1, f"{page}: {kept} stands {len(places)} times in {name}"
        old = iter(lines[places[0] : places[0] + len(kept)])
        new = [line[1:] if line.startswith("+") else next(old) for line in change]
        lines[places[0] : places[0] + len(kept)] = new
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
