"""Write the landing page of a run: one HTML file that needs no network.

The answer comes first, then the figures that show it as charts (plotly.js, compressed in the page),
then all figures by topic as pictures. Scripts run by their digest only, so text of a model or of a
config stays text. Without scripts, charts are pictures too.
"""

import base64
import gzip
import hashlib
import json
import os
import re
from functools import cache
from html import unescape
from pathlib import Path

import pandas as pd
from plotly.offline import get_plotlyjs

from pollination.core.artifacts import atomic
from pollination.figures import page, style
from pollination.figures.landing import captions
from pollination.figures.landing.charts import MOST_PANELS, charts
from pollination.figures.landing.story import Story, tell
from pollination.plan.landing import TOPICS, Shown, shown, uncompared
from pollination.plan.plan import Plan
from pollination.plan.sizes import found, warnings

HERE = Path(__file__).parent
LARGEST_SVG = 300_000  # bytes; a larger figure is shown as PNG
HEAD = 4000  # characters of an SVG file, its metadata among them
LEADS = {"Theory": "theory_trajectory", "Fingerprints": "fingerprint_similarity"}


def write(plan: Plan, folder: Path, out: Path) -> None:
    """Write the page; `folder` holds the captions (workflow/report)."""
    every = shown(plan)
    paths = {one.stem: one.path for one in every}
    empty = {one.stem: why for one in every if (why := _why(one))}

    @cache
    def read(stem: str) -> pd.DataFrame:
        shows = stem in paths and stem not in empty
        return style.read_csv(f"{paths[stem]}.csv") if shows else pd.DataFrame()

    story = tell(every, read)
    first = [next(one for one in every if one.stem == stem) for stem in story.main]
    every_panel = {one.stem: charts(one.key, read(one.stem)) for one in first}
    more = {stem: len(panels) - MOST_PANELS for stem, panels in every_panel.items()}
    drawn = {stem: panels[:MOST_PANELS] for stem, panels in every_panel.items() if panels}
    write_one = Writer(plan, folder, out.parent, story)
    parts = [
        _head(plan, bool(drawn)),
        _header(plan, story),
        _nav([one for one in every if one.stem not in empty], first),
        '<main id="main">\n',
        *(write_one.main(one, drawn.get(one.stem, []), more[one.stem]) for one in first),
        _about(plan, folder),
        *write_one.topics([one for one in every if one not in first and one.stem not in empty]),
        _left_out([(one.title, empty[one.stem]) for one in every if one.stem in empty]),
        "</main>\n",
        (HERE / "foot.html").read_text(encoding="utf-8"),
        _scripts(drawn),
        "</body></html>\n",
    ]
    with atomic(out) as temporary:
        temporary.write_text("".join(parts), encoding="utf-8")


def _why(one: Shown) -> str | None:
    """Return why a figure has nothing to show, which `style.nothing` writes into its SVG file."""
    if one.page:
        return None
    with open(f"{one.path}.svg", encoding="utf-8") as file:
        head = file.read(HEAD)
    said = re.search(r"<dc:description>(.*?)</dc:description>", head, re.DOTALL)
    return unescape(said[1]) if said else None


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _boot() -> str:
    return (HERE / "landing.js").read_text(encoding="utf-8")


def _head(plan: Plan, with_charts: bool) -> str:
    allowed = [_boot(), *([get_plotlyjs()] if with_charts else [])]
    scripts = " ".join(f"'sha256-{_digest(script)}'" for script in allowed)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    css = (HERE / "landing.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{page.attribute(plan.config['run'])}: report</title>\n<style>\n{css}</style>"
        '</head>\n<body>\n<a class="skip" href="#main">Skip to the figures</a>\n'
    )


def _header(plan: Plan, story: Story) -> str:
    numbers = "".join(
        f"<div><dt>{page.text(one.what)}</dt><dd><b>{page.text(one.value)}</b>"
        f"<span>{_text(one.interval)}</span></dd></div>\n"
        for one in story.numbers
    )
    return (
        f'<header><p class="run">Report of the run {page.text(plan.config["run"])}</p>\n'
        f"<h1>{_text(story.headline)}</h1>\n"
        + (f'<p class="also">{_text(story.note)}</p>\n' if story.note else "")
        + (f'<dl class="numbers">\n{numbers}</dl>\n' if numbers else "")
        + "</header>\n"
    )


def _text(said: str) -> str:
    """Return a sentence with minus signs for numbers, and no line break before a percent sign."""
    said = re.sub(r"(?<![\w.])-(?=\d)", "\u2212", said)
    return page.text(re.sub(r"(?<=\d) %", "\u00a0%", said))


