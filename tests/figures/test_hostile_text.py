"""What a model or a file says is shown, never acted on: not by a browser, not by a terminal, not by
what reads a log.
"""

import json
import logging
import re
from pathlib import Path

import pandas as pd
import pytest

from pollination.cli.common import table
from pollination.cli.runs.states import last_line
from pollination.core import artifacts
from pollination.core.job import Plain
from pollination.core.sanitize import LONGEST, hidden, line
from pollination.figures import page, style
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.figures import REPORT
from tests.figures.test_report import draw, invent, settings

EVIL = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(2)><style>*{display:none}</style>",
    "attribute": "\" onmouseover='alert(3)' x=\"`",
    "comment": "--><!--]]><![CDATA[",
    "entity": "&lt;script&gt;alert(4)&#60;/script&#62;",
    "link": "javascript:alert(5) http://evil.example/?q=1",
    "ansi": "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil\x1b\\\x9b31m",
    "bidi": "\u202eelif.exe\u2066\u200f\u061c",
    "control": "\x00\x08\x7f\r\x85\u2028\u2029",
    "braces": "{rules} {0} %s %n ${x} {{",
    "surrogates": "🧪" * 50,
    "long": "z" * 3000,
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A run all of whose members write all of this."""
    plan = invent(tmp_path_factory.mktemp("run"))
    said = "\n".join(EVIL.values())
    for path in Path(plan.results).rglob("samples.parquet"):
        rows = [
            {"prompt_id": f"{name} {text[:50]}", "prompt": text, "completion": said, "seed": 0}
            for name, text in EVIL.items()
        ]
        artifacts.write_table(path, pd.DataFrame(rows))
    return plan


@pytest.mark.parametrize("name", [name for name, figure in REPORT.items() if figure.page])
def test_a_page_shows_it_and_runs_none_of_it(plan, name):
    out, _ = draw(name, plan)
    html = Path(f"{out}.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html and not any(
        hidden(c) for c in html if c != "\n" and c != "\t"
    )
    assert not re.search(
        r"<(script|img|iframe|object|link|base|form|meta http-equiv=\"refresh)", html
    )
    assert not re.search(r"<[^>]*\son\w+\s*=", html) and not re.search(r"(src|href)=\"(?!#)", html)
    assert html.count("<style") == (2 if name == "lineage" else 1) + (
        name == "lineage"
    )  # the page's own, and one a family
    if name in ("continuations", "lineage"):
        assert (
            "&lt;script&gt;alert(1)" in html
            and "&amp;lt;script" in html
            and "{rules} {0} %s" in html
        )


def test_text_in_an_attribute_stays_in_it():
    for text in EVIL.values():
        shown = page.attribute(text)
        assert not set(shown) & set("\"<>'") and not any(map(hidden, shown))


def test_a_label_of_the_config_cannot_be_a_formula(tmp_path):
    for label, said in (
        ("$\\frac{", "a formula"),
        ("a\nb", "one line"),
        ("\x1b[31m", "one line"),
        ("x" * 101, "at most 100"),
    ):
        for role in ("ecosystems", "comparisons"):
            with pytest.raises(ConfigError, match=said) as error:
                resolve(settings() | {"figures": {role: {label: ["line"]}}})
            assert not any(map(hidden, str(error.value)))


def test_svg_text_is_escaped(tmp_path):
    style.nothing('<script>alert(1)</script> & "quoted"', tmp_path / "a", ("x",))
    svg = (tmp_path / "a.svg").read_text()
    assert "<script" not in svg


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_a_message_is_one_line_that_a_terminal_does_not_act_on(text):
    shown = line(f"a\n{text}")
    assert not any(map(hidden, shown)) and len(shown) <= LONGEST + 10
    record = logging.LogRecord("pollination", logging.ERROR, "", 0, "error: %s", (text,), None)
    assert not any(map(hidden, Plain("%(levelname)s %(message)s").format(record)))
    (rows,) = table([(text, "b")])
    assert not any(map(hidden, rows))


def test_a_traceback_of_ours_keeps_its_lines():
    try:
        raise RuntimeError("\x1b[2J")
    except RuntimeError as error:
        record = logging.LogRecord(
            "pollination", logging.ERROR, "", 0, "x", (), (RuntimeError, error, error.__traceback__)
        )
    shown = Plain().format(record)
    assert (
        shown.count("\n") > 3
        and "\\x1b[2J" in shown
        and not any(hidden(c) for c in shown if c != "\n")
    )


def test_what_a_log_of_another_says_last_is_shown_harmless(tmp_path):
    (tmp_path / "a.log").write_text(
        "2026-11-27 10:00:00,000 ERROR error: \x1b[2J\u202egnp\n", encoding="utf-8"
    )
    assert last_line(str(tmp_path / "a.log")).endswith("error: \\x1b[2J\\u202egnp")


def test_text_survives_the_way_through_artifacts_as_it_was_written(tmp_path):
    texts = list(EVIL.values())
    artifacts.write_table(tmp_path / "a.parquet", pd.DataFrame({"completion": texts}))
    assert artifacts.read_table(tmp_path / "a.parquet")["completion"].to_pylist() == texts
    artifacts.write_json(tmp_path / "a.json", texts)
    assert artifacts.read_json(tmp_path / "a.json") == texts == json.loads(json.dumps(texts))
