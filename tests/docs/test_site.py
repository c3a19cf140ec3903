"""The site builds without warnings and works from disk; commands and links on its pages exist."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pollination.cli import COMMANDS, make_parser
from pollination.plan.config.targets import TARGETS
from tests import browser
from tests.conftest import ROOT
from tests.docs.pages import DOCS, files, typed

PAGES = sorted(path for path in [ROOT / "README.md", *DOCS.rglob("*.md")] if path.name != "log.md")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-d", str(folder / "doctrees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_builds_without_warnings_and_has_every_page(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").exists()


def test_the_site_needs_no_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*?(?:src|href)="([^"]+)"', page.read_text())
        assert not [name for name in loaded if re.match(r"(https?:)?//", name)], page
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert not re.search(r"url\(['\"]?(https?:)?//", "".join(styles))


def test_the_reference_of_commands_is_their_help(site):
    text = (site / "reference/commands.html").read_text()
    for name in COMMANDS:
        assert f'id="{name}"' in text, name


def test_the_search_index_knows_pages_that_are_included(site):
    index = (site / "searchindex.js").read_text()
    for word in ("preemption", "excess", "lexicas"):
        assert f'"{word}"' in index or f"{word}:" in index, word


def test_the_search_works_from_disk(site):
    if why := browser.missing():
        pytest.skip(why)
    with browser.opened(site / "index.html") as (page, log):
        page.fill("input[name=q]", "lexicase")
        page.press("input[name=q]", "Enter")
        page.wait_for_selector("#search-results li a")
        assert "selection" in page.inner_text("#search-results li a").lower()
        assert not log


def test_every_target_of_the_studies_stands_in_the_reference():
    page = (DOCS / "reference/figures.md").read_text()
    assert set(re.findall(r"`((?:figure|table|appendix)_[ab]\d+)`", page)) >= set(TARGETS)


def test_every_make_target_stands_in_the_reference(site):
    (names,) = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    page = (site / "reference/make.html").read_text()
    for name in names.split():
        assert f'>make</span> <span class="pre">{name}<' in page, name


def test_links_of_all_pages_lead_somewhere():
    done = subprocess.run(
        [sys.executable, str(DOCS / "check_links.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_broken_link_is_one_line(tmp_path):
    spec = importlib.util.spec_from_file_location("check_links", DOCS / "check_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = tmp_path / "page.md"
    page.write_text("# One two\n\n[a](#one-two) [b](#three) [c](no.md)\n\n```\n[d](no.md)\n```\n")
    assert [(line, link) for line, link, _ in module.broken(page)] == [(3, "#three"), (3, "no.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_can_be_typed(page):
    """Options that exist, and config files that lie in the repository or stand on the page."""
    saved = set(files(page))
    for line in typed(page):
        words = shlex.split(re.sub(r"\$\(([^)]*)\)", r"\1", line), comments=True)
        if "--configfile" in words:
            name = words[words.index("--configfile") + 1]
            own = "/" not in name  # a file of the reader's, which the page does not show
            assert own or name in saved or (ROOT / name).is_file(), line
        if words[:1] == ["pollination"]:
            make_parser().parse_args(words[1:])
