"""Write the page of claims: each claim of both studies with its interval, verdict and power.

The same rows go to the CSV and to claims.json.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.claims.judge import judge
from pollination.analysis.claims.verdicts import VERDICTS
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.figures import page, style
from pollination.plan.claims import CLAIMS
from pollination.plan.config.targets import TARGETS

COLOURS = {"supported": style.BLUE, "contradicted": style.VERMILLION, "undecided": style.GREY}
WIDTH, HEIGHT, PAD = 230, 46, 12
STUDIES = {"A": "Study A: Data Pollination", "B": "Study B: Epistemic diversity"}
SIGNS = {
    "supported": "✓ supported",
    "contradicted": "✗ contradicted",
    "undecided": "? undecided",
    "no data": "– no data",
}


def draw(run: Run, out: Path) -> None:
    rows = judge(run)
    artifacts.write_json(
        Path(run.plan.results, "claims.json"), {"run": run.plan.config["run"], "claims": rows}
    )
    style.write_csv(pd.DataFrame(rows), out)
    parts = [summary(rows)]
    for study, title in STUDIES.items():
        parts.append(
            f"<h2>{page.text(title)}</h2>"
            + table([row for row in rows if row["study"] == study and row["verdict"] != "no data"])
        )
        lacking = [row for row in rows if row["study"] == study and row["verdict"] == "no data"]
        if lacking:
            parts.append(
                f"<p>{plural(len(lacking), 'claim')} without data in this run:</p>"
                + page.table(["missing", "claims"], absent(lacking))
            )
    page.save("The claims of both studies, tested on this run", parts, out)


def summary(rows: list[dict]) -> str:
    """Return the counts: claims with and without data, tests by kind, verdicts with their sums."""
    tests = [row for row in rows if row["verdict"] != "no data"]
    with_data = len({row["id"] for row in tests})
    lines = [
        (
            f"The two studies make {plural(len(CLAIMS), 'claim')}: this run tests {with_data}, and "
            f"{len(CLAIMS) - with_data} have no data in it."
        )
    ]
    if not tests:
        return "".join(f"<p>{page.text(line)}</p>" for line in lines)
    measured = sum(row["p"] is not None for row in tests)
    unknown = sum(row["variance_between_runs"] == "unknown" for row in tests)
    exact = len(tests) - measured - unknown
    kinds = [
        f"{measured} with a p-value",
        *([f"{unknown} without replicates"] if unknown else []),
        *([f"{exact} calculated exactly"] if exact else []),
    ]
    lines.append(
        f"A claim is tested once for each benchmark, ecosystem or pair that shows it. That gives "
        f"{plural(len(tests), 'test')}: {', '.join(kinds)}. The table counts tests."
    )
    counted = [
        [said, *(str(found[verdict]) for verdict in VERDICTS[:3]), str(len(tests))]
        for said, found in (
            (said, Counter(row[key] for row in tests))
            for said, key in (
                ("each test alone (95 %)", "verdict"),
                ("corrected for all tests (Holm, 5 %)", "verdict_of_all"),
            )
        )
    ]
    after = []
    if measured:
        after.append(
            f"If every null hypothesis held, about {measured * 0.05:.1f} of the {measured} tests "
            "with a p-value would still be significant alone, by chance."
        )
    after.append(
        "A verdict holds for runs like this one with other seeds, and with models, data and "
        "benchmarks of this size."
    )
    if unknown:
        after.append(
            f"{plural(unknown, 'test')} without replicates: the variance between runs is unknown. "
            "Their bars cover other questions only, and their verdict is undecided by rule. Add "
            "seeds to decide them."
        )
    table = page.table(["verdict", *VERDICTS[:3], "all"], counted, ["", *["number"] * 4])
    first, last = ("".join(f"<p>{page.text(line)}</p>" for line in part) for part in (lines, after))
    return first + table + last


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def absent(rows: list[dict]) -> list[list[str]]:
    """Return the cells of claims without data: a row per reason, with all claims that have it.

    A reason names its target; without that, one reason covers all roles that no config entry sets.
    """
    reasons: dict[str, list[dict]] = {}
    for row in rows:
        target = row["target"]
        reason = row["note"].removeprefix(f"{target} ({TARGETS[target].title}): ")
        reason = reason.removeprefix(f"{target}: ")
        reasons.setdefault(reason.replace(target, "TARGET"), []).append(row)
    cells = []
    for reason, same in reasons.items():
        lacking = {row["target"] for row in same}
        targets = [target for target in TARGETS if target in lacking]
        named = targets[0] if len(targets) == 1 else "{" + ", ".join(targets) + "}"
        claims = "".join(
            f"<li>{page.text(row['claim'])} <small>{page.text(where(row['target']))}</small></li>"
            for row in same
        )
        listed = f"<summary>{plural(len(same), 'claim')}</summary><ul>{claims}</ul>"
        cells.append([page.text(reason.replace("TARGET", named)), f"<details>{listed}</details>"])
    return cells


def where(target: str) -> str:
    kind, number = target.split("_")
    return f"study {number[0].upper()}, {kind} {number[1:]}"


def table(rows: list[dict]) -> str:
    headings = [
        "claim",
        "statistic",
        "interval",
        "verdict",
        "corrected for all tests",
        "runs",
        "power",
    ]
    cells = []
    for row in rows:
        tested = page.text(row["claim"]) + (
            f"<br><small>{page.text(row['tested_on'])} · {page.text(where(row['target']))}</small>"
        )
        value = (
            f"{number(row['estimate'])} [{number(row['low'])}, {number(row['high'])}] {row['unit']}"
            + (f" ({row['level']:.0%} interval)" if row["level"] != 0.95 else "")
        )
        statistic = f"{page.text(value)}<br><small>{page.text(row['statistic'])}</small>"
        verdicts = [
            f'<span style="color:{COLOURS[row[key]]}"><b>{SIGNS[row[key]]}</b></span>'
            for key in ("verdict", "verdict_of_all")
        ]
        if row["in_this_run"] not in (None, row["verdict"]):
            verdicts[0] += f"<br><small>for this run alone: {page.text(row['in_this_run'])}</small>"
        runs = page.text(row["replicates"] or "–") + small(variance(row))
        powers = page.text(power(row)) + small(row["note"])
        cells.append([tested, statistic, plot(row), *verdicts, runs, powers])
    return page.table(headings, cells) if rows else "<p>This run tests no claim of this study.</p>"


def small(said: str) -> str:
    return f"<br><small>{page.text(said)}</small>" if said else ""


def variance(row: dict) -> str:
    said = row["variance_between_runs"]
    if said.startswith(("unknown", "borrowed")):
        return "variance between runs " + said
    return "" if said == "own" else said


def power(row: dict) -> str:
    """Return the power in words, in units of the statistic or of the gap behind a discrete one."""
    if row["variance_between_runs"] == "unknown":
        return "none: no replicates"
    if row["p"] is None:
        return "–"
    if row["power_is_of"] == "gap":
        if row["detectable"] is None:
            return "–"
        gap = np.expm1(row["detectable"])
        return f"80 % to separate the best two if their perplexities differ by {gap:.0%}"
    if row["margin"] is not None:
        return (
            f"{row['power']:.0%} if there is no change at all; 80 % at a margin of "
            f"{number(row['detectable'])}"
        )
    detectable = f"80 % at a distance of {number(row['detectable'])} from {number(row['null'])}"
    return (
        detectable
        if row["power"] is None
        else f"{row['power']:.0%} at the study's value; {detectable}"
    )


def number(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def plot(row: dict) -> str:
    """Return an SVG of the interval, its estimate (dot), the null (dashed), the study's value.

    A diamond marks the study's value. A claim of little change has a band instead of a null.
    """
    margin = row["margin"] or 0.0
    bounds = [row["null"] - margin, row["null"] + margin]
    marks = [
        row["estimate"],
        row["low"],
        row["high"],
        *bounds,
        *([row["paper"]] if row["paper"] is not None else []),
    ]
    first, last = min(marks), max(marks)
    span = (last - first) or 1.0

    def place(value: float) -> float:
        return PAD + (WIDTH - 2 * PAD) * (value - first) / span if last > first else WIDTH / 2

    middle, colour = 16, COLOURS[row["verdict"]]
    dash = "4 3" if row["variance_between_runs"] == "unknown" else "none"
    said = (
        f"{number(row['estimate'])}, {row['level']:.0%} interval {number(row['low'])} to "
        f"{number(row['high'])}"
    )
    drawn = [
        (
            f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{said}" xmlns="http://www.w3.org/2000/svg">'
        )
    ]
    if margin:
        drawn.append(
            f'<rect x="{place(bounds[0]):.1f}" y="3" '
            f'width="{place(bounds[1]) - place(bounds[0]):.1f}" height="26" fill="#e8f1e4"/>'
        )
    drawn += [
        f'<line x1="{place(x):.1f}" x2="{place(x):.1f}" y1="2" y2="30" stroke="#222" '
        'stroke-dasharray="3 2"/>'
        for x in dict.fromkeys(bounds)
    ]
    drawn.append(
        f'<line x1="{place(row["low"]):.1f}" x2="{place(row["high"]):.1f}" y1="{middle}" '
        f'y2="{middle}" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
    )
    drawn.append(
        f'<circle cx="{place(row["estimate"]):.1f}" cy="{middle}" r="4.5" fill="{colour}" '
        'stroke="#fff"/>'
    )
    if row["paper"] is not None:
        x = place(row["paper"])
        drawn.append(
            f'<path d="M{x:.1f} {middle - 7}l5 7l-5 7l-5 -7z" fill="none" stroke="{style.PURPLE}" '
            'stroke-width="1.6"/>'
        )
    shown = dict.fromkeys([first, last])
    anchors = ("start", "end") if len(shown) > 1 else ("middle",)
    drawn += [
        f'<text x="{place(x):.1f}" y="43" font-size="10" fill="#555" '
        f'text-anchor="{anchor}">{number(x)}</text>'
        for x, anchor in zip(shown, anchors, strict=True)
    ]
    return "".join(drawn) + "</svg>"
