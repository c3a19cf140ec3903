"""Find the benchmarks whose questions are divided: a half selects parents, a half is reported."""

from pollination.plan.operators import selects, takes_best
from pollination.plan.plan import Plan


def splits(plan: Plan) -> dict[str, str]:
    """Return task -> its split, for the tasks on which an experiment of the run may select.

    A rule that takes the best reads `select.task` alone; any other rule sees all tasks. All
    experiments get the same halves, so that they are compared on the same questions. Tasks on one
    benchmark (other examples, another method) have the halves of its first task. No question of
    another benchmark selects anything, so all its questions are reported.
    """
    tasks = plan.config["tasks"]
    if isinstance(tasks, list):  # the part of a config that a figure gets (plan/excerpts.py)
        return plan.config.get("splits", {})
    experiments = plan.config["experiments"]
    read = {task for name in experiments for task in _read_by_rule(plan, name)}
    found: dict[str, str] = {}
    for same in same_benchmark(tasks):
        divided = [task for task in same if tasks[task]["split"] != "none"]
        if read & set(divided):
            first, *others = divided
            found |= {first: "half"} | dict.fromkeys(others, f"half of {first}")
    return found


def same_benchmark(tasks: dict[str, dict]) -> list[list[str]]:
    """Return the names of tasks, grouped by the questions that they are chosen from."""
    groups: dict[str, list[str]] = {}
    for name, spec in tasks.items():
        origin = [spec.get(key) for key in ("kind", "corpus", "benchmark", "template", "data")]
        groups.setdefault(repr([*origin, spec.get("include_path")]), []).append(name)
    return list(groups.values())


def rule_splits(plan: Plan, name: str) -> dict[str, str]:
    """Return task -> its split, for the tasks that the selection rule of an experiment sees."""
    read = _read_by_rule(plan, name)
    return {task: split for task, split in splits(plan).items() if task in read}


def _read_by_rule(plan: Plan, name: str) -> set[str]:
    experiment = plan.experiment(name)
    select = experiment["select"]
    if not selects(experiment):
        return set()
    return {select["task"]} if takes_best(select["rule"]) else set(plan.config["tasks"])
