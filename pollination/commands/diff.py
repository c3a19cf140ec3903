"""Compare two runs by their folders: settings, artifacts, where each lineage first parts, and the last scores.

Artifacts are compared by the digests in their records; `verify` says whether the files still are what the records say. Exit status: 0 the same but for the
run's name, 1 something differs, 2 one of them is no run.
"""

import json
import re
from collections import Counter
from typing import Any

from pollination.commands import read_run, table
from pollination.comparison import compare

EXAMPLE = "python -m pollination diff results/demo /scratch/other/results/demo"
SHOWN = 20


def add_arguments(parser) -> None:
    parser.add_argument("first", metavar="RUN", help="a run's folder, results/{run}")
    parser.add_argument("second", metavar="RUN")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def run(arguments) -> int:
    found = compare(read_run(arguments.first), read_run(arguments.second))
    differs = bool(found["different"] or found["only_first"] or found["only_second"] or set(found["settings"]) - {"run"})
    print(json.dumps(found, indent=1) if arguments.json else "\n".join(_report(found, arguments.first, arguments.second)))
    return int(differs)


def _report(found: dict, first: str, second: str) -> list[str]:
    lines = [f"first:  {first}", f"second: {second}", "", f"settings that differ: {len(found['settings']) or 'none'}"]
    lines += table([(f"  {key}", *map(_short, values)) for key, values in found["settings"].items()], left=3) if found["settings"] else []
    counts = {key: len(found[key]) for key in ("different", "only_first", "only_second")}
    lines += ["", f"artifacts: {found['equal']} equal, {counts['different']} different, {counts['only_first']} only in the first, "]
    lines[-1] += f"{counts['only_second']} only in the second"
    for key in ("different", "only_first", "only_second"):
        kinds = Counter(_kind(path) for path in found[key])
        lines += [f"  {key.replace('_', ' in the ')}: {count} x {kind}" for kind, count in kinds.most_common(SHOWN)]
    if found["lineages"]:
        lines += ["", "where lineages part:"]
    for name, parting in found["lineages"].items():
        where = "nowhere" if parting is None else f"generation {parting['generation']}: {parting['files'][0]}"
        more = f" and {len(parting['files']) - 1} more" if parting and len(parting["files"]) > 1 else ""
        lines.append(f"  {name}: {where}{more}")
    rows = [("  last generation, mean over members", "first", "second")]
    for name, (one, two) in found["scores"].items():
        for what in dict.fromkeys([*(one or {}), *(two or {})]):
            rows.append((f"  {name}: {what}", *(f"{side[what]:.4f}" if side and what in side else "-" for side in (one, two))))
    return lines + (["", "scores:", *table(rows)] if len(rows) > 1 else [])


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(path: str) -> str:
    """What sort of artifact it is: its path with numbers left out."""
    return re.sub(r"\d+", "*", path)