def _nav(every: list[Shown], first: list[Shown]) -> str:
    rest = {one.topic for one in every if one not in first}
    places = [("main", "The answer")] if first else []
    places += [("about", "What was run")]
    places += [(_anchor(topic), topic) for topic in TOPICS if topic in rest]
    items = "".join(f'<li><a href="#{anchor}">{name}</a></li>' for anchor, name in places)
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>\n'


def _anchor(topic: str) -> str:
    return topic.lower().replace(" ", "-")


def _about(plan: Plan, folder: Path) -> str:
    said = captions.about(plan, folder, list(warnings(plan, found(plan))))
    if names := uncompared(plan):
        said += (
            f"<p>In no comparison: {', '.join(f'<b>{page.text(name)}</b>' for name in names)}. To "
            "compare experiments, name them in <code>figures</code>.</p>\n"
        )
    return f'<section id="about"><h2>What was run</h2>\n<div class="about">{said}</div></section>\n'


def _left_out(figures: list[tuple[str, str]]) -> str:
    if not figures:
        return ""
    items = "".join(f"<li>{page.text(a)}: {page.text(b)}</li>\n" for a, b in figures)
    return (
        '<section id="left-out"><h2>Figures with nothing to show</h2>\n'
        f'<ul class="caption">{items}</ul></section>\n'
    )


def _scripts(drawn: dict[str, list[dict]]) -> str:
    parts = [f"<script>{_boot()}</script>\n"]
    if drawn:
        packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
        data = json.dumps(drawn, allow_nan=False).replace("<", "\\u003c")
        parts = [
            f'<script type="application/json" id="charts">{data}</script>\n',
            f'<script type="text/plain" id="plotly">{packed}</script>\n',
            *parts,
        ]
    return "".join(parts)


class Writer:
    """Writes the figures and pages of one run."""

    def __init__(self, plan: Plan, folder: Path, home: Path, story: Story) -> None:
        self.plan, self.folder, self.home, self.story = plan, folder, home, story

    def main(self, one: Shown, panels: list[dict], more: int) -> str:
        """Return a figure that answers: charts with sentences beside them.

        `more`: how many more panels its picture has.
        """
        said = self.story.said.get(one.stem, [])
        caption = captions.caption(self.plan, one, self.folder)
        sentences = "".join(f'<p class="said">{_text(sentence)}</p>\n' for sentence in said)
        words = _folded(caption)
        if sentences:
            words = f'<div class="caption">{caption}</div>'
            words = f"<details><summary>How to read this figure</summary>{words}</details>"
        chart = _charts(one, panels, more) if panels else ""
        return (
            f"<article><h3>{page.text(one.title)}</h3>\n"
            f'<div class="beside"><div>{chart}{self._picture(one, caption)}</div>\n'
            f"<div>{sentences}{words}{self._files(one)}</div></div></article>\n"
        )

    def topics(self, rest: list[Shown]) -> list[str]:
        parts = []
        for topic in TOPICS:
            mine = [one for one in rest if one.topic == topic]
            if not mine:
                continue
            lead = LEADS.get(topic, "")
            said = [
                sentence
                for stem, sentences in self.story.said.items()
                if lead and stem.startswith(lead) and stem not in self.story.main
                for sentence in sentences[:1]
            ]
            parts.append(f'<section id="{_anchor(topic)}"><h2>{topic}</h2>\n')
            parts += [f'<p class="lead">{_text(sentence)}</p>\n' for sentence in said]
            parts += [self._page(one) if one.page else self._figure(one) for one in mine]
            parts.append("</section>\n")
        return parts

    def _figure(self, one: Shown) -> str:
        caption = captions.caption(self.plan, one, self.folder)
        return (
            f"<article><h3>{page.text(one.title)}</h3>\n"
            f'<div class="beside"><div>{self._picture(one, caption)}</div>\n'
            f"<div>{_folded(caption)}{self._files(one)}</div></div></article>\n"
        )

    def _page(self, one: Shown) -> str:
        """Return a page of the run in a frame that runs no scripts."""
        inside = Path(f"{one.path}.html").read_text(encoding="utf-8")
        caption = captions.caption(self.plan, one, self.folder)
        title = page.attribute(one.title)
        return (
            f'<article class="page"><details><summary>{page.text(one.title)}</summary>\n'
            f'<div class="caption">{caption}</div>{self._files(one)}\n'
            f'<iframe sandbox loading="lazy" title="{title}" srcdoc="{page.attribute_of(inside)}">'
            "</iframe></details></article>\n"
        )

    def _picture(self, one: Shown, caption: str) -> str:
        kind, data = "svg+xml", Path(f"{one.path}.svg").read_bytes()
        wide = _is_wide(data)
        if len(data) > LARGEST_SVG:
            kind, data = "png", Path(f"{one.path}.png").read_bytes()
        source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        title = page.attribute(one.title)
        said = page.attribute(f"{one.title}. {captions.plain(caption)}")
        return (
            f'<div data-picture="{page.attribute(one.stem)}">'
            f'<div class="picture{" wide" if wide else ""}">'
            f'<button type="button" data-enlarge="{self._id(one)}" data-title="{title}" '
            f'aria-label="Enlarge: {title}">'
            f'<img id="{self._id(one)}" alt="{said}" src="{source}"></button></div>'
            '<p class="hint">Swipe to see all of it, tap to enlarge.</p></div>'
        )

    def _id(self, one: Shown) -> str:
        return page.attribute(f"picture-{one.stem}")

    def _files(self, one: Shown) -> str:
        """Return the links to the files of a figure, which lie beside the page."""
        names = {"html": "Page", "png": "PNG", "svg": "SVG", "csv": "Numbers (CSV)"}
        path = os.path.relpath(one.path, self.home)
        enlarge = (
            ""
            if one.page
            else f'<button type="button" data-enlarge="{self._id(one)}" '
            f'data-title="{page.attribute(one.title)}">Enlarge</button> '
        )
        links = " ".join(
            f'<a href="{page.attribute(path)}.{end}">{name}</a>'
            for end, name in names.items()
            if end in one.endings
        )
        return f'<p class="files">{enlarge}{links}</p>\n'


