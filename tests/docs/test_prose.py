"""The prose of the pages is short: no sentence over 35 words, and half of them under 18."""

import re
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import ROOT

LONGEST, MEDIAN, COLUMNS = 35, 18, 100
PAGES = sorted(
    path
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
        *(ROOT / name for name in ("results/README.md", "profiles/slurm/README.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
    if path.name != "log.md" and path.exists()
)


def paragraphs(text: str) -> list[str]:
    """Paragraphs and entries of lists, without headings, tables, code and markup."""
    text = re.sub(r"(?ms)^ *(```+|~~~+).*?^ *\1 *$", "\n", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"(?m)(?<=\n\n)((?: {4}.*)?\n)+", "\n", text)  # indented code
    lines = [
        "" if re.match(r"\s*(#|\||:?---)", line) else re.sub(r"^\s*([-*]|\d+\.)\s+", "\n", line)
        for line in text.splitlines()
    ]
    parts = [" ".join(part.split()) for part in "\n".join(lines).split("\n\n")]
    return [
        part for line in parts for part in [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)] if part
    ]


def sentences(text: str) -> list[str]:
    found = []
    for part in paragraphs(text):
        part = re.sub(r"`[^`]*`", "code", part)
        part = re.sub(r";(?= \w+: )", ".", part)  # a list of values, each with its meaning
        found += [one for one in re.split(r"(?<=[.!?])[*_)\"”]*\s+", part) if one]
    return found


def words(sentence: str) -> int:
    return len(re.findall(r"\w[\w'’.,/-]*", sentence))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_is_long(page: Path):
    long = [one for one in sentences(page.read_text(encoding="utf-8")) if words(one) > LONGEST]
    assert not long, f"{page}: split these sentences:\n" + "\n".join(long)


def test_half_of_the_sentences_are_short():
    counts = [words(one) for page in PAGES for one in sentences(page.read_text(encoding="utf-8"))]
    assert median(count for count in counts if count > 2) < MEDIAN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_end_at_100_columns(page: Path):
    long = [
        line
        for line in page.read_text(encoding="utf-8").splitlines()
        if len(line) > COLUMNS
        and "http" not in line
        # its tables name functions and tests
        and not (page.name == "audit.md" and line.startswith("|"))
    ]
    assert not long, f"{page}: break these lines:\n" + "\n".join(long)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
