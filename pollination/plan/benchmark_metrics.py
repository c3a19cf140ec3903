"""Check that each task of a benchmark has the metric of the config, and that it can select models.

The benchmark is a user's folder of YAML files, or a template of the installed lm-eval.
"""

from pollination.plan import task_metrics
from pollination.plan.benchmark_folder import folder_of
from pollination.plan.benchmark_tasks import Folder, aggregates, expand, read_folder, refusal
from pollination.plan.benchmark_yaml import built_in_tasks, definition_line


def metric_mistakes(task: dict, selects: bool) -> list[str]:
    """Return why a task's metric (`tasks.*.metric`) cannot be used, one line per reason.

    `selects`: whether an experiment selects by it. A built-in template is read only if a metric or
    selection needs it; an unknown one is left to its staging.
    """
    if task.get("method") == "generate":
        return []
    folder = read_folder(folder_of(task)) if task.get("include_path") else None
    if folder is None and (selects or task.get("metric")):
        folder = _built_in_folder(task["template"])
    if folder is None:
        return []
    asked, mistakes, keys = task.get("metric"), [], []
    for definition, name, overrides in expand(folder, task["template"], {}, {}, ()):
        config = definition.config | overrides
        if "include" in config:  # a file of lm-eval, which is not installed here
            return []
        if reason := refusal(config):
            mistakes.append(f"task {name!r}: {reason}")
            continue
        try:
            metric = task_metrics.chosen(config, asked)
        except ValueError as error:
            mistakes.append(f"task {name!r}: {error}")
            continue
        keys.append(metric.name)
        if selects and (reason := task_metrics.unfit(metric)):
            others = task_metrics.rankable(config)
            remedy = f"set metric: {' or '.join(others)}, or " if others else ""
            mistakes.append(
                f"task {name!r}: selection cannot choose by its metric {metric.name!r}: {reason}; "
                f"{remedy}select on another task"
            )
    for entry in aggregates(folder, task["template"]):
        weighted = entry.get("weight_by_size", True)
        if selects and not mistakes and {*keys} == {entry.get("metric")} and not weighted:
            mistakes.append(
                f"group {task['template']!r}: selection cannot choose by its metric {keys[0]!r}: "
                "it weights each task equally, not each question (weight_by_size: false); select "
                "on one of its tasks"
            )
    return mistakes[:1]


def _built_in_folder(template: str) -> Folder | None:
    """Return the folder of lm-eval that defines a template; None if there is none."""
    root = built_in_tasks()
    if root is None:
        return None
    line = definition_line(template)
    likely = [root / template, root / template.split("_")[0], root]
    for place in likely:
        for file in sorted(place.glob("**/*.yaml")):
            if line.search(file.read_text(encoding="utf-8", errors="replace")):
                return read_folder(str(file.parent))
    return None
