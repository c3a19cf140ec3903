"""Render the captions of the report (workflow/report/*.rst), as Snakemake does for its own."""

import io
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

from docutils.core import publish_parts
from jinja2 import Environment

from pollination.plan.landing import Shown
from pollination.plan.paper import target_setting
from pollination.plan.plan import Plan

END = "**Where to look**"  # the rest of the first page describes Snakemake's report
SETTINGS = {
    "raw_enabled": False,  # names of the config may contain markup
    "file_insertion_enabled": False,
    "report_level": 5,
    "halt_level": 5,
    "smart_quotes": False,
}
ENVIRONMENT = Environment(trim_blocks=True, lstrip_blocks=True)  # as snakemake.report sets it


def caption(plan: Plan, one: Shown, folder: Path) -> str:
    """Return the caption of a figure as HTML; `folder` holds the templates."""
    keys = ("title", "draws", "panels")  # of rules/paper.smk
    params = {key: target_setting(plan, one.target, key) for key in keys} if one.target else {}
    name = "paper" if one.target else one.key
    return _render(plan, (folder / f"{name}.rst").read_text(encoding="utf-8"), one, params)


def about(plan: Plan, folder: Path, warnings: list[str]) -> str:
    """Return what the run asks and which experiments it has, as HTML."""
    source = (folder / "workflow.rst").read_text(encoding="utf-8").partition(END)[0]
    return _render(plan, source, None, {}, {"small": warnings})


def _render(
    plan: Plan, source: str, one: Shown | None, params: dict, more: dict | None = None
) -> str:
    wildcards = {
        "figure": one.stem if one else "",
        "survey": one.survey if one else "",
        "target": one.target if one else "",
    }
    job = SimpleNamespace(config=plan.config | (more or {}), wildcards=wildcards, params=params)
    said = ENVIRONMENT.from_string(source).render(snakemake=job)
    parts = publish_parts(
        said, writer="html5", settings_overrides=SETTINGS | {"warning_stream": io.StringIO()}
    )
    html = re.sub(r"</?(?:a|img|object|embed)\b[^>]*>", "", parts["body"])  # no links, no images
    return re.sub(r"\s(?:id|class|href|src)=\"[^\"]*\"", "", html)


def plain(html: str) -> str:
    """Return the first sentence of a caption without markup, for an alternative text."""
    words = " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())
    return re.split(r"(?<=[.)])\s", words, maxsplit=1)[0]
