"""Cost of a run, from its config alone: tokens, FLOPs, disk, hours and energy (docs/cost.md).

Nothing here imports torch, because the forecast runs on a login node.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace

from pollination.analysis.cost.disk import disk
from pollination.analysis.cost.rates import Rates
from pollination.analysis.cost.schedule import makespan
from pollination.analysis.cost.work import Load, Loads
from pollination.plan.plan import Plan

KINDS = ("train", "write", "score")


@dataclass
class Rule:
    """Jobs of one rule.

    `gpu`: whether they run models, which take a GPU or, with rates of a CPU, its cores. `hours`:
    their duration; `core_hours`: the same times the cores that they take.
    """

    jobs: int = 0
    gpu: bool = False
    tokens: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    flops: float = 0.0
    hours: float = 0.0
    core_hours: float = 0.0
    longest_s: float = 0.0


@dataclass
class Estimate:
    """A forecast; sums leave out unknown amounts, which `unknown` lists.

    `slots`: models that run at once, one per GPU or per `cpu_threads` cores. `models`: name ->
    (parameters, members). `energy_kwh`: of GPUs, cores and their cooling, NaN if it is unknown;
    `co2_kg`: emissions of a grid with `energy.grid_g_per_kwh`.
    """

    rates: Rates
    slots: int
    models: dict[str, tuple[float, int]]
    rules: dict[str, Rule]
    disk: dict[str, float]
    seconds: float
    critical_s: float
    unknown: list[str]
    notes: list[str]
    waves: dict[str, dict]
    energy_kwh: float = math.nan
    co2_kg: float = math.nan

    @property
    def gpu_hours(self) -> float:
        if self.rates.device == "cpu":
            return 0.0
        return sum(rule.hours for rule in self.rules.values() if rule.gpu)

    @property
    def core_hours(self) -> float:
        return sum(rule.core_hours for rule in self.rules.values())

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
                "core_hours": r.core_hours,
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
            "core_hours": self.core_hours,
            "energy_kwh": _or_none(self.energy_kwh),
            "co2_kg": _or_none(self.co2_kg),
        }
        totals |= {f"tokens_{kind}": self.tokens(kind) for kind in KINDS}
        totals |= {"bytes": sum(self.disk.values())}
        hardware = {
            "name": self.rates.name,
            "device": self.rates.device,
            "watts": _or_none(self.rates.watts),
            "published": self.rates.published,
            "sources": list(self.rates.sources),
            "start_s": self.rates.start_s,
        }
        time = {
            "gpus": 0 if self.rates.device == "cpu" else self.slots,
            "models_at_once": self.slots,
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
    plan: Plan, rates: Rates, slots: int = 8, parameters: dict[str, int] | None = None
) -> Estimate:
    """Estimate a plan's cost. `parameters`: counts for models that the tables do not contain.

    ValueError: a training takes more GPUs than there are slots.
    """
    loads = Loads(plan, parameters, rates.processor)
    every = list(loads)
    rules: dict[str, Rule] = defaultdict(Rule)
    durations: dict[tuple, tuple[int, list[float]]] = {}
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
        gpus = load.gpus if rates.device != "cpu" else 1
        if gpus > slots:
            raise ValueError(
                f"--gpus: {slots}, but the trainings of {work.group} take {gpus} (train.gpus); "
                f"allowed: {gpus} or more"
            )
        rule.hours += gpus * duration_s / 3600
        threads = gpus * plan.config["cpu_threads"] if load.gpu else load.threads
        rule.core_hours += threads * duration_s / 3600
        rule.longest_s = max(rule.longest_s, duration_s)
        phase = (work.group, work.generation, work.stage)
        # on a CPU, jobs without a model take its cores too
        takes = gpus if load.gpu or rates.device == "cpu" else 0
        durations.setdefault(phase, (takes, []))[1].append(duration_s)
        members[load.model or ""] += work.stage == "train"
    sizes = {kind: known(value) for kind, value in disk(loads, every).items()}
    models = {
        name: (loads.shape(name).parameters, count) for name, count in members.items() if name
    }
    notes = [note for note in loads.texts.notes.values() if note]
    found = Estimate(
        rates,
        slots,
        models,
        dict(rules),
        sizes,
        makespan(plan, durations, slots),
        makespan(plan, durations, math.inf),
        list(loads.unknown.values()),
        notes,
        _waves(plan, durations, slots),
    )
    _add_energy(found, plan)
    return found


def _add_energy(found: Estimate, plan: Plan) -> None:
    """Add the energy and its emissions: hours x power x PUE x grid intensity.

    The formula is that of Lacoste et al. 2019 (arXiv 1910.09700). Boards and cores are counted at
    full power, so the energy is an upper bound.
    """
    settings = plan.config["energy"]
    found.rates = replace(found.rates, watts=settings["gpu_watts"] or found.rates.watts)
    watt_hours = found.core_hours * found.rates.processor["watts_per_core"]
    if found.gpu_hours:
        watt_hours += found.gpu_hours * found.rates.watts
    found.energy_kwh = watt_hours * settings["pue"] / 1000
    found.co2_kg = found.energy_kwh * settings["grid_g_per_kwh"] / 1000
    if math.isnan(found.energy_kwh):
        found.unknown.append(
            f"energy: the power of {found.rates.name!r} is not in "
            "pollination/analysis/cost/published.yaml; set energy.gpu_watts"
        )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def seconds(load: Load, rates: Rates) -> float:
    """Return the estimated time of a job, including its start, without unknown amounts."""
    if load.gpu:
        tokens = {kind: known(value) for kind, value in load.tokens.items()}
        flops = {kind: known(value) for kind, value in load.flops.items()}
        work_s = rates.seconds(tokens, flops) - rates.start_s
        return rates.start_s + work_s / (load.gpus if rates.device != "cpu" else 1)
    torch = load.work.stage in ("mutate", "average")  # importing torch makes the start longer
    start_s = rates.start_s if torch else rates.processor["start_s"]
    return start_s + known(load.processor_s)


def _waves(plan: Plan, durations: dict, slots: int) -> dict[str, dict]:
    """Return experiment -> hours by stage of its first child generation, alone in J slots.

    A stage takes ceil(jobs / J) waves of its longest job.
    """
    waves = {}
    for name, experiment in plan.config["experiments"].items():
        if experiment["generations"] < 2:
            continue
        stages = {"write": 0, "deal": 0, "train": 1, "evaluate": 1, "select": 1}
        hours = {}
        for stage, generation in stages.items():
            takes, seconds = durations.get((name, generation, stage), (0, []))
            if seconds:
                count = math.ceil(len(seconds) / (slots // takes)) if takes else 1
                hours[stage] = max(seconds) * count / 3600
        waves[name] = hours | {"all": sum(hours.values())}
    return waves


def known(value: float) -> float:
    """Return the value, or 0 if it is unknown (NaN)."""
    return 0.0 if math.isnan(value) else value
