"""Estimate GPU-hours, disk, time, energy and CO2 of a run from its config.

The report gives models, tokens, FLOPs, hours by rule, disk space, the time that
J GPUs need, energy and CO2. '?' marks an unknown amount. The report says how to
provide it.

The hours depend on the hardware. The first lines of the report name the assumed
hardware. --hardware selects published figures. Without it, the hours come from
your own hardware, as `python -m benchmarks --throughput` measured it
(results/throughput.json). If that file does not exist, the command assumes an
NVIDIA A100 80GB, or CPU cores if the config sets `device: cpu`. The keys of
`energy` in the config set the power of a GPU and the CO2 per kWh.

docs/cost.md has the formulas and an example calculated by hand.

Exit status:
  0: every amount is known
  1: some amounts are unknown
  2: the command could not run
"""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pollination.cli.common import (
    add_configfile,
    add_parameters,
    bytes_,
    few,
    parameter_counts,
    read_plan,
    table,
)
from pollination.core import artifacts
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import ConfigError, check_files
from pollination.plan.plan import Plan

if TYPE_CHECKING:
    from pollination.analysis.cost import Estimate
    from pollination.analysis.cost.rates import Rates

EXAMPLE = "pollination cost --configfile config/paper/data_pollination.yaml --gpus 16"
SHOWN, GPUS = 6, 8


def add_arguments(parser) -> None:
    parser.add_argument(
        "--gpus",
        type=int,
        metavar="J",
        help=f"number of GPUs that the run may use at once (default: {GPUS})",
    )
    parser.add_argument(
        "--cores",
        type=int,
        metavar="C",
        help="on hardware without a GPU: number of cores that the run may use at once (default: "
        "those of this machine)",
    )
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help="hardware to assume: a100, h100, h200 or cpu (default: your own if it was measured, "
        "else a100, or cpu if the config sets device: cpu)",
    )
    add_parameters(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="also write every number to FILE (default: no file)"
    )
    add_configfile(parser)


def run(arguments) -> int:
    from pollination.analysis.cost import estimate  # loads pandas, so not for `--help`
    from pollination.analysis.cost.rates import read_rates

    plan = read_plan(arguments.configfile)
    counts = parameter_counts(arguments.parameters, plan.config["models"])
    rates = read_rates(arguments.hardware, device=plan.config["device"])
    slots = _slots(arguments.gpus, arguments.cores, rates, plan.config["cpu_threads"])
    preview = estimate(plan, rates, slots, counts)
    print("\n".join(report(preview, plan, arguments.hardware, _small(plan, arguments))))
    if arguments.json:
        artifacts.write_json(arguments.json, preview.as_json())
    return int(bool(preview.unknown))