def _folded(caption: str) -> str:
    """Return a caption of which readers see the first paragraph, and unfold the rest."""
    first, end, rest = caption.partition("</p>")
    rest = rest.removesuffix("</main>\n").strip()
    first = f'<div class="caption">{first}{end}</div>'
    if not re.sub(r"<[^>]+>", "", rest).strip():
        return first
    more = f'<summary>More on this figure</summary><div class="caption">{rest}</div>'
    return f"{first}<details>{more}</details>"


def _is_wide(svg: bytes) -> bool:
    """Return whether a small screen should show the picture at its size and let readers swipe."""
    head = svg[:2000].decode("utf-8", "replace")
    width, height = (
        float(part) for part in head.partition('viewBox="0 0 ')[2].split('"')[0].split()
    )
    return width > 420 and width > 0.8 * height


def _charts(one: Shown, panels: list[dict], more: int) -> str:
    """Return the places of a figure's charts, hidden until they are drawn, and their legend."""
    looks: dict[str, dict] = {}
    for panel in panels:
        for trace in panel["data"]:
            if name := trace.pop("key", None):
                looks.setdefault(name, trace)
    keys = "".join(f"<li>{_key(trace)}{page.text(name)}</li>" for name, trace in looks.items())
    nodes = "".join(
        f'<div><h4>{page.text(panel["title"])}</h4><div class="chart" role="img" '
        f'aria-label="{page.attribute(one.title)}: {page.attribute(panel["title"])}"></div></div>\n'
        for panel in panels
    )
    rows = " rows" if one.key == "answer" or len(panels) == 1 else ""
    return (
        f'<div hidden data-charts="{page.attribute(one.stem)}">'
        + (f'<ul class="keys">{keys}</ul>' if len(looks) > 1 or one.key == "diversity" else "")
        + f'<div class="charts{rows}">{nodes}</div>'
        + (f'<p class="caption">The picture has {more} more.</p>' if more > 0 else "")
        + "</div>\n"
    )


DASHES = {"dash": "5 3", "dashdot": "5 2 1 2", "dot": "1.5 2.5"}


def _key(trace: dict) -> str:
    """Return the legend's mark of a trace."""
    colour = trace["marker"]["color"]
    dash = DASHES.get(trace.get("line", {}).get("dash", ""), "none")
    line = f'<path d="M1 7H25" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
    marks = {
        "circle": '<circle cx="13" cy="7" r="4"/>',
        "square": '<rect x="9" y="3" width="8" height="8"/>',
        "diamond": '<path d="M13 2l5 5l-5 5l-5-5z"/>',
        "triangle-up": '<path d="M13 2l5 9h-10z"/>',
        "triangle-down": '<path d="M13 12l5-9h-10z"/>',
    }
    mark = marks.get(trace["marker"].get("symbol", "circle"), marks["circle"])
    line = line if trace["mode"] != "markers" else ""
    return (
        f'<svg width="26" height="14" aria-hidden="true"><g fill="{colour}">{line}{mark}</g></svg>'
    )
