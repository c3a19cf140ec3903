"""Measure each code path and its peer; write results/benchmarks.json and docs/performance.md."""

import argparse
import os
import platform
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

from benchmarks import fingerprints, generating, packing, planning, scoring, start, training
from benchmarks.harness import OURS, ROOT, Measurement, Outcome, Row, measure, run
from benchmarks.throughput import held_against, throughput
from pollination.core import artifacts

ROWS = [
    *generating.ROWS,
    *training.ROWS,
    *packing.ROWS,
    *fingerprints.ROWS,
    *scoring.ROWS,
    *planning.ROWS,
    *start.ROWS,
]
THROUGHPUT = "throughput.json"  # beside the results, for `pollination cost`
RESULTS, PAGE = ROOT / "results/benchmarks.json", ROOT / "docs/performance.md"
BEGIN, END = "<!-- table: python -m benchmarks --write -->", "<!-- end of table -->"
FACTOR = 2.0  # by which a figure of the forecast may miss what was measured
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "lm-eval", "snakemake")
HEAD = ("path", "ours", "peer at its best", "ratio (rounds)", "target", "met")


def context(rounds: int, threads: int) -> dict:
    """Return the conditions of a measurement; load: mean number of runnable processes, 1 min."""
    return {
        "rounds": rounds,
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "processor": _processor(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def numbers(outcome: Outcome) -> dict:
    """Return an outcome as JSON."""
    row = outcome.row
    base = {"work": row.work, "unit": row.unit, "target": row.target}
    if outcome.reason:
        return base | {
            "status": "failed" if outcome.failed else "skipped",
            "reason": outcome.reason,
        }
    sides = {
        side: {
            "rate": outcome.rate(side),
            "seconds": [m.seconds for m in runs],
            "peak_mib": max(m.peak_mib for m in runs),
        }
        for side, runs in outcome.measured.items()
    }
    compared = {
        "peer": outcome.peer,
        "ratio": outcome.ratio,
        "ratios_min_max": outcome.spread,
        "agreement": outcome.agreement,
    }
    return base | {"status": "measured", "sides": sides} | compared


def wrapped(text: str) -> str:
    """`text` in lines of at most 100 columns; an item of a list is indented."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def table(rows: dict[str, dict]) -> str:
    """Return the median rates as a Markdown table, then a list of peers, memory and results."""
    lines = [HEAD, ("---",) * len(HEAD)]
    items, notes = [], []
    for name, row in rows.items():
        if row["status"] != "measured":
            notes.append(wrapped(f"{name}: {row['status']}: {row['reason']}"))
            continue
        ours, peer = row["sides"][OURS], row["sides"][row["peer"]]
        low, high = row["ratios_min_max"]
        lines.append(
            (
                f"**{name}**",
                f"{ours['rate']:,.3g} {row['unit']}/s",
                f"{peer['rate']:,.3g} {row['unit']}/s",
                f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})",
                f"{row['target']:.2f}",
                "yes" if row["ratio"] >= row["target"] else "no",
            )
        )
        results = f" Results: {row['agreement']}." if row["agreement"] else ""
        items.append(
            wrapped(
                f"- {name}: {row['work']}. Peer: {row['peer']}. Peak memory: "
                f"{ours['peak_mib']:,.0f} MiB, peer {peer['peak_mib']:,.0f} MiB.{results}"
            )
        )
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join(filter(None, [text, "\n".join(items), *notes]))


def compared(rows: list[tuple[str, float, float]]) -> str:
    """Return the figures of `pollination cost` beside the measured ones as a Markdown table."""
    lines = [
        "| figure of `pollination cost` | assumed | measured | ratio | within a factor of 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for figure, assumed, found in rows:
        ratio = found / assumed
        fits = "yes" if 1 / FACTOR <= ratio <= FACTOR else "no"
        lines.append(f"| {figure} | {assumed:,.4g} | {found:,.4g} | {ratio:.2f} | {fits} |")
    return "\n".join(lines)


def write_page(page: Path, about: dict, text: str) -> None:
    """Replace the page's table and the line with the conditions of the measurement."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    measured = (
        f"Medians of {about['rounds']} rounds, {about['threads']} threads on {about['processor']}, "
        f"load {about['load_before']} before; {versions}."
    )
    replaced(page, (BEGIN, END), f"{wrapped(measured)}\n\n{text}")


def replaced(page: Path, markers: tuple[str, str], text: str) -> None:
    """Replace what stands between two markers of a page, each on a line of its own."""
    before, after = page.read_text(encoding="utf-8").split(markers[0])
    with artifacts.atomic(page) as temporary:
        temporary.write_text(
            f"{before}{markers[0]}\n{text}\n{markers[1]}{after.split(markers[1])[1]}",
            encoding="utf-8",
        )


def say(line: str) -> None:
    print(line, flush=True)


def main(
    words: list[str] | None = None,
    rows: list[Row] = ROWS,
    results: Path = RESULTS,
    page: Path = PAGE,
) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [row.name for row in rows]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help="measure only this row; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements per side (default 3)")
    parser.add_argument(
        "--threads", type=int, default=cores, help="threads per side (default: all cores)"
    )
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    parser.add_argument(
        "--write", action="store_true", help=f"write the table to docs/{page.name}; needs all rows"
    )
    parser.add_argument(
        "--throughput",
        action="store_true",
        help=f"measure only the rates for `pollination cost`, beside those that it assumes; write "
        f"results/{THROUGHPUT}",
    )
    arguments = parser.parse_args(words)
    if arguments.list:
        print("\n".join(f"{row.name:16}{row.work}" for row in rows))
        return 0
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads: 0 or less is not allowed; allowed: 1 or more")
    if arguments.write and arguments.only:
        parser.error("--write needs all rows; leave out --only")
    about = context(arguments.rounds, arguments.threads)
    if about["load_before"] > 0.75 * cores:
        load = f"load {about['load_before']} on {cores} cores"
        say(f"The machine is busy ({load}): the rates will be unreliable.")
    if arguments.throughput:
        rates = throughput(arguments.rounds, arguments.threads, about["processor"], say)
        artifacts.write_json(results.with_name(THROUGHPUT), rates)
        say("\n" + compared(held_against(rates)))
        return 0

    def measure_side(command: list[str]) -> Measurement:
        return measure(command, arguments.threads)

    chosen = [row for row in rows if arguments.only is None or row.name in arguments.only]
    outcomes = [run(row, arguments.rounds, measure_side, say) for row in chosen]
    measured = {outcome.row.name: numbers(outcome) for outcome in outcomes}
    artifacts.write_json(results, {"context": about, "rows": measured})
    text = table(measured)
    print(f"\n{text}")
    if arguments.write:
        write_page(page, about, text)
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
