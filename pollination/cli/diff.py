"""Compare two runs: settings, artifacts, lineages and last scores.

Two artifacts are equal if their records (run.json) hold the same digest. The
command does not read the artifacts themselves. `pollination verify` checks that
they match their records.

The report lists the settings and the artifacts that differ. For each experiment,
it names the first generation in which an artifact differs, and gives the mean
scores of the last generation.

Exit status:
  0: the runs are equal, or differ in their name only
  1: the runs differ
  2: the command could not run (for example, a folder is not a run)
"""

import json
import re
from collections import Counter
from typing import Any

from pollination.cli.common import table
from pollination.cli.runs.comparison import compare
from pollination.plan.saved import read_run

EXAMPLE = "pollination diff results/demo /scratch/other/results/demo"
SHOWN = 20


def add_arguments(parser) -> None:
    parser.add_argument("first", metavar="FIRST", help="folder of a run, results/{run}")
    parser.add_argument("second", metavar="SECOND", help="folder of another run")
    parser.add_argument(
        "--json", action="store_true", help="print all differences as JSON (default: a summary)"
    )


def run(arguments) -> int:
    differences = compare(read_run(arguments.first), read_run(arguments.second))
    differs = bool(
        differences["different"]
        or differences["only_first"]
        or differences["only_second"]
        or set(differences["settings"]) - {"run"}
    )
    print(
        json.dumps(differences, indent=1)
        if arguments.json
        else "\n".join(_report(differences, arguments.first, arguments.second))
    )
    return int(differs)


def _report(differences: dict, first: str, second: str) -> list[str]:
    lines = [
        f"first:  {first}",
        f"second: {second}",
        "",
        f"settings that differ (key, first, second): {len(differences['settings']) or 'none'}",
    ]
    settings = [
        (f"  {key}", *map(_short, values)) for key, values in differences["settings"].items()
    ]
    lines += table(settings, left=3) if settings else []
    counts = {key: len(differences[key]) for key in ("different", "only_first", "only_second")}
    lines += [
        "",
        (
            f"artifacts: {differences['equal']} equal, {counts['different']} different, "
            f"{counts['only_first']} only in the first run, {counts['only_second']} only in the "
            "second run"
        ),
    ]
    for key in ("different", "only_first", "only_second"):
        kinds = Counter(_kind(path) for path in differences[key])
        lines += [
            f"  {key.replace('_', ' in the ')}: {count} x {kind}"
            for kind, count in kinds.most_common(SHOWN)
        ]
    if differences["lineages"]:
        lines += ["", "first generation that differs, by experiment:"]
    for name, parting in differences["lineages"].items():
        if parting is None:
            lines.append(f"  {name}: none")
            continue
        first_file, *more_files = parting["files"]
        more = f" and {len(more_files)} more" if more_files else ""
        lines.append(f"  {name}: generation {parting['generation']}: {first_file}{more}")
    rows: list[tuple[str, ...]] = [("  mean over the last generation", "first", "second")]
    for name, of_both in differences["scores"].items():
        scores = [of_run or {} for of_run in of_both]
        for what in dict.fromkeys([*scores[0], *scores[1]]):
            values = (f"{of_run[what]:.4f}" if what in of_run else "-" for of_run in scores)
            rows.append((f"  {name}: {what}", *values))
    return lines + (["", "scores:", *table(rows)] if len(rows) > 1 else [])


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    if isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(path: str) -> str:
    """Return the kind of an artifact: its path with * for every number."""
    return re.sub(r"\d+", "*", path)
