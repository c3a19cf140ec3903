"""The documentation site: `make docs` builds it into build/docs/."""

import argparse
import os
import re
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from pollination import __version__  # noqa: E402
from pollination.cli import make_parser  # noqa: E402

project = "pollination"
author = "The pollination developers"
copyright = author
release = version = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 4
exclude_patterns = ["conf.py"]
smartquotes = False  # `--option` keeps its two hyphens
html_theme = "furo"
html_theme_options = {
    "light_css_variables": {"code-font-size": "var(--font-size--small--3)"},  # 100 columns fit
}
html_title = f"pollination {release}"
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it fetches pages, which a browser refuses for files

# Pages of the repository outside docs/ -> the page of the site that includes them.
INCLUDED = {
    "config/README.md": "reference/config.md",
    "results/README.md": "reference/artifacts.md",
    "profiles/slurm/README.md": "reference/slurm.md",
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<=\]\()(?!#|[a-z]+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCED = re.compile(r"(?ms)^(```+).*?^\1")


def site_links(text: str, folder: Path, page: str) -> str:
    """Let the links of a file that lies in `folder` work from a page of the site.

    A link to an included page leads to the page that includes it, and a link to a folder becomes
    plain text. Links to other files stay: the site holds a copy of the file.
    """

    def link(match: re.Match) -> str:
        path = os.path.normpath(folder / match[1])
        inside = os.path.relpath(path, ROOT)
        target = DOCS / INCLUDED[inside] if inside in INCLUDED else path
        return os.path.relpath(target, (DOCS / page).parent) + (match[2] or "")

    def prose(part: str) -> str:
        part = re.sub(
            r"\[([^\]]*)\]\((?!#|[a-z]+:)([^)\s#]+)\)",
            lambda match: match[1] if (folder / match[2]).is_dir() else match[0],
            part,
        )
        return LINK.sub(link, part)

    parts, start = [], 0
    for block in FENCED.finditer(text):
        parts += [prose(text[start : block.start()]), block[0]]
        start = block.end()
    return "".join([*parts, prose(text[start:])])


def read_page(_app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = source[0].replace("<!-- commands -->", commands())
    source[0] = source[0].replace("<!-- make targets -->", make_targets())
    source[0] = site_links(source[0], (DOCS / page).parent, f"{page}.md")


def read_included(app: Sphinx, path: Path, _page: str, source: list[str]) -> None:
    source[0] = site_links(source[0], (DOCS / path).resolve().parent, f"{app.env.docname}.md")


def commands() -> str:
    """The reference of the commands, from their parsers."""
    os.environ["COLUMNS"] = "90"
    (choices,) = (
        action.choices
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return "\n".join(command(name, parser) for name, parser in choices.items())


def command(name: str, parser: argparse.ArgumentParser) -> str:
    return f"## {name}\n\n```text\n{parser.format_help().rstrip()}\n```\n"


def make_targets() -> str:
    """The targets of the Makefile, with the text that `make help` prints."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?m)^(\w+):.*?## (.*)$", text)
    return "\n".join(f"- `make {name}`: {plain(about)}" for name, about in targets)


def plain(text: str) -> str:
    """Text in which Markdown sees no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)


def setup(app: Sphinx) -> None:
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
