"""What a run will cost, from its config alone: models, tokens, FLOPs, hours, disk, and how long it takes with J GPUs (docs/cost.md).

No torch: a preview is asked for on a login node.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from pollination.cost.disk import disk
from pollination.cost.rates import Rates
from pollination.cost.schedule import makespan
from pollination.cost.shapes import published
from pollination.cost.work import Loads
from pollination.workflow import Plan

KINDS = ("train", "write", "score")


@dataclass
class Rule:
    """Jobs of one rule: tokens and FLOPs by kind of work, hours of GPU (or of processor, where it takes none)."""

    jobs: int = 0
    gpu: bool = False
    tokens: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    flops: float = 0.0
    hours: float = 0.0
    longest_s: float = 0.0


@dataclass
class Estimate:
    """A preview. Unknown amounts are left out of sums, and `unknown` says which; `models`: name -> (parameters, members)."""

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
        rules = {name: {"jobs": r.jobs, "gpu": r.gpu, "tokens": r.tokens, "flops": r.flops, "hours": r.hours, "longest_s": r.longest_s} for name, r in self.rules.items()}  # fmt: skip
        models = {name: {"parameters": None if math.isnan(p) else int(p), "members": n} for name, (p, n) in self.models.items()}
        totals = {"models": sum(n for _, n in self.models.values()), "flops": self.flops, "gpu_hours": self.gpu_hours}
        totals |= {f"tokens_{kind}": self.tokens(kind) for kind in KINDS} | {"bytes": sum(self.disk.values())}
        hardware = {
            "name": self.rates.name,
            "published": self.rates.published,
            "sources": list(self.rates.sources),
            "start_s": self.rates.start_s,
        }
        time = {"gpus": self.gpus, "hours": self.seconds / 3600, "hours_without_limit": self.critical_s / 3600, "generations": self.waves}
        return {"hardware": hardware, "models": models, "rules": rules, "disk_bytes": self.disk, "time": time, "totals": totals} | {
            "unknown": self.unknown,
            "notes": self.notes,
        }


def estimate(plan: Plan, rates: Rates, gpus: int = 8, given: dict[str, int] | None = None) -> Estimate:
    """Work out a plan's cost. `given`: parameters of models that the tables do not know."""
    loads = Loads(plan, given)
    every = list(loads)
    rules: dict[str, Rule] = defaultdict(Rule)
    durations: dict[tuple, tuple[bool, list[float]]] = {}
    members: dict[str, int] = defaultdict(int)
    for load in every:
        rule, phase = rules[load.rule], (load.work.group, load.work.generation, load.work.stage)
        tokens = {kind: known(value) for kind, value in load.tokens.items()}
        flops = {kind: known(value) for kind, value in load.flops.items()}
        start_s = rates.start_s if load.work.stage == "mutate" else published()["processor"]["start_s"]  # it imports torch
        seconds = rates.seconds(tokens, flops) if load.gpu else start_s + known(load.processor_s)
        rule.jobs, rule.gpu = rule.jobs + 1, load.gpu
        for kind, value in tokens.items():
            rule.tokens[kind] += value
        rule.flops += sum(flops.values())
        rule.hours += seconds / 3600
        rule.longest_s = max(rule.longest_s, seconds)
        durations.setdefault(phase, (load.gpu, []))[1].append(seconds)
        members[load.model] += load.work.stage == "train"
    sizes = {kind: known(value) for kind, value in disk(loads, every).items()}
    models = {name: (loads.shape(name).parameters, count) for name, count in members.items() if name}
    unknown = list(loads.unknown.values())
    notes = [note for note in loads.texts.notes.values() if note]
    spans = [makespan(plan, durations, some) for some in (gpus, math.inf)]
    return Estimate(rates, gpus, models, dict(rules), sizes, *spans, unknown, notes, _waves(plan, durations, gpus))


def _waves(plan: Plan, durations: dict, gpus: int) -> dict[str, dict]:
    """Experiment -> hours of one generation alone on J GPUs, stage by stage: ceil(jobs / J) waves of the longest job; the first of children."""
    found = {}
    for name, experiment in plan.config["experiments"].items():
        if experiment["generations"] < 2:
            continue
        stages = {"write": 0, "deal": 0, "train": 1, "evaluate": 1, "select": 1}
        hours = {}
        for stage, generation in stages.items():
            on_gpu, seconds = durations.get((name, generation, stage), (False, []))
            if seconds:
                hours[stage] = max(seconds) * (math.ceil(len(seconds) / gpus) if on_gpu else 1) / 3600
        found[name] = hours | {"all": sum(hours.values())}
    return found


def known(value: float) -> float:
    """A number, or 0 for one that is not known."""
    return 0.0 if math.isnan(value) else value
