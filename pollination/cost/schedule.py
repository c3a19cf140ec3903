"""How long a run takes with J GPUs: list scheduling of its jobs, generation after generation.

Assumed: a job that is ready starts as soon as a GPU is free, longest waiting first; jobs without a GPU have as many cores as they want; no queue, no
failure. A stage of a generation waits for the whole stage before it, as selection makes it wait; where nothing is selected, members go on
alone in truth, so the real run may be a little shorter.
"""

import heapq
import math
from collections import defaultdict

from pollination.workflow import Plan

Phase = tuple[str, int | None, str]  # group, generation, stage, as status names them


def dependencies(plan: Plan, phases: set[Phase]) -> dict[Phase, set[Phase]]:
    """What each phase waits for."""
    prepared = {phase for phase in phases if phase[0] == "preparation"}
    needs: dict[Phase, set[Phase]] = {phase: set() for phase in phases}
    for group, _, stage in phases:
        if group.startswith(("founders ", "base ")):
            needs[group, None, stage] = prepared if stage == "train" or group.startswith("base ") else {(group, None, "train")}
    for name, spec in plan.config["founders"].items():  # a pool that starts from another pool's founder
        models = spec["model"] if isinstance(spec["model"], list) else [spec["model"]]
        for source in (plan.config["models"][model]["pretrained"] for model in models):
            if isinstance(source, dict):
                needs.setdefault(("founders " + name, None, "train"), set()).add(("founders " + source["founders"], None, "train"))
    for name, experiment in plan.config["experiments"].items():
        for g in range(experiment["generations"]):
            trained = lambda stage, g=g: (f"founders {experiment['founders']}", None, stage) if g == 0 else (name, g, stage)  # noqa: B023, E731
            chosen = {(name, g, "select")} if plan.selects(name) else {trained("train")}
            steps = {"select": {trained("evaluate")}, "write": chosen, "mutate": chosen, "compare": {trained("train")}}
            steps["deal"] = {(experiment["text_of"] or name, g, "write")}
            if g:
                steps["evaluate"] = steps["quality"] = {(name, g, "train")}
                text = {"parent": "write", "own": "write", "pool": "deal"}.get(experiment["text"])
                weights = experiment["weights"]
                before = {(name, g - 1, text)} if text else set()
                if weights == "parent" or weights == "own" and experiment["mutate"]["scale"] > 0:
                    before |= {(name, g - 1, "mutate")}
                elif weights == "own" or not text:
                    before |= {(f"founders {experiment['founders']}", None, "train") if g == 1 else (name, g - 1, "train")}
                steps["train"] = before
            for stage, before in steps.items():
                if (name, g, stage) in needs:
                    needs[name, g, stage] |= before
    return {phase: {one for one in before if one in phases} for phase, before in needs.items() if phase in phases}


def makespan(plan: Plan, durations: dict[Phase, tuple[bool, list[float]]], gpus: float) -> float:
    """Seconds until all is done. `durations`: phase -> (its jobs take a GPU, seconds of each job); NaN counts as nothing."""
    needs = dependencies(plan, set(durations))
    after = defaultdict(set)
    for phase, before in needs.items():
        for one in before:
            after[one].add(phase)
    waiting = {phase: len(before) for phase, before in needs.items()}
    ready = [(0.0, phase) for phase, count in waiting.items() if count == 0]
    ready.sort(key=lambda item: (item[0], str(item[1])))
    queue: list[tuple[float, int, Phase, float]] = []  # jobs that wait for a GPU: since when, number, phase, seconds
    running: list[tuple[float, int, Phase, bool]] = []
    left, free, now, number = {}, gpus, 0.0, 0

    def start(phase: Phase) -> None:
        nonlocal number
        on_gpu, seconds = durations[phase]
        left[phase] = len(seconds)
        for one in sorted((0.0 if math.isnan(s) else s for s in seconds), reverse=True):
            number += 1
            if on_gpu and gpus < math.inf:
                heapq.heappush(queue, (now, number, phase, one))
            else:
                heapq.heappush(running, (now + one, number, phase, False))

    for _, phase in ready:
        start(phase)
    while queue or running:
        while queue and free >= 1:
            _, count, phase, seconds = heapq.heappop(queue)
            heapq.heappush(running, (now + seconds, count, phase, True))
            free -= 1
        now, _, phase, held = heapq.heappop(running)
        free += held
        left[phase] -= 1
        if not left[phase]:
            for one in sorted(after[phase], key=str):
                waiting[one] -= 1
                if not waiting[one]:
                    start(one)
    return now
