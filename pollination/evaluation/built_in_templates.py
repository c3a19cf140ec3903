"""Find the leaf tasks of lm-eval's built-in templates: single tasks, groups and tags."""

import difflib
from pathlib import Path

from pollination.evaluation.lm_eval_calls import quiet
from pollination.evaluation.template_source import task_root
from pollination.plan.benchmark_tasks import aggregate_refusal
from pollination.plan.benchmark_yaml import definition_line


def built_in_leaves(template: str) -> tuple[list[tuple[str, Path, dict]], list[dict]]:
    """Return the leaf tasks of a built-in template, and how lm-eval aggregates a group's.

    A leaf is (name, YAML file, overriding keys). ValueError: the name is unknown, or its group is
    refused.

    An index of all 14,000 names takes 9 s. So the index covers the folder that defines the name,
    and all folders only if that fails.
    """
    from lm_eval.tasks._index import TaskIndex

    root = task_root()
    line = definition_line(template)
    files = sorted(root.glob("**/*.yaml"))
    file = next((path for path in files if line.search(path.read_text(errors="replace"))), None)
    try:
        return _expanded(template, TaskIndex.build([file.parent]) if file else {})
    except KeyError:
        with quiet():
            index = TaskIndex.build([root])
    if template not in index:
        near = difflib.get_close_matches(template, index, n=3) or [
            "mmlu",
            "winogrande",
            "mathqa",
            "social_iqa",
        ]
        raise ValueError(
            f"unknown task template {template!r}; nearest built-in names of lm-eval: "
            f"{', '.join(near)}"
        )
    return _expanded(template, index)


def _expanded(template: str, index: dict) -> tuple[list[tuple[str, Path, dict]], list[dict]]:
    group = index[template].cfg or {}
    if reason := aggregate_refusal(group):
        raise ValueError(f"task template {template!r}: {reason}")
    aggregates = group.get("aggregate_metric_list") or []
    leaves: list[tuple[str, Path, dict]] = []
    for leaf in _expand(template, index, {}):
        if leaf not in leaves:
            leaves.append(leaf)
    names = [name for name, *_ in leaves]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"task template {template!r} contains task {again!r} with different settings; name its "
            "tasks one by one"
        )
    return leaves, aggregates if isinstance(aggregates, list) else [aggregates]


def _expand(name: str, index: dict, extra: dict) -> list[tuple[str, Path, dict]]:
    from lm_eval.tasks._index import Kind

    entry = index[name]
    if entry.kind is Kind.TAG:
        return [leaf for tag in sorted(entry.tags) for leaf in _expand(tag, index, extra)]
    if entry.kind is not Kind.GROUP:
        return [(name, entry.yaml_path, extra)]
    leaves = []
    for member in entry.cfg["task"]:
        if isinstance(member, str):
            leaves += _expand(member, index, extra)
        elif member.get("task") in index:
            leaves += _expand(
                member["task"], index, extra | {key: member[key] for key in member if key != "task"}
            )
        else:
            raise ValueError(
                f"task template {name!r} is a group that defines its tasks inline, which is not "
                "supported; name its tasks instead"
            )
    return leaves
