"""Check the relative links of every Markdown page of the repository: files, folders and headings.

Each broken link is one line: page, line number, link, what is wrong. Exit status: 0 all links lead
somewhere, 1 some do not.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
INCLUDE = re.compile(r"^```+\{include\}\s+(\S+)")


def pages() -> list[Path]:
    """The Markdown pages that git knows or could add, or all of them where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.splitlines()]
        return sorted(path for path in found if path.is_file())
    skipped = {"build", "node_modules"}
    return sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(
            part.startswith(".") or part in skipped for part in path.relative_to(ROOT).parts[:-1]
        )
    )


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a page, without its blocks of code."""
    fence = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        marks = re.match(r"\s*(```+|~~~+)", line)
        if marks and (not fence or marks[1].startswith(fence)):
            fence = "" if fence else marks[1]
        elif not fence:
            yield number, line


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST name them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        if include := INCLUDE.match(line):
            found |= anchors(path.parent / include[1])
    for _, line in prose(path):
        if heading := HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def broken(page: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, link, what is wrong) of each link of a page that leads nowhere."""
    for number, line in prose(page):
        for link in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            target = page.parent / link[1] if link[1] else page
            name = link[0][2:-1]
            if not target.exists():
                yield number, name, "no such file; correct the path"
            elif link[2] and target.suffix == ".md" and link[2] not in anchors(target):
                yield number, name, f"no heading of {target.name} has this anchor; correct it"


def main() -> int:
    found = [(page, *fault) for page in pages() for fault in broken(page)]
    for page, number, link, fault in found:
        print(f"{page.relative_to(ROOT)}:{number}: {link}: {fault}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
