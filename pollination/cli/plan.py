"""Show which finished jobs a changed config would run again, why, and the GPU-hours.

Type it after you edit the config and before you run snakemake. Snakemake runs a
finished job again if its settings or its input files changed, and then all jobs
that read its files. The report names each changed setting with the value that
the records hold and that of the config. It also counts the jobs that are not
done yet, and the artifacts that the config does not ask for any more.

The number of jobs is that of `snakemake -n`, without its jobs all and
write_config. It is an upper bound: a job whose input files turn out to be equal
restores its kept files in a second.

The hours come from the measured times of this run's jobs. Where the run has
none, they come from the estimate of `pollination cost`. The command reads only,
and needs neither Slurm nor a GPU. Type it in the folder where the run was
started.

Exit status:
  0: no finished job would run again
  1: some would
  2: the command could not run
"""

import json
from collections import Counter
from dataclasses import asdict

from pollination.cli.common import (
    Progress,
    add_configfile,
    add_parameters,
    bytes_,
    parameter_counts,
    read_plan,
    table,
)
from pollination.cli.runs.planned import inside, short
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import check_files

EXAMPLE = "pollination plan --configfile config/config.yaml"
SHOWN = 20


def add_arguments(parser) -> None:
    add_configfile(parser)
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help="hardware to assume for jobs that this run has not measured: a100, h100, h200 or cpu "
        "(default: your own if it was measured, else a100)",
    )
    add_parameters(parser)
    parser.add_argument(
        "--json", action="store_true", help="print every job as JSON (default: a summary)"
    )


def run(arguments) -> int:
    from pollination.analysis.cost.rates import rates_of_run, read_rates
    from pollination.cli.runs.replan import replan  # loads pandas, so not for `--help`

    places = Places([arguments.configfile])
    plan = read_plan(arguments.configfile, places)
    check_files(plan.config, places)
    counts = parameter_counts(arguments.parameters, plan.config["models"])
    device = plan.config["device"]
    rates = (
        read_rates(arguments.hardware, device=device)
        if arguments.hardware
        else rates_of_run(plan.results, device)
    )
    progress = Progress(f"planning {plan.results}")
    found = replan(plan, rates, progress.show, counts)
    progress.show("done", last=True)
    if arguments.json:
        causes = {cause: dict(rules) for cause, rules in found.causes.items()}
        print(json.dumps(asdict(found) | {"causes": causes}, indent=1))
    else:
        print("\n".join(report(found, plan.results, arguments.configfile)))
    return int(bool(found.again))


def report(found, results: str, configfile: str) -> list[str]:
    """Return a Replan as lines of text."""
    lines = [f"{results}: if snakemake ran now with {configfile}", ""]
    lines += _again(found)
    lines.append(f"Jobs that are not done yet: {sum(found.new.values()):,}")
    if found.reused:
        lines.append(
            f"  of these, the runs of `reuse` have done up to {sum(found.reused.values()):,}: "
            f"{_counts(found.reused)}"
        )
    if found.gpu_hours:
        lines += ["", *_hours(found)]
    if found.unnoticed:
        lines += ["", *_unnoticed(found)]
    if found.unasked:
        kinds = shown(found.unasked)
        lines += [
            "",
            (
                "Finished jobs that the config does not ask for any more: "
                f"{len(found.unasked):,} ({bytes_(found.unasked_bytes)}); their files stay:"
            ),
            *(f"  {path}" for path in kinds),
        ]
    if found.harmless:
        lines += ["", "Changed settings that are no reason to run a finished job again:"]
        lines += shown(
            [
                f"  {key}: {short(before)} -> {short(after)}"
                for name, values in found.harmless.items()
                for key, before, after in inside(name, *values)
            ]
        )
    return lines


def _again(found) -> list[str]:
    if not found.again:
        return [f"Finished jobs that would run again: none of {found.finished:,}"]
    count = f"at most {len(found.again):,} of {found.finished:,}"
    lines = [
        f"Finished jobs that would run again: {count}",
        "  because of these changes (recorded -> config):",
    ]
    rows = [(f"    {cause}", _counts(rules)) for cause, rules in found.causes.items()]
    lines += shown(table(rows, left=2)) if rows else ["    none is known"]
    after = sum(not job.causes for job in found.again)
    if after:
        lines.append(f"  and because they read files of these jobs: {after:,}")
    return lines


def _counts(rules: Counter) -> str:
    """Return the numbers of jobs by rule; all figures count as one rule."""
    drawn = sum(count for rule, count in rules.items() if rule.startswith("draw_"))
    texts = [f"{n:,} {rule}" for rule, n in rules.items() if not rule.startswith("draw_")]
    return ", ".join([*texts, *([f"{drawn:,} figures"] if drawn else [])])


def _hours(found) -> list[str]:
    least = "at least " if found.unknown else ""
    again, new = (sum(hours[column] for hours in found.gpu_hours.values()) for column in (0, 1))
    rows: list[tuple[str, ...]] = [("", "again", "not done yet")]
    rows += [
        (f"  {rule}", *(f"{value:,.2f}" if value else "." for value in hours))
        for rule, hours in sorted(found.gpu_hours.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(("  all", f"{again:,.2f}", f"{new:,.2f}"))
    return [
        f"GPU-hours ({least}{again + new:,.2f}; {found.measured:,} jobs by their measured times):",
        *table(rows),
        *(f"  ? {reason}" for reason in found.unknown),
    ]


def _unnoticed(found) -> list[str]:
    line = (
        f"Finished jobs of other settings that would not run again: {len(found.unnoticed):,}. "
        "Snakemake's notes (.snakemake) do not show the change. `pollination verify` prints the "
        "commands that recompute them:"
    )
    return [line] + shown(
        [f"  {path}: {'; '.join(causes)}" for path, causes in found.unnoticed.items()]
    )


def shown(lines: list[str]) -> list[str]:
    """Return the first lines, and how many more there are."""
    more = [f"  ... and {len(lines) - SHOWN:,} more (--json lists all)"]
    return lines[:SHOWN] + (more if len(lines) > SHOWN else [])
