"""The report and its pages in a real browser: everything is there, nothing is asked of anywhere,
nothing is run that a model wrote.
"""

import csv
from pathlib import Path

import pytest

from tests import browser
from tests.conftest import snakemake
from tests.figures import test_report as test_figures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def chromium():
    if why := browser.missing():
        pytest.skip(why)


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    snakemake(finished, "--report", str(path))
    return path


@pytest.fixture(scope="module")
def lineage(tmp_path_factory) -> Path:
    out, _ = test_figures.draw("lineage", test_figures.invent(tmp_path_factory.mktemp("run")))
    return Path(f"{out}.html")


def test_the_report_opens_without_errors_or_requests_and_has_every_figure(report, finished):
    with browser.opened(report) as (page, log):
        page.wait_for_function("document.body.innerText.includes('Workflow')")
        results = page.evaluate("Object.keys(results)")
        for path in results:
            if path.endswith((".svg", ".html")):
                assert page.evaluate("path => results[path].data_uri.length", path) > 1000
        assert not log
    made = {
        path.name
        for path in (finished / "results/toy/report").iterdir()
        if path.suffix in (".svg", ".html", ".csv") and path.stem != "index"
    }
    assert made <= {Path(path).name for path in results}


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_of_the_report_stays_within_the_window_and_shows_model_text_as_text(finished, width):
    for page_file in (finished / "results/toy/report").glob("*.html"):
        if page_file.stem == "index":
            continue
        with browser.opened(page_file, width=width) as (page, log):
            assert page.evaluate("document.documentElement.scrollWidth") <= width + 1, (
                page_file.name
            )
            assert page.evaluate("document.scripts.length") == 0 and not log


@pytest.mark.parametrize("width", [1280, 420])
def test_the_landing_page_draws_its_charts_within_the_window_and_asks_for_nothing(finished, width):
    with browser.opened(finished / "results/toy/report/index.html", width=width) as (page, log):
        page.wait_for_function("document.documentElement.dataset.drawn")
        assert page.evaluate("document.documentElement.dataset.drawn") == "yes"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".chart .main-svg").count() > 4 and not log
        assert page.locator("article").first.locator("img").is_hidden()
        first = page.locator("h1").bounding_box()
        assert first["y"] + first["height"] < 500
        text = page.locator("article").first.locator(".beside > div").nth(1).bounding_box()
        chart = page.locator("article").first.locator(".charts").bounding_box()
        is_beside = text["x"] > chart["x"] + chart["width"] / 2
        assert is_beside == (width == 1280)


def test_a_chart_shows_the_value_at_the_pointer_and_zooms(finished):
    with browser.opened(finished / "results/toy/report/index.html") as (page, log):
        page.wait_for_function("document.documentElement.dataset.drawn == 'yes'")
        chart = page.locator("[data-charts=accuracy] .chart").first
        chart.scroll_into_view_if_needed()
        box = chart.locator(".trace path.point").last.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_function("document.querySelector('.hoverlayer text')")
        said = page.evaluate("document.querySelector('.hoverlayer text').textContent")
        assert any(name in said for name in ("population: 0.", "single line: 0.", "member"))
        before = page.evaluate("document.querySelector('[data-charts=accuracy] .chart').layout")
        plot = chart.locator(".nsewdrag").bounding_box()
        page.mouse.move(plot["x"] + 20, plot["y"] + 20)
        page.mouse.down()
        page.mouse.move(plot["x"] + 120, plot["y"] + 120, steps=4)
        page.mouse.up()
        after = page.evaluate("document.querySelector('[data-charts=accuracy] .chart').layout")
        assert after["xaxis"]["range"] != before["xaxis"]["range"] and not log


def test_a_figure_opens_large_by_keyboard_and_closes_again(finished):
    with browser.opened(finished / "results/toy/report/index.html", width=420) as (page, log):
        opener = page.locator("#outcome .picture button").first
        opener.focus()
        page.keyboard.press("Enter")
        large = page.locator("dialog img")
        assert large.is_visible() and large.get_attribute("alt")
        width = large.bounding_box()["width"]
        page.keyboard.press("+")
        assert large.bounding_box()["width"] > 1.4 * width
        page.keyboard.press("Escape")
        assert not large.is_visible() and not log


def test_without_scripts_the_landing_page_shows_pictures(finished):
    path = finished / "results/toy/report/index.html"
    with browser.opened(path, scripts=False) as (page, _):
        first = page.locator("article").first
        assert first.locator("img").is_visible() and first.locator(".charts").is_hidden()


def test_pointing_at_a_model_shows_its_parents_score_and_text(lineage):
    with open(lineage.with_suffix(".csv"), encoding="utf-8", newline="") as file:
        row = next(
            r
            for r in csv.DictReader(file)
            if (r["experiment"], r["generation"], r["member"]) == ("population", "3", "2")
        )
    with browser.opened(lineage) as (page, log):
        card = page.locator("#e0g3m2c")
        assert not card.is_visible() and page.locator("#e0 .hint").is_visible()
        page.hover("#e0g3m2")
        said = card.inner_text()
        assert (
            row["weights_from"] in said
            and row["text_from"] in said
            and f"{float(row['value']):.4g}" in said
        )
        assert '<script>alert("x")</script>' in said and not page.locator("#e0 .hint").is_visible()
        assert (
            page.evaluate("getComputedStyle(document.querySelector('#e0g3m2p path')).opacity")
            == "1"
        )
        page.click("#e0g1m1")
        page.mouse.move(2, 2)
        page.evaluate("document.activeElement.blur()")
        assert page.locator("#e0g1m1c").is_visible() and not card.is_visible() and not log
