"""Self-contained HTML pages. Everything that is not ours is escaped: a model may write anything."""

import unicodedata
from html import escape
from pathlib import Path

from pollination.artifacts import atomic

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem; }}
h1 {{ font-size: 1.35rem; }} h2 {{ font-size: 1.05rem; margin: 2rem 0 .4rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-top: 1px solid #ddd; }}
th {{ font-weight: 600; background: #f6f6f6; }} td.number {{ text-align: right; white-space: nowrap; }}
td.text {{ white-space: pre-wrap; overflow-wrap: anywhere; width: 46%; }}
.prompt {{ background: #f3f7fb; border-left: 4px solid #0072B2; padding: .5rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
.population {{ border-top: 3px solid #0072B2; }} .line {{ border-top: 3px dashed #D55E00; }}
.same {{ color: #777; }} .other {{ font-weight: 600; }} .empty {{ color: #999; font-style: italic; }} small {{ color: #666; }}
</style></head><body>
"""


def text(value: object) -> str:
    """Text that a page may show: escaped, control characters made visible, and its writing direction kept to itself."""
    shown = "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in str(value))
    return f"<bdi>{escape(shown)}</bdi>" if shown.strip() else '<span class="empty">(nothing)</span>'


def table(headings: list[str], rows: list[list[str]], classes: list[str] | None = None) -> str:
    """A table of cells that are HTML already."""
    kinds = classes or [""] * len(headings)
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    cell = lambda kind, value: f'<td class="{kind}">{value}</td>' if kind else f"<td>{value}</td>"  # noqa: E731
    body = "\n".join("<tr>" + "".join(map(cell, kinds, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>\n"


def save(title: str, parts: list[str], out: Path) -> None:
    """Write `out`.html."""
    with atomic(f"{out}.html") as temporary:
        body = f"<h1>{escape(title)}</h1>\n" + "".join(parts)
        temporary.write_text(HEAD.format(title=escape(title)) + body + "</body></html>\n", encoding="utf-8")
