"""How fast the hardware is: measured here (results/throughput.json, by `python -m benchmarks --throughput`), else published figures.

A rate is known for one or two shapes. Between and beyond them seconds a token are taken to be a straight line of FLOPs a token: through the
origin with one shape (the same FLOP/s), with two also with what each token costs whatever the model's size.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pollination.artifacts import read_json
from pollination.cost.shapes import published, shape

MEASURED = "results/throughput.json"


@dataclass(frozen=True)
class Rates:
    """Seconds of a job. `lines`: kind -> (seconds a token, seconds a FLOP); `published`: nothing was measured on this hardware."""

    name: str
    start_s: float
    lines: dict[str, tuple[float, float]]
    sources: tuple[str, ...]
    published: bool

    def seconds(self, tokens: dict[str, float], flops: dict[str, float]) -> float:
        """Time of a job's work on a GPU (or on the cores of a job), its start counted."""
        return self.start_s + sum(tokens[kind] * self.lines[kind][0] + flops[kind] * self.lines[kind][1] for kind in tokens)


def read_rates(hardware: str | None, file: str | Path = MEASURED) -> Rates:
    """The rates of `hardware` (a name in published.yaml), or measured ones; None: measured, where they are, else the A100's."""
    known = published()["hardware"]
    if hardware is None and Path(file).is_file():
        return _rates(read_json(file), False)
    if (hardware or "a100") not in known:
        raise ValueError(
            f"--hardware: {hardware!r} is unknown; allowed: {', '.join(known)}, or measure it: python -m benchmarks --throughput"
        )
    return _rates(known[hardware or "a100"], True)


def _rates(entry: dict, from_others: bool) -> Rates:
    lines, sources = {}, []
    for kind in ("train", "write", "score"):
        points = sorted((_flops(kind, point), 1 / point["tokens_per_s"]) for point in entry.get(kind, []))
        lines[kind] = _line(points) if points else lines["train"]
        sources += [
            f"{kind}: {point['tokens_per_s']:,.0f} tokens/s of {_called(point)}: {point['source']}" for point in entry.get(kind, [])
        ]
        sources += [] if points else [f"{kind}: no figure; taken to reach the FLOP/s of training"]
    return Rates(entry["name"], entry["start_s"], lines, tuple(sources), from_others)


def _shape(point: dict):
    return shape(point["model"] if isinstance(point["model"], dict) else published()["models"][point["model"]])


def _called(point: dict) -> str:
    return point["model"] if isinstance(point["model"], str) else f"a model of {_shape(point).parameters:,} parameters"


def _flops(kind: str, point: dict) -> float:
    context = point["context_tokens"]
    return _shape(point).training(context) if kind == "train" else _shape(point).forward(context / 2 if kind == "write" else context)


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(seconds a token, seconds a FLOP) from (FLOPs a token, seconds a token), smallest first; neither below zero."""
    (small, s), (large, t) = points[0], points[-1]
    if large <= small * 1.01 or t <= s or (t - s) / (large - small) > s / small:
        return 0.0, t / large
    slope = (t - s) / (large - small)
    return s - slope * small, slope


def rates_of_run(results: str | Path) -> Rates:
    """The rates to hold a finished run against: measured ones, else the published ones of the device that its trainings name."""
    for log in sorted(Path(results, "logs").glob("*/*/member*/train.log")):
        if used := re.search(r"device (\w+)", log.read_text(encoding="utf-8", errors="replace")):
            return read_rates(None if Path(MEASURED).is_file() else {"cpu": "cpu"}.get(used[1], "a100"))
    return read_rates(None)
