"""Estimate what a run costs, from the config alone, before anything is submitted.

The report gives models, tokens, FLOPs, hours by rule, disk, and the time that J GPUs need. Hours
come from results/throughput.json, which `python -m benchmarks --throughput` measures on your own
hardware. Without that file they come from published figures, and the first line says so. '?' marks
what is not known, and the report names what to give. docs/cost.md has the formulas and a
calculation by hand.

Exit status: 0, 1 something is not known, 2 there is no such config.
"""

import math
from typing import TYPE_CHECKING

from pollination.cli.common import add_configfile, read_plan, table
from pollination.core import artifacts

if TYPE_CHECKING:
    from pollination.analysis.cost import Estimate

EXAMPLE = "pollination cost --configfile config/paper/data_pollination.yaml --gpus 16"
SHOWN = 6


def add_arguments(parser) -> None:
    parser.add_argument(
        "--gpus",
        type=int,
        default=8,
        metavar="J",
        help="GPUs that the run may use at once (default: %(default)s)",
    )
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help="a100, h100 or cpu: published figures, also where there are measured ones",
    )
    parser.add_argument(
        "--parameters",
        action="append",
        default=[],
        metavar="MODEL=COUNT",
        help="parameters of a model that is not known",
    )
    parser.add_argument("--json", metavar="FILE", help="write all of it there too")
    add_configfile(parser)


def run(arguments) -> int:
    from pollination.analysis.cost import estimate  # loads pandas, which `--help` does not need
    from pollination.analysis.cost.rates import read_rates

    if arguments.gpus < 1:
        raise ValueError(f"--gpus: {arguments.gpus} is out of range; allowed: 1 or more")
    plan = read_plan(arguments.configfile)
    counts = _parameter_counts(arguments.parameters, plan.config["models"])
    preview = estimate(plan, read_rates(arguments.hardware), arguments.gpus, counts)
    print("\n".join(report(preview, plan.results)))
    if arguments.json:
        artifacts.write_json(arguments.json, preview.as_json())
    return int(bool(preview.unknown))


def _parameter_counts(words: list[str], models: dict) -> dict[str, int]:
    counts = {}
    for word in words:
        name, _, count = word.partition("=")
        if name not in models or not count.replace("_", "").isdigit() or int(count) < 1:
            raise ValueError(
                f"--parameters: {word!r} is not MODEL=COUNT; models: {', '.join(models)}"
            )
        counts[name] = int(count)
    return counts


def report(preview: "Estimate", results: str) -> list[str]:
    """The preview as text."""
    from pollination.analysis.cost import KINDS

    told = "published figures, not measured here" if preview.rates.published else "measured here"
    lines = [
        f"{results} on {preview.rates.name} ({told}):",
        *(f"  {source}" for source in preview.rates.sources),
    ]
    members = sum(count for _, count in preview.models.values())
    lines += ["", f"{members:,} models to train:"]
    lines += [
        f"  {count:,} x {name}, {number(parameters)} parameters"
        for name, (parameters, count) in preview.models.items()
        if count
    ]
    heads = ("rule", "jobs", "trained", "written", "scored", "FLOPs", "hours", "longest job")
    rows: list[tuple[str, ...]] = [heads]
    for name, rule in sorted(
        preview.rules.items(), key=lambda item: (not item[1].gpu, -item[1].hours)
    ):
        unit = "GPU h" if rule.gpu else "core h"
        tokens = [number(rule.tokens[kind]) if rule.tokens[kind] else "." for kind in KINDS]
        flops = f"{rule.flops:.2e}" if rule.flops else "."
        rows.append(
            (
                name,
                f"{rule.jobs:,}",
                *tokens,
                flops,
                f"{rule.hours:,.1f} {unit:>6}",
                duration(rule.longest_s),
            )
        )
    totals = [number(preview.tokens(kind)) for kind in KINDS]
    jobs = sum(rule.jobs for rule in preview.rules.values())
    rows.append(
        (
            "all",
            f"{jobs:,}",
            *totals,
            f"{preview.flops:.2e}",
            f"{preview.gpu_hours:,.1f}  GPU h",
            "",
        )
    )
    lines += ["", "Tokens and time by rule:", *(f"  {line}" for line in table(rows))]
    lines += ["", f"Disk: {bytes_(sum(preview.disk.values()))}"]
    sizes = sorted(preview.disk.items(), key=lambda item: -item[1])
    lines += [f"  {line}" for line in table([(kind, bytes_(size)) for kind, size in sizes if size])]
    lines += [
        "",
        (
            f"Time with {preview.gpus} GPUs: {duration(preview.seconds)}; with as many as there "
            f"are jobs: {duration(preview.critical_s)}"
        ),
    ]
    lines += ["  a job starts when its inputs are there and a GPU is free; no queue, no failures"]
    for name, hours in list(preview.waves.items())[:SHOWN]:
        stages = ", ".join(
            f"{stage} {duration(3600 * value)}" for stage, value in hours.items() if stage != "all"
        )
        lines.append(
            f"  one generation of {name} alone: {duration(3600 * hours['all'])} ({stages})"
        )
    if len(preview.waves) > SHOWN:
        lines.append(
            f"  ... and {len(preview.waves) - SHOWN} more experiments (--json FILE has all)"
        )
    if preview.unknown:
        lines += [
            "",
            "Not known, and left out of all sums:",
            *(f"  ? {reason}" for reason in preview.unknown),
        ]
    if preview.notes:
        lines += ["", "Assumed:", *(f"  {note}" for note in preview.notes)]
    return lines


def number(value: float) -> str:
    """A count in short: 1.2 M, 3.4 G."""
    if math.isnan(value):
        return "?"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):,.1f}{unit}"
    return f"{value:,.0f}"


def bytes_(value: float) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 2**10:,.1f} KiB"


def duration(seconds: float) -> str:
    for size, unit in ((2 * 86400, "d"), (5400, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit]:,.1f} {unit}"
    return f"{seconds:,.0f} s"
