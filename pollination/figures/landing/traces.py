"""Traces, axes and panels of plotly.js, in the look of the figures."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd

from pollination.figures import curves, style

PLOTLY = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
SYMBOL = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
}
LINE, STEP, GAP, EDGE = 15, 11, 20, 60  # px of a forest: a line of text, a bar, a gap, the axis
WIDE = 260  # px: the height of a panel
LABEL = 46  # characters that fit a line of a small screen
TICKS = 8
Trace = dict[str, Any]
Panel = dict[str, Any]


def clean(values: Iterable[Any]) -> list[Any]:
    """Return values for JSON: numbers of six digits, None for NaN, text without markup."""
    return [_clean(value) for value in values]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value, quote=False)  # plotly.js shows some tags
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


def panel(title: str, data: list[Trace], x: dict, y: dict, height: int = WIDE, **layout) -> Panel:
    """Return a panel. `x`, `y`: axes in plotly's terms; `title`: without markup."""
    return {
        "title": title,
        "data": data,
        "layout": {"xaxis": x, "yaxis": y, "height": height, **layout},
    }


def axis(title: str, **more) -> dict:
    return {"title": {"text": escape(title, quote=False)}, **more}


def fitted(title: str, values: pd.Series, log: bool = False) -> dict:
    """Return an axis that fits these values; a band that exceeds it is cut."""
    ends = [float(end) for end in (values.min(), values.max())]
    ends = [math.log10(end) for end in ends] if log else ends
    pad = 0.06 * (ends[1] - ends[0]) or 0.02
    scale = (
        {"type": "log", "title": f"{title} (log)"} if log else {"type": "linear", "title": title}
    )
    return axis(scale["title"], type=scale["type"], range=[ends[0] - pad, ends[1] + pad])


def whole(title: str, values: Iterable[Any]) -> dict:
    """Return an axis of whole numbers, for example of generations."""
    numbers = [int(value) for value in values]
    step = max(1, math.ceil((max(numbers) - min(numbers)) / TICKS))
    return axis(title, tickformat="d", dtick=step, tick0=min(numbers))


def curve(
    name: str,
    look: dict,
    x: Iterable[Any],
    y: Iterable[Any],
    low: Iterable[Any],
    high: Iterable[Any],
    band: str = "",
) -> list[Trace]:
    """Return a curve and its band; `band`: what the band is."""
    x, y, low, high = clean(x), clean(y), clean(low), clean(high)
    ends = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if None not in (b, c)]
    shade: list[Trace] = []
    if ends:
        shade.append(
            {
                "x": [a for a, _, _ in ends] + [a for a, _, _ in ends[::-1]],
                "y": [b for _, b, _ in ends] + [c for _, _, c in ends[::-1]],
                "fill": "toself",
                "fillcolor": look["color"] + "24",
                "line": {"width": 0},
                "mode": "lines",
                "hoverinfo": "skip",
            }
        )
    said = [
        f" [{b:.4g}, {c:.4g}] {band}" if None not in (b, c) else ""
        for b, c in zip(low, high, strict=True)
    ]
    shown = f"{escape(name, quote=False)}: %{{y:.4g}}%{{customdata}}<extra></extra>"
    return [
        *shade,
        {
            "x": x,
            "y": y,
            "customdata": said,
            "mode": "lines+markers" if len(x) <= 40 else "lines",
            "line": {"color": look["color"], "width": 2, "dash": look["dash"]},
            "marker": {"color": look["color"], "size": 8, "symbol": look["symbol"]},
            "hovertemplate": shown,
            "key": name,
        },
    ]


def of_role(role: str) -> dict:
    return {
        "color": style.COLOUR[role],
        "dash": PLOTLY[style.DASH[role]],
        "symbol": SYMBOL[style.MARKER[role]],
    }


def of_place(place: int) -> dict:
    look = curves.look(place)
    return {"color": look["color"], "dash": PLOTLY[look["ls"]], "symbol": SYMBOL[look["marker"]]}


