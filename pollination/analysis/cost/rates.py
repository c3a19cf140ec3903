"""Speed of the hardware: measured rates if available, else published figures.

`python -m benchmarks --throughput` writes the measured rates to results/throughput.json. A rate is
known for one or two shapes. For other shapes, seconds per token are linear in FLOPs per token. With
one shape the line passes through the origin (the same FLOP/s). With two shapes it also has a
constant cost per token, independent of the model's size.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from pollination.analysis.cost.shapes import Shape, published, shape
from pollination.core.artifacts import read_json

MEASURED = "results/throughput.json"


@dataclass(frozen=True)
class Rates:
    """Rates that give the seconds of a job.

    `lines`: kind -> (seconds per token, seconds per FLOP); `published`: not measured on this
    hardware; `device`: cuda or cpu; `watts`: board power of a GPU, NaN if it is unknown;
    `processor`: rates of jobs without a GPU, as in published.yaml.
    """

    name: str
    start_s: float
    lines: dict[str, tuple[float, float]]
    sources: tuple[str, ...]
    published: bool
    device: str = "cuda"
    watts: float = math.nan
    processor: dict[str, float] = field(default_factory=lambda: published()["processor"])

    def seconds(self, tokens: dict[str, float], flops: dict[str, float]) -> float:
        """Return the time of a job on a GPU (or on its cores), including its start."""
        return self.start_s + sum(
            tokens[kind] * self.lines[kind][0] + flops[kind] * self.lines[kind][1]
            for kind in tokens
        )

    def tokens_per_s(self, kind: str, point: dict) -> float:
        """Return the rate at a point of published.yaml: a model and its context."""
        per_token_s, per_flop_s = self.lines[kind]
        return 1 / (per_token_s + per_flop_s * _flops(kind, point))


def read_rates(hardware: str | None, file: str | Path = MEASURED, device: str = "auto") -> Rates:
    """Return the rates of `hardware` (a name in published.yaml) for the config's `device`.

    None: the measured rates, if they are of this device; else the published rates of an A100, or
    of a CPU with `device: cpu`.
    ValueError: the hardware is unknown, or the config's device excludes it.
    """
    known = published()["hardware"]
    if hardware is None and Path(file).is_file():
        measured = _rates(read_json(file), False, str(file))
        if device in ("auto", measured.device):
            return measured
    hardware = hardware or {"cpu": "cpu"}.get(device, "a100")
    if hardware not in known:
        raise ValueError(
            f"--hardware: {hardware!r} is unknown; allowed: {', '.join(known)}; for other hardware "
            "run python -m benchmarks --throughput and omit --hardware"
        )
    if device not in ("auto", known[hardware]["device"]):
        fit = [name for name, entry in known.items() if entry["device"] == device]
        raise ValueError(
            f"--hardware: {hardware!r} contradicts the config, which sets device: {device}; "
            f"allowed: {', '.join(fit)}"
        )
    return _rates(known[hardware], True, hardware)


def _rates(entry: dict, is_published: bool, source: str) -> Rates:
    lines: dict = {}
    sources = []
    for kind in ("train", "write", "score"):
        points = sorted(
            (_flops(kind, point), 1 / point["tokens_per_s"]) for point in entry.get(kind, [])
        )
        if not points:
            raise ValueError(
                f"{source}: there is no rate of {kind}; measure again: "
                "python -m benchmarks --throughput"
            )
        lines[kind] = _line(points)
        sources += [
            f"{kind}: {point['tokens_per_s']:,.0f} tokens/s of {_called(point)}, from "
            f"{point['source']}"
            for point in entry[kind]
        ]
    # files of earlier versions name neither the device nor its power
    is_cpu = entry.get("device", "cpu" if " threads of " in entry["name"] else "cuda") == "cpu"
    return Rates(
        entry["name"],
        entry["start_s"],
        lines,
        tuple(sources),
        is_published,
        "cpu" if is_cpu else "cuda",
        entry.get("watts") or _watts(entry["name"]),
        published()["processor"] | entry.get("processor", {}),
    )


def _watts(name: str) -> float:
    """Return the board power of a GPU by its name; NaN if the table lacks it."""
    found = (
        watts
        for part, watts in published()["watts"].items()
        if re.search(rf"(?<!\w){re.escape(part)}(?![a-zA-Z0-9])", name)
    )
    return float(next(found, math.nan))


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


def rates_of_run(results: str | Path, device: str = "auto") -> Rates:
    """Return rates to compare a finished run with: measured, else published for its device.

    `device`: the config's, for a run that has trained nothing yet.
    """
    for log in sorted(Path(results, "logs").glob("*/*/member*/train.log")):
        if used := re.search(r"device (\w+)", log.read_text(encoding="utf-8", errors="replace")):
            device = used[1]
            break
    return read_rates(None, device=device if device in ("cpu", "cuda") else "auto")