def _slots(gpus: int | None, cores: int | None, rates: "Rates", threads: int) -> int:
    """Return how many models run at once: one per GPU, or one per `cpu_threads` cores.

    ValueError: a number below 1, or the number of a device that the hardware has not.
    """
    is_cpu = rates.device == "cpu"
    for name, given, fits in (("--gpus", gpus, not is_cpu), ("--cores", cores, is_cpu)):
        if given is not None and given < 1:
            raise ValueError(f"{name}: {given} is out of range; allowed: 1 or more")
        if given is not None and not fits:
            other = "--cores" if is_cpu else "--gpus"
            raise ValueError(
                f"{name}: the hours are those of {rates.name}; give {other} instead of {name}, or "
                "other hardware with --hardware"
            )
    if not is_cpu:
        return gpus or GPUS
    return max(1, (cores or os.cpu_count() or 1) // threads)


def _assumed_hardware(preview: "Estimate", hardware: str | None, plan: Plan) -> list[str]:
    """Return the lines that name the hardware and say why it was chosen."""
    from pollination.analysis.cost.rates import MEASURED

    device = plan.config["device"]
    if hardware:
        lines = [f"{preview.rates.name} (--hardware {hardware}), by published figures"]
    elif preview.rates.published and (device != "auto" or os.path.isfile(MEASURED)):
        lines = [f"{preview.rates.name} (the config sets device: {device}), by published figures"]
    elif preview.rates.published:
        lines = [
            f"{preview.rates.name} (the default), by published figures",
            f"  {MEASURED}, the measured rates of your own hardware, does not exist.",
            "  To measure them, type: python -m benchmarks --throughput",
            "  For a run on a CPU, such as the demo, give --hardware cpu.",
        ]
    else:
        lines = [f"{preview.rates.name}, by measured rates ({MEASURED})"]
    lines[0] = f"Assumed hardware: {lines[0]}"
    if preview.rates.device == "cpu":
        threads = plan.config["cpu_threads"]
        return [
            *lines,
            f"  No job takes a GPU. A job that runs a model takes {threads} of its cores.",
        ]
    return lines


def _small(plan: Plan, arguments) -> list[str]:
    """Return the warnings of `pollination check`; none while local text is absent or unreadable."""
    try:
        places = Places([arguments.configfile])
        check_files(plan.config, places)
        return few(plan, places)
    except ConfigError:
        return []


def report(
    preview: "Estimate", plan: Plan, hardware: str | None = None, small: Sequence[str] = ()
) -> list[str]:
    """Return the estimate as lines of text; `hardware` is the name that the user gave.

    `small` are warnings about small splits and benchmarks.
    """
    from pollination.analysis.cost import KINDS

    lines = [
        f"Estimated cost of {plan.results}",
        *(f"warning: {line}" for line in small),
        "",
        *_assumed_hardware(preview, hardware, plan),
        "",
        "Rates:",
        *(f"  {source}" for source in preview.rates.sources),
    ]
    # The sums leave out unknown amounts.
    least, is_cpu = "at least " if preview.unknown else "", preview.rates.device == "cpu"
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
        unit = "GPU h" if rule.gpu and not is_cpu else "core h"
        spent = rule.core_hours if unit == "core h" else rule.hours
        tokens = [number(rule.tokens[kind]) if rule.tokens[kind] else "." for kind in KINDS]
        flops = f"{rule.flops:.2e}" if rule.flops else "."
        rows.append(
            (
                name,
                f"{rule.jobs:,}",
                *tokens,
                flops,
                f"{spent:,.1f} {unit:>6}",
                duration(rule.longest_s),
            )
        )
    totals = [number(preview.tokens(kind)) for kind in KINDS]
    jobs = sum(rule.jobs for rule in preview.rules.values())
    rows.append(
        (
            "all (at least)" if least else "all",
            f"{jobs:,}",
            *totals,
            f"{preview.flops:.2e}",
            f"{preview.core_hours:,.1f} core h" if is_cpu else f"{preview.gpu_hours:,.1f}  GPU h",
            "",
        )
    )
    lines += [
        "",
        "Tokens (trained, written, scored) and time by rule:",
        *(f"  {line}" for line in table(rows)),
    ]
    rest = ", without the unknown amounts below" if least else ""
    lines += ["", f"Disk: {least}{bytes_(sum(preview.disk.values()))}{rest}"]
    sizes = sorted(preview.disk.items(), key=lambda item: -item[1])
    lines += [f"  {line}" for line in table([(kind, bytes_(size)) for kind, size in sizes if size])]
    with_all = f"{least}{duration(preview.seconds)}"
    unlimited = f"{least}{duration(preview.critical_s)}"
    if is_cpu:
        cores = preview.slots * plan.config["cpu_threads"]
        with_all = f"Time with {cores} cores (--cores): {with_all}; with cores for every job: "
    else:
        with_all = (
            f"Time with J = {preview.slots} GPUs (--gpus): {with_all}; with one GPU for every job: "
        )
    lines += [
        "",
        f"{with_all}{unlimited}",
        (
            "  Each job starts as soon as its inputs exist and a "
            f"{'core' if is_cpu else 'GPU'} is free."
        ),
        "  Queue times and failures are not counted.",
    ]
    for name, hours in list(preview.waves.items())[:SHOWN]:
        stages = ", ".join(
            f"{stage} {duration(3600 * value)}" for stage, value in hours.items() if stage != "all"
        )
        whole = duration(3600 * hours["all"])
        lines.append(f"  one generation of {name} alone: {least}{whole} ({stages})")
    if len(preview.waves) > SHOWN:
        lines.append(
            f"  ... and {len(preview.waves) - SHOWN} more experiments (--json FILE lists all)"
        )
    lines += ["", *_energy(preview, plan.config["energy"])]
    if preview.unknown:
        lines += [
            "",
            "Unknown amounts, which the sums leave out:",
            *(f"  ? {reason}" for reason in preview.unknown),
        ]
    if preview.notes:
        lines += ["", "Assumptions:", *(f"  {note}" for note in preview.notes)]
    return lines


def _energy(preview: "Estimate", settings: dict) -> list[str]:
    """Return the lines on energy and CO2; an unknown power makes both unknown."""
    rates, least = preview.rates, "at least " if preview.unknown else ""
    kwh, co2_kg = preview.energy_kwh, preview.co2_kg
    sizes = "?" if math.isnan(kwh) else f"{least}{kwh:,.1f} kWh, {least}{co2_kg:,.1f} kg of CO2"
    watts = "?" if math.isnan(rates.watts) else f"{rates.watts:,.0f}"
    gpu = f"{watts} W per GPU, " if rates.device != "cpu" else ""
    return [
        f"Energy: {sizes}",
        (
            f"  {gpu}{rates.processor['watts_per_core']:,.0f} W per core, PUE {settings['pue']:g} "
            f"(energy.pue), {settings['grid_g_per_kwh']:g} g of CO2 per kWh "
            "(energy.grid_g_per_kwh)"
        ),
        "  Hours at full power: an upper bound. The CO2 of making the hardware is not counted.",
    ]


def number(value: float) -> str:
    """Abbreviate a count: 1.2M, 3.4G."""
    if math.isnan(value):
        return "?"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):,.1f}{unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    for size, unit in ((2 * 86400, "d"), (5400, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit]:,.1f} {unit}"
    return f"{seconds:,.0f} s"