def members(rows: pd.DataFrame, value: str, role: str) -> Trace:
    """Return the members as faint points."""
    names = [f"{row.experiment}, member {row.member}" for row in rows.itertuples()]
    shift = 0.06 if role == "line" else -0.06
    return {
        "x": clean(rows.generation + shift),
        "y": clean(rows[value]),
        "text": clean(names),
        "mode": "markers",
        "marker": {"color": style.COLOUR[role], "size": 5, "opacity": 0.28},
        "hovertemplate": "%{text}: %{y:.4g}<extra></extra>",
    }


@dataclass(frozen=True)
class Bar:
    """An interval of a forest."""

    name: str
    """Its entry in the legend."""
    role: str
    mean: float
    low: float
    high: float
    said: str
    """Its numbers in words."""
    sure: bool
    """Whether its interval decides; a faint bar does not."""
    dotted: bool = False
    """Whether it covers other questions only, because the variance between runs is unknown."""


def forest(title: str, unit: str, groups: list[tuple[str, list[Bar]]]) -> Panel:
    """Return a panel of intervals: a label with numbers above the bars of each group."""
    data, notes, top = [], [], 0.0
    for label, bars in groups:
        lines = [escape(line, quote=False) for line in wrap(label, LABEL)]
        for bar in bars:
            who = f"{escape(bar.name, quote=False)} " if len(bars) > 1 else ""
            lines.append(f"{who}<b>{escape(bar.said, quote=False)}</b>")
        top += LINE * len(lines)
        notes.append({"y": top, "text": "<br>".join(lines)})
        for bar in bars:
            top += STEP
            data += _bar(bar, top, len(bars) > 1)
        top += GAP
    ends = [0.0, *(end for _, bars in groups for bar in bars for end in (bar.low, bar.high))]
    pad = 0.04 * (max(ends) - min(ends) or 1.0)
    x = axis(unit, zeroline=True, zerolinecolor="#1d1d1b", range=[min(ends) - pad, max(ends) + pad])
    y = {"visible": False, "range": [top - GAP + STEP, -4], "fixedrange": True}
    return panel(title, data, x, y, max(125, int(top) - GAP + STEP + EDGE), annotations=notes)


def _bar(bar: Bar, place: float, named: bool) -> list[Trace]:
    look = of_role(bar.role)
    opacity = {"opacity": 1.0 if bar.sure else 0.5}
    dash = "dot" if bar.dotted else "solid"
    return [
        _interval(clean([bar.low, bar.high]), [place, place], look["color"], 3, dash) | opacity,
        {
            "x": clean([bar.mean]),
            "y": [place],
            "mode": "markers",
            **opacity,
            "marker": {"color": look["color"], "size": 9, "symbol": look["symbol"]},
            "hovertemplate": f"{escape(f'{bar.name}: {bar.said}', quote=False)}<extra></extra>",
            **({"key": bar.name} if named else {}),
        },
    ]


def _interval(x: list, y: list, colour: str, width: float, dash: str) -> Trace:
    """Return intervals as lines, because plotly.js dots no error bars."""
    line = {"color": colour, "width": width, "dash": dash}
    return {"x": x, "y": y, "mode": "lines", "line": line, "hoverinfo": "skip"}


def error_bars(
    name: str, look: dict, x, mean, low, high, lines: bool = True, dotted: Iterable[bool] = ()
) -> list[Trace]:
    """Return points and their intervals. `dotted`: of each point; by default of none."""
    mean, low, high = (np.asarray(one, dtype=float) for one in (mean, low, high))
    x, dots = clean(x), list(dotted) or [False] * len(mean)
    bars = []
    for dash in ("solid", "dot"):
        of = [place for place, dot in enumerate(dots) if dot == (dash == "dot")]
        ends = clean(end for place in of for end in (low[place], high[place], math.nan))
        at = [end for place in of for end in (x[place], x[place], None)]
        bars += [_interval(at, ends, look["color"], 2, dash)] if of else []
    points = {
        "x": x,
        "y": clean(mean),
        "customdata": [f"[{a:.4g}, {b:.4g}]" for a, b in zip(low, high, strict=True)],
        "mode": "lines+markers" if lines else "markers",
        "line": {"color": look["color"], "width": 1.5, "dash": look["dash"]},
        "marker": {"color": look["color"], "size": 8, "symbol": look["symbol"]},
        "hovertemplate": f"{escape(name, quote=False)}: %{{y:.4g}} %{{customdata}}<extra></extra>",
        "key": name,
    }
    return [*bars, points]
