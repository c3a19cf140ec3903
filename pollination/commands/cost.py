"""What a run will cost, before anything is submitted: models, tokens, FLOPs, hours by rule, disk, and the time that it takes with J GPUs.

Works from the config alone. Hours come from results/throughput.json, which `python -m benchmarks --throughput` measures on your own hardware;
where it is not there, from published figures, and the first line says so. '?' stands where something is not known, and what to give is named. docs/cost.md has
the formulas, and a calculation by hand. Exit status: 0, or 1 where something is not known, 2 no such config.
"""

import math

from pollination import artifacts
from pollination.commands import add_configfile, read_plan, table
from pollination.cost import KINDS, Estimate, estimate
from pollination.cost.rates import read_rates

EXAMPLE = "python -m pollination cost --configfile config/paper/data_pollination.yaml --gpus 16"
SHOWN = 6


def add_arguments(parser) -> None:
    parser.add_argument("--gpus", type=int, default=8, metavar="J", help="GPUs that the run may use at once (default: %(default)s)")
    parser.add_argument("--hardware", metavar="NAME", help="a100, h100 or cpu: published figures, also where there are measured ones")
    parser.add_argument("--parameters", action="append", default=[], metavar="MODEL=COUNT", help="parameters of a model that is not known")
    parser.add_argument("--json", metavar="FILE", help="write all of it there too")
    add_configfile(parser)


def run(arguments) -> int:
    if arguments.gpus < 1:
        raise ValueError(f"--gpus: {arguments.gpus} is out of range; allowed: 1 or more")
    plan = read_plan(arguments.configfile)
    found = estimate(plan, read_rates(arguments.hardware), arguments.gpus, _given(arguments.parameters, plan.config["models"]))
    print("\n".join(report(found, plan.results)))
    if arguments.json:
        artifacts.write_json(arguments.json, found.as_json())
    return int(bool(found.unknown))


def _given(words: list[str], models: dict) -> dict[str, int]:
    found = {}
    for word in words:
        name, _, count = word.partition("=")
        if name not in models or not count.replace("_", "").isdigit() or int(count) < 1:
            raise ValueError(f"--parameters: {word!r} is not MODEL=COUNT; models: {', '.join(models)}")
        found[name] = int(count)
    return found


def report(found: Estimate, results: str) -> list[str]:
    """The preview as text."""
    told = "published figures, not measured here" if found.rates.published else "measured here"
    lines = [f"{results} on {found.rates.name} ({told}):", *(f"  {source}" for source in found.rates.sources)]
    members = sum(count for _, count in found.models.values())
    lines += ["", f"{members:,} models to train:"]
    lines += [f"  {count:,} x {name}, {number(parameters)} parameters" for name, (parameters, count) in found.models.items() if count]
    rows = [("rule", "jobs", "trained", "written", "scored", "FLOPs", "hours", "longest job")]
    for name, rule in sorted(found.rules.items(), key=lambda item: (not item[1].gpu, -item[1].hours)):
        unit = "GPU h" if rule.gpu else "core h"
        tokens = [number(rule.tokens[kind]) if rule.tokens[kind] else "." for kind in KINDS]
        flops = f"{rule.flops:.2e}" if rule.flops else "."
        rows.append((name, f"{rule.jobs:,}", *tokens, flops, f"{rule.hours:,.1f} {unit:>6}", duration(rule.longest_s)))
    totals = [number(found.tokens(kind)) for kind in KINDS]
    jobs = sum(rule.jobs for rule in found.rules.values())
    rows.append(("all", f"{jobs:,}", *totals, f"{found.flops:.2e}", f"{found.gpu_hours:,.1f}  GPU h", ""))
    lines += ["", "Tokens and time by rule:", *(f"  {line}" for line in table(rows))]
    lines += ["", f"Disk: {bytes_(sum(found.disk.values()))}"]
    sizes = sorted(found.disk.items(), key=lambda item: -item[1])
    lines += [f"  {line}" for line in table([(kind, bytes_(size)) for kind, size in sizes if size])]
    lines += ["", f"Time with {found.gpus} GPUs: {duration(found.seconds)}; with as many as there are jobs: {duration(found.critical_s)}"]
    lines += ["  a job starts when its inputs are there and a GPU is free; no queue, no failures"]
    for name, hours in list(found.waves.items())[:SHOWN]:
        stages = ", ".join(f"{stage} {duration(3600 * value)}" for stage, value in hours.items() if stage != "all")
        lines.append(f"  one generation of {name} alone: {duration(3600 * hours['all'])} ({stages})")
    if len(found.waves) > SHOWN:
        lines.append(f"  ... and {len(found.waves) - SHOWN} more experiments (--json FILE has all)")
    if found.unknown:
        lines += ["", "Not known, and left out of all sums:", *(f"  ? {reason}" for reason in found.unknown)]
    if found.notes:
        lines += ["", "Assumed:", *(f"  {note}" for note in found.notes)]
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
