"""The landing page: the answer first, the figures that show it, all the rest by topic, and nothing
that runs or loads but its own scripts.
"""

import base64
import gzip
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from pollination.analysis.run import Run
from pollination.figures import drawing, style
from pollination.figures.landing import captions, compose, story
from pollination.figures.landing.charts import charts
from pollination.plan.config.resolve import resolve
from pollination.plan.landing import landing_config, landing_page, shown, uncompared
from pollination.plan.plan import Plan
from pollination.plan.report import figure_config
from tests.conftest import ROOT, as_read
from tests.figures import test_ecosystems
from tests.figures.test_hostile_text import EVIL
from tests.figures.test_report import invent, settings

CAPTIONS = ROOT / "workflow/report"
ANSWERING = ("answer", "accuracy", "truth", "difference")


class Page(HTMLParser):
    """What a browser finds: tags with attributes, the text of headings, the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.headings: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("h1", "h2", "h3", "script"):
            self.inside = tag
            (self.scripts if tag == "script" else self.headings).append("")

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside:
            self.headings[-1] += data

    def every(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def write(plan: Plan, drawn: tuple[str, ...] = (), said: str = "Nothing invented.") -> str:
    """Draw these figures and write the page with what its rule declares; the others are empty."""
    for one in shown(plan):
        out = Path(one.path)
        if one.stem in drawn:
            part = Plan(as_read(figure_config(plan, one.stem)), plan.results)
            drawing(one.stem).draw(Run(part), out)
        elif one.page:
            out.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{out}.html").write_text(f"<p>{said}</p>", encoding="utf-8")
            Path(f"{out}.csv").write_text("x\n1\n")
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            style.nothing(f"No {one.stem} here.", out, ("x",))
    (page,) = map(Path, landing_page(plan))
    compose.write(Plan(as_read(landing_config(plan)), plan.results), CAPTIONS, page)
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def populations(tmp_path_factory) -> tuple[str, Plan]:
    seeds = (1, 2, 3, 4, 5, 6)
    folder = tmp_path_factory.mktemp("run")
    plan = invent(folder, seeds=seeds, line_seeds=seeds, generations=3)
    return write(plan, ANSWERING, "".join(EVIL.values())), plan


def digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def test_the_answer_comes_first_then_the_figures_that_show_it(populations):
    html, plan = populations
    page, results = Page(html), plan.results
    answer = pd.read_csv(f"{results}/report/answer.csv")
    said = answer.sentence[0]
    assert page.headings[0] == said.replace(" %", "\u00a0%") and said.startswith(
        "In generation 2, the population answers"
    )
    titles = {one.stem: one.title for one in shown(plan)}
    assert page.headings[1:4] == [titles[stem] for stem in ANSWERING[:3]]
    places = [page.headings.index(name) for name in ("What was run", "Outcome", "Text")]
    assert places == sorted(places) and page.headings.index(titles["difference"]) > places[1]
    low, high = (f"{answer[end][0]:+.1f}" for end in ("low", "high"))
    assert f"95\u00a0% interval {low} to {high}" in html


def test_a_figure_without_values_is_left_out_and_named_with_the_reason(populations):
    html, plan = populations
    titles = {one.stem: one.title for one in shown(plan)}
    assert titles["selection"] not in Page(html).headings
    assert re.search(rf"{titles['selection']}</bdi>: <bdi>No selection here\.", html)


def test_every_figure_has_an_alternative_text_and_links_to_files_that_exist(populations):
    html, plan = populations
    page, home = Page(html), Path(plan.results, "report")
    pictures = [image for image in page.every("img") if "src" in image]
    assert len(pictures) == len(ANSWERING)
    assert all(
        image["src"].startswith("data:image/") and len(image["alt"]) > 40 for image in pictures
    )
    links = [a["href"] for a in page.every("a") if not a["href"].startswith("#")]
    assert len(links) == sum(
        len(one.endings) for one in shown(plan) if one.page or one.stem in ANSWERING
    )
    assert all((home / link).is_file() for link in links)
    anchors = {a["href"][1:] for a in page.every("a")} & {t.get("id") for _, t in page.tags}
    assert {"main", "about", "outcome", "text", "selection", "the-run-itself"} <= anchors


def test_only_its_own_scripts_may_run_and_nothing_is_loaded(populations):
    html, _ = populations
    page = Page(html)
    policy = page.every("meta")[2]["content"]
    data, packed, boot = page.scripts
    library = gzip.decompress(base64.b64decode(packed)).decode()
    allowed = re.search(r"script-src ([^;]+)", policy).group(1)
    assert allowed == f"'{digest(boot)}' '{digest(library)}'" and "unsafe-eval" not in policy
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert set(json.loads(data)) == set(ANSWERING[:3])
    assert not page.every("link") and all("src" not in one for one in page.every("script"))
    frames = page.every("iframe")
    assert frames and all("sandbox" in one and one["sandbox"] is None for one in frames)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert any(EVIL["script"] in one["srcdoc"] for one in frames)
    assert "<script>alert" not in html


def test_a_hostile_name_stays_text_in_captions_and_charts(tmp_path):
    name = "`x <javascript:alert(5)>`_ <img src=x>"
    raw = settings(generations=2) | {"figures": {"controls": {name: "line"}}}
    said = captions.about(Plan(resolve(raw), str(tmp_path)), CAPTIONS, [f"{name}: few"])
    assert not Page(said).every("a") and not Page(said).every("img") and "few" in said
    rows = pd.DataFrame({"title": [name] * 2, "experiment": [name] * 2, "t": [0, 1]})
    (panel,) = charts("comparisons", rows.assign(mu=[1.0, math.nan]))
    assert "<img" not in panel["data"][0]["hovertemplate"] and panel["data"][0]["y"] == [1.0, None]


def test_ecosystems_say_whether_the_best_diversity_grows(tmp_path):
    plan = test_ecosystems.invent(tmp_path, test_ecosystems.config())
    html = write(plan, ("diversity", "trajectories", "aggregates", "comparisons"))
    page = Page(html)
    assert page.headings[0].startswith("The best diversity grows with the number of rounds: D = 1 ")
    assert "D = 4 over 4 rounds (95\u00a0% interval: 4 only)" in page.headings[0]
    assert "Some experiments ran once, so their intervals cover other test text alone" in html
    titles = {one.stem: one.title for one in shown(plan)}
    assert page.headings[1:4] == [titles[s] for s in ("diversity", "trajectories", "aggregates")]
    rows = pd.read_csv(f"{plan.results}/report/diversity.csv")
    for probability, said in ((0.6, "does not decide whether the best"), (0.01, "does not grow")):
        changed = rows.assign(rises_probability=probability, replicates=2)
        told = story.of_ecosystems(
            "diversity", lambda stem, rows=changed: rows if stem == "diversity" else pd.DataFrame()
        )
        assert said in told.headline and not told.note


def test_a_single_line_on_own_text_has_a_page(tmp_path):
    plan = invent(tmp_path, population=0, line_seeds=(7,), tasks=(), generations=3)
    html = write(plan, ("answer", "perplexity"))
    assert (
        Page(html).headings[0].startswith("From generation 0 to 2, the excess nats of the single")
    )
    assert "The experiments ran once" in html and "ran once" not in Page(html).headings[0]


def test_a_run_without_comparisons_or_scripts_of_charts_says_so(tmp_path):
    plan = invent(tmp_path, tasks=(), text_measured=False, microworld=False, generations=2)
    html = write(plan, ("answer", "training"))
    assert Page(html).headings[0].startswith("This run does not compare a population with a single")
    assert len(Page(html).scripts) == 1 and len(html) < 2_000_000


def test_surveys_comparisons_sweeps_and_theory_have_a_sentence_each():
    ends = {"low": [-0.7, 0.2], "high": [-0.4, 0.4], "value": [-0.57, 0.31]}
    survey = pd.DataFrame(ends | {"statistic": ["cliffs_delta", "overlap_kde"], "kind": "all"})
    read = lambda rows: lambda stem: rows  # noqa: E731
    told = story.of_survey("fingerprint_similarity.s", read(survey.assign(resampled="models")))
    assert (
        told.headline.startswith("Models of one family are more alike")
        and "\u22120.7" in told.headline
    )
    unsure = survey.assign(resampled="models", high=[0.1, 0.4])
    assert "does not decide" in story.of_survey("fingerprint_similarity.s", read(unsure)).headline
    pair = {
        "title": "a",
        "experiment": ["x", "y"],
        "aggregate": [9.0, 5.0],
        "low": 4.0,
        "high": 9.5,
    }
    rows = pd.DataFrame(pair | {"T": 3, "best_probability": [0.01, 0.99], "replicates": 2})
    assert "a: y has the lowest perplexity, averaged over 3 rounds: 5 (95 %" in (
        story.of_comparisons("comparisons", read(rows)).headline
    )
    close = rows.assign(best_probability=0.5)
    assert "does not decide" in story.of_comparisons("comparisons", read(close)).headline
    swept = {"mutate.scale": [0.1, 0.2], "measure": "knowledge", "unit": "%"}
    swept = pd.DataFrame(swept | {"low": [38.0, 57.0], "high": [42.0, 63.0], "replicates": 1})
    told = story.of_sweep("sweep_a", read(swept.assign(mean=[40.0, 60.0])))
    said = "2 values of mutate.scale, knowledge in the last generation differs: it is lowest, 40 %"
    assert f"{said} (95 % interval 38 to 42) at mutate.scale 0.1, and highest" in told.headline
    assert "ran once" in told.note
    tied = story.of_sweep("sweep_a", read(swept.assign(mean=40.0, low=38.0, high=42.0)))
    assert tied.headline.endswith("has no clear difference: it is the same, 40 %, at all.")
    theory = {"role": ["evolution", "baseline"], "quantity": "sd", "generation": 1000}
    theory = pd.DataFrame(theory | {"median": [1.0, 0.02], "q05": [0.9, 0], "q95": [1.1, 0.2]})
    assert "keeps a standard deviation of 0.02 (5 to 95 % of the runs: 0 to 0.2)" in (
        story.of_theory("theory_trajectory", read(theory)).headline
    )


def test_experiments_in_no_comparison_are_named(tmp_path):
    raw = settings()
    raw["experiments"]["islands"] = raw["experiments"]["line"] | {"seeds": [1, 2]}
    raw["experiments"]["swept"] = raw["experiments"]["line"] | {"sweep": {"train.epochs": [1, 2]}}
    raw["figures"] = {"population": "population", "line": "line"}
    assert uncompared(Plan(resolve(raw), "r")) == ["islands"]


def test_equal_results_give_equal_pages(populations):
    html, plan = populations
    (page,) = map(Path, landing_page(plan))
    compose.write(Plan(as_read(landing_config(plan)), plan.results), CAPTIONS, page)
    assert page.read_text(encoding="utf-8") == html
