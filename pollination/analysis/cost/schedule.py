"""Duration of a run with J slots (GPUs, or cores without any), by list scheduling of its jobs.

Assumptions: a ready job starts as soon as a slot is free, and the longest waiting job starts first.
On hardware with GPUs, other jobs have unlimited cores. There is no queue and no failure. A stage of
a generation waits for the whole stage before it, as selection requires. Without selection, members
proceed independently, so the real run may be slightly shorter.
"""

import heapq
import math
from collections import defaultdict

from pollination.plan import layout
from pollination.plan.operators import Start, hands_on_weights, text_of, weights_of
from pollination.plan.plan import Plan

Phase = tuple[str, int | None, str]  # group, generation, stage, as status names them


def _of_members(name: str, experiment: dict, generation: int, stage: str) -> Phase:
    """Return the phase of a generation's members; those of generation 0 are founders."""
    if generation == 0:
        return f"founders {experiment['founders']}", None, stage
    return name, generation, stage


def dependencies(plan: Plan, phases: set[Phase]) -> dict[Phase, set[Phase]]:
    """Return the phases that each phase waits for."""
    prepared = {phase for phase in phases if phase[0] == "preparation"}
    needs: dict[Phase, set[Phase]] = {phase: set() for phase in phases}
    for group, _, stage in phases:
        if group.startswith(("founders ", "base ")):
            needs[group, None, stage] = (
                set(prepared)
                if stage == "train" or group.startswith("base ")
                else {(group, None, "train")}
            )
    for name, spec in plan.config["founders"].items():
        models = spec["model"] if isinstance(spec["model"], list) else [spec["model"]]
        for source in (plan.config["models"][model]["pretrained"] for model in models):
            if isinstance(source, dict):  # a pool that starts from another pool's founder
                pool: Phase = ("founders " + source["founders"], None, "train")
                needs.setdefault(("founders " + name, None, "train"), set()).add(pool)
    for name, experiment in plan.config["experiments"].items():
        for g in range(experiment["generations"]):
            trained = _of_members(name, experiment, g, "train")
            chosen: set[Phase] = {(name, g, "select") if layout.selects(plan, name) else trained}
            steps: dict[str, set[Phase]] = {
                "select": {_of_members(name, experiment, g, "evaluate")},
                "write": chosen,
                "mutate": chosen,
                "average": chosen,
                "compare": {trained},
            }
            steps["deal"] = {(experiment["text_of"] or name, g, "write")}
            if g:
                steps["evaluate"] = steps["quality"] = {(name, g, "train")}
                text = text_of(experiment)
                stages = () if text.is_human else ("write", "deal")  # a child may skip deal
                before: set[Phase] = {(name, g - 1, stage) for stage in stages}
                if hands_on_weights(experiment):
                    before |= {(name, g - 1, "mutate"), (name, g - 1, "average")}
                elif weights_of(experiment).start is Start.SLOT or text.is_human:
                    before |= {_of_members(name, experiment, g - 1, "train")}
                steps["train"] = before
            for stage, awaited in steps.items():
                if (name, g, stage) in needs:
                    needs[name, g, stage] |= awaited
    return {phase: before & phases for phase, before in needs.items() if phase in phases}


def makespan(plan: Plan, durations: dict[Phase, tuple[int, list[float]]], slots: float) -> float:
    """Return the seconds until all jobs are done.

    `durations`: phase -> (slots that each of its jobs takes, seconds of each job); NaN counts as 0.
    """
    needs = dependencies(plan, set(durations))
    after = defaultdict(set)
    for phase, before in needs.items():
        for awaited in before:
            after[awaited].add(phase)
    waiting = {phase: len(before) for phase, before in needs.items()}
    ready = [(0.0, phase) for phase, count in waiting.items() if count == 0]
    ready.sort(key=lambda item: (item[0], str(item[1])))
    queue: list[tuple[float, int, Phase, float]] = []  # ready since, number, phase, seconds
    running: list[tuple[float, int, Phase, int]] = []  # ends at, number, phase, its slots
    left, free, now, number = {}, slots, 0.0, 0

    def start(phase: Phase) -> None:
        nonlocal number
        takes, times = durations[phase]
        left[phase] = len(times)
        for seconds in sorted((0.0 if math.isnan(s) else s for s in times), reverse=True):
            number += 1
            if takes and slots < math.inf:
                heapq.heappush(queue, (now, number, phase, seconds))
            else:
                heapq.heappush(running, (now + seconds, number, phase, 0))

    for _, phase in ready:
        start(phase)
    while queue or running:
        while queue and free >= (takes := durations[queue[0][2]][0]):
            _, count, phase, seconds = heapq.heappop(queue)
            heapq.heappush(running, (now + seconds, count, phase, takes))
            free -= takes
        now, _, phase, held = heapq.heappop(running)
        free += held
        left[phase] -= 1
        if not left[phase]:
            for follower in sorted(after[phase], key=str):
                waiting[follower] -= 1
                if not waiting[follower]:
                    start(follower)
    assert not any(waiting.values()), "the phases wait for each other"
    return now
