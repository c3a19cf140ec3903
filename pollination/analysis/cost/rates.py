"""Speed of the hardware: measured rates if available, else published figures.

`python -m benchmarks --throughput` writes the measured rates to results/throughput.json. A rate is
known for one or two shapes. For other shapes, seconds per token are linear in FLOPs per token. With
one shape the line passes through the origin (the same FLOP/s). With two shapes it also has a
constant cost per token, independent of the model's size.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pollination.analysis.cost.shapes import Shape, published, shape
from pollination.core.artifacts import read_json

MEASURED = "results/throughput.json"


@dataclass(frozen=True)
class Rates:
    """Rates that give the seconds of a job.

    `lines`: kind -> (seconds per token, seconds per FLOP); `published`: not measured on this
    hardware.
    """

    name: str
    start_s: float
    lines: dict[str, tuple[float, float]]
    sources: tuple[str, ...]
    published: bool

    def seconds(self, tokens: dict[str, float], flops: dict[str, float]) -> float:
        """Return the time of a job on a GPU (or on its cores), including its start."""
        return self.start_s + sum(
            tokens[kind] * self.lines[kind][0] + flops[kind] * self.lines[kind][1]
            for kind in tokens
        )


def read_rates(hardware: str | None, file: str | Path = MEASURED) -> Rates:
    """Return the rates of `hardware` (a name in published.yaml); None: measured, else A100."""
    known = published()["hardware"]
    if hardware is None and Path(file).is_file():
        return _rates(read_json(file), False)
    if (hardware or "a100") not in known:
        raise ValueError(
            f"--hardware: {hardware!r} is unknown; allowed: {', '.join(known)}; for other hardware "
            "run python -m benchmarks --throughput and omit --hardware"
        )
    return _rates(known[hardware or "a100"], True)


def _rates(entry: dict, is_published: bool) -> Rates:
    lines: dict = {}
    sources = []
    for kind in ("train", "write", "score"):
        points = sorted(
            (_flops(kind, point), 1 / point["tokens_per_s"]) for point in entry.get(kind, [])
        )
        lines[kind] = _line(points) if points else lines["train"]
        sources += [
            f"{kind}: {point['tokens_per_s']:,.0f} tokens/s of {_called(point)}, from "
            f"{point['source']}"
            for point in entry.get(kind, [])
        ]
        sources += [] if points else [f"{kind}: rate unknown; assumed: the FLOP/s of training"]
    return Rates(entry["name"], entry["start_s"], lines, tuple(sources), is_published)


def _shape(point: dict) -> Shape:
    model = point["model"]
    return shape(model if isinstance(model, dict) else published()["models"][model])


def _called(point: dict) -> str:
    if isinstance(point["model"], str):
        return point["model"]
    return f"a model of {_shape(point).parameters:,} parameters"


def _flops(kind: str, point: dict) -> float:
    context = point["context_tokens"]
    if kind == "train":
        return _shape(point).training(context)
    return _shape(point).forward(context / 2 if kind == "write" else context)


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Return (seconds per token, seconds per FLOP), neither below zero.

    `points`: (FLOPs per token, seconds per token), smallest first.
    """
    (small, s), (large, t) = points[0], points[-1]
    if large <= small * 1.01 or t <= s or (t - s) / (large - small) > s / small:
        return 0.0, t / large
    slope = (t - s) / (large - small)
    return s - slope * small, slope


def rates_of_run(results: str | Path) -> Rates:
    """Return rates to compare a finished run with: measured, else published for its device."""
    for log in sorted(Path(results, "logs").glob("*/*/member*/train.log")):
        if used := re.search(r"device (\w+)", log.read_text(encoding="utf-8", errors="replace")):
            device = {"cpu": "cpu"}.get(used[1], "a100")
            return read_rates(None if Path(MEASURED).is_file() else device)
    return read_rates(None)
