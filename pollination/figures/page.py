"""Self-contained HTML pages. All text from outside is escaped: a model may write anything."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pollination.analysis.degeneration import KINDS, Span
from pollination.core.artifacts import atomic
from pollination.core.sanitize import hidden

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 1.5rem auto; \
max-width: 72rem; padding: 0 1rem; }}
h1 {{ font-size: 1.35rem; }} h2 {{ font-size: 1.05rem; margin: 2rem 0 .4rem; }}
table {{ border-collapse: collapse; width: 100%; }} .wide {{ overflow-x: auto; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; \
border-top: 1px solid #ddd; }}
th {{ font-weight: 600; background: #f6f6f6; }} \
td.number {{ text-align: right; white-space: nowrap; }}
td.text {{ white-space: pre-wrap; overflow-wrap: anywhere; width: 46%; }}
.prompt {{ background: #f3f7fb; border-left: 4px solid #0072B2; padding: .5rem .8rem; \
white-space: pre-wrap; overflow-wrap: anywhere; }}
.population {{ border-top: 3px solid #0072B2; }} .line {{ border-top: 3px dashed #D55E00; }}
u {{ text-underline-offset: .2em; text-decoration-thickness: 2px; }} \
u.url {{ text-decoration-color: #D55E00; }}
u.repetition {{ text-decoration: underline double #0072B2; }} \
u.enumeration {{ text-decoration: underline dashed 2px #009E73; }}
u.unknown {{ text-decoration: underline wavy 1px #CC79A7; }}
.same {{ color: #777; }} .other {{ font-weight: 600; }} \
.empty {{ color: #999; font-style: italic; }} small {{ color: #666; }}
</style></head><body>
"""


def text(value: object, spans: Sequence[Span] = ()) -> str:
    """Return text for a page: escaped, hidden characters shown, `spans` underlined.

    The text direction is isolated.
    """
    shown = "".join(c if c in "\n\t" or not hidden(c) else "\ufffd" for c in str(value))
    if not shown.strip():
        return '<span class="empty">(nothing)</span>'
    parts, at = [], 0
    for span in spans:
        parts += [
            escape(shown[at : span.start]),
            underlined(escape(shown[span.start : span.end]), span.kind),
        ]
        at = span.end
    return f"<bdi>{''.join(parts)}{escape(shown[at:])}</bdi>"


def attribute(value: object) -> str:
    """Return text for a quoted attribute."""
    return escape("".join("\ufffd" if hidden(c) else c for c in str(value)), quote=True)


def attribute_of(html: str) -> str:
    """Return a page for the attribute `srcdoc`; its text has no hidden characters."""
    return escape(html, quote=True)


def underlined(html: str, kind: str) -> str:
    return f'<u class="{kind}" title="{KINDS[kind]}">{html}</u>'


def underlines() -> str:
    """Return the legend of the underlines."""
    return (
        "<p>Rules, not people, underline: "
        + ", ".join(underlined(name, kind) for kind, name in KINDS.items())
        + ".</p>\n"
    )


def table(headings: list[str], rows: list[list[str]], classes: list[str] | None = None) -> str:
    """Return a table; headings and cells are HTML."""
    kinds = classes or [""] * len(headings)
    head = "".join(f"<th>{heading}</th>" for heading in headings)

    def cell(kind: str, value: str) -> str:
        return f'<td class="{kind}">{value}</td>' if kind else f"<td>{value}</td>"

    body = "\n".join("<tr>" + "".join(map(cell, kinds, row)) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )


def save(title: str, parts: list[str], out: Path) -> None:
    """Write `out`.html."""
    with atomic(f"{out}.html") as temporary:
        body = f"<h1>{escape(title)}</h1>\n" + "".join(parts)
        temporary.write_text(
            HEAD.format(title=escape(title)) + body + "</body></html>\n", encoding="utf-8"
        )
