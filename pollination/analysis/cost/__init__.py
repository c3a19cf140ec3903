"""Cost of a run, from its config alone: tokens, FLOPs, disk, hours on J GPUs (docs/cost.md).

Nothing here imports torch, because the forecast runs on a login node.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from pollination.analysis.cost.disk import disk
from pollination.analysis.cost.rates import Rates
from pollination.analysis.cost.schedule import makespan
from pollination.analysis.cost.shapes import published
from pollination.analysis.cost.work import Load, Loads
from pollination.plan.plan import Plan

KINDS = ("train", "write", "score")


@dataclass
class Rule:
    """Jobs of one rule; `hours` are GPU hours, or processor hours if the rule takes no GPU."""

    jobs: int = 0
    gpu: bool = False
    tokens: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    flops: float = 0.0
    hours: float = 0.0
    longest_s: float = 0.0


@dataclass
class Estimate:
    """A forecast; sums leave out unknown amounts, which `unknown` lists.

    `models`: name -> (parameters, members).
    """

    rates: Rates
    gpus: int
    models: dict[str, tuple[float, int]]
    rules: dict[str, Rule]
    disk: dict[str, float]
    seconds: float
    critical_s: float
    unknown: list[str]
    notes: list[str]
    waves: dict[str, dict]

    @property
    def gpu_hours(self) -> float:
        return sum(rule.hours for rule in self.rules.values() if rule.gpu)

    @property
    def flops(self) -> float:
        return sum(rule.flops for rule in self.rules.values())

    def tokens(self, kind: str) -> float:
        return sum(rule.tokens[kind] for rule in self.rules.values())

    def as_json(self) -> dict:
        rules = {
            name: {
                "jobs": r.jobs,
                "gpu": r.gpu,
                "tokens": r.tokens,
                "flops": r.flops,
                "hours": r.hours,
                "longest_s": r.longest_s,
            }
            for name, r in self.rules.items()
        }
        models = {
            name: {"parameters": None if math.isnan(p) else int(p), "members": n}
            for name, (p, n) in self.models.items()
        }
        totals = {
            "models": sum(n for _, n in self.models.values()),
            "flops": self.flops,
            "gpu_hours": self.gpu_hours,
        }
        totals |= {f"tokens_{kind}": self.tokens(kind) for kind in KINDS}
        totals |= {"bytes": sum(self.disk.values())}
        hardware = {
            "name": self.rates.name,
            "published": self.rates.published,
            "sources": list(self.rates.sources),
            "start_s": self.rates.start_s,
        }
        time = {
            "gpus": self.gpus,
            "hours": self.seconds / 3600,
            "hours_without_limit": self.critical_s / 3600,
            "generations": self.waves,
        }
        return {
            "hardware": hardware,
            "models": models,
            "rules": rules,
            "disk_bytes": self.disk,
            "time": time,
            "totals": totals,
            "lower_bounds": bool(self.unknown),
            "unknown": self.unknown,
            "notes": self.notes,
        }


def estimate(
    plan: Plan, rates: Rates, gpus: int = 8, parameters: dict[str, int] | None = None
) -> Estimate:
    """Estimate a plan's cost. `parameters`: counts for models that the tables do not contain."""
    loads = Loads(plan, parameters)
    every = list(loads)
    rules: dict[str, Rule] = defaultdict(Rule)
    durations: dict[tuple, tuple[bool, list[float]]] = {}
    members: dict[str, int] = defaultdict(int)
    for load in every:
        work, rule = load.work, rules[load.work.kind.rule]
        tokens = {kind: known(value) for kind, value in load.tokens.items()}
        flops = {kind: known(value) for kind, value in load.flops.items()}
        duration_s = seconds(load, rates)
        rule.jobs, rule.gpu = rule.jobs + 1, load.gpu
        for kind, value in tokens.items():
            rule.tokens[kind] += value
        rule.flops += sum(flops.values())
        rule.hours += duration_s / 3600
        rule.longest_s = max(rule.longest_s, duration_s)
        phase = (work.group, work.generation, work.stage)
        durations.setdefault(phase, (load.gpu, []))[1].append(duration_s)
        members[load.model or ""] += work.stage == "train"
    sizes = {kind: known(value) for kind, value in disk(loads, every).items()}
    models = {
        name: (loads.shape(name).parameters, count) for name, count in members.items() if name
    }
    unknown = list(loads.unknown.values())
    notes = [note for note in loads.texts.notes.values() if note]
    total_s, critical_s = (makespan(plan, durations, limit) for limit in (gpus, math.inf))
    waves = _waves(plan, durations, gpus)
    return Estimate(
        rates, gpus, models, dict(rules), sizes, total_s, critical_s, unknown, notes, waves
    )


def seconds(load: Load, rates: Rates) -> float:
    """Return the estimated time of a job, including its start, without unknown amounts."""
    if load.gpu:
        tokens = {kind: known(value) for kind, value in load.tokens.items()}
        flops = {kind: known(value) for kind, value in load.flops.items()}
        return rates.seconds(tokens, flops)
    torch = load.work.stage == "mutate"  # importing torch makes the start longer
    start_s = rates.start_s if torch else published()["processor"]["start_s"]
    return start_s + known(load.processor_s)


def _waves(plan: Plan, durations: dict, gpus: int) -> dict[str, dict]:
    """Return experiment -> hours by stage of its first child generation, alone on J GPUs.

    A stage takes ceil(jobs / J) waves of its longest job.
    """
    waves = {}
    for name, experiment in plan.config["experiments"].items():
        if experiment["generations"] < 2:
            continue
        stages = {"write": 0, "deal": 0, "train": 1, "evaluate": 1, "select": 1}
        hours = {}
        for stage, generation in stages.items():
            on_gpu, seconds = durations.get((name, generation, stage), (False, []))
            if seconds:
                count = math.ceil(len(seconds) / gpus) if on_gpu else 1
                hours[stage] = max(seconds) * count / 3600
        waves[name] = hours | {"all": sum(hours.values())}
    return waves


def known(value: float) -> float:
    """Return the value, or 0 if it is unknown (NaN)."""
    return 0.0 if math.isnan(value) else value
