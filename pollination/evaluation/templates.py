"""Stage lm-eval's task templates: choose the splits of each leaf task, and read its questions.

A task that cannot be scored as the config asks is refused.
"""

from pathlib import Path

import pyarrow as pa

from pollination.evaluation.built_in_templates import built_in_leaves
from pollination.evaluation.template_data import (
    process_questions,
    read_data,
    read_tables,
    require_columns,
    template_columns,
    without_fingerprint,
)
from pollination.evaluation.template_source import TemplateSource, opened, texts
from pollination.plan import task_metrics
from pollination.plan.benchmark_folder import Leaf, read_benchmark
from pollination.plan.benchmark_tasks import refusal

SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")


def stage_lm_eval(spec: dict) -> dict:
    """Return the parts of a template that `tasks.stage_task` writes.

    These are its leaves, each with the tables of its splits, and how lm-eval aggregates them. The
    template is built-in, or comes from a user's folder.
    """
    if not spec.get("include_path"):
        with opened(None, None) as source:
            found, aggregates = built_in_leaves(spec["template"])
            members = [
                Leaf(name, str(path.relative_to(source.root)), extra, None)
                for name, path, extra in found
            ]
            stage = _stage(spec, source, members)
            return stage | ({"aggregates": aggregates} if aggregates else {})
    benchmark = read_benchmark(spec)
    files = texts(benchmark)
    with opened(benchmark.folder, files) as source:
        stage = _stage(spec, source, benchmark.leaves)
    stage |= {"aggregates": benchmark.aggregates} if benchmark.aggregates else {}
    return stage | {"include_path": benchmark.folder, "files": files}


def _stage(spec: dict, source: TemplateSource, members: list[Leaf]) -> dict:
    template, files = spec["template"], spec.get("data")
    local = {split: read_data(Path(path), f"data.{split}") for split, path in (files or {}).items()}
    leaves, absent = [], []
    for member in members:
        with source.blamed(member.yaml):
            config = source.load(member.yaml, member.name) | member.overrides
            if reason := _refusal(config, spec):
                raise ValueError(f"task template {member.name!r}: {reason}")
            available = files or member.data
            plan = _plan_splits(
                template, config, set(available) if available else None, spec.get("num_fewshot")
            )
            tables = read_tables(config, plan, member, local, group=len(members) > 1)
            if len(tables[plan["evaluated"]]) == 0:
                absent.append(config.get("dataset_name") or member.name)
                continue
            own = source.folder is not None
            leaves.append(_staged_leaf(config, plan, member, tables, own))
    if not leaves:
        raise ValueError(
            f"task template {template!r}: column 'subject' of its data has none of the allowed "
            f"values {', '.join(absent[:5])}, ...; correct the column"
        )
    return {
        "template": template,
        "data": _provenance(files, members),
        "leaves": leaves,
        "absent": absent,
    }


def _refusal(config: dict, spec: dict) -> str | None:
    """Return why a task cannot be scored as the config asks; None if it can."""
    if reason := refusal(config):
        return reason
    if spec.get("method") == "generate":
        if task_metrics.output_type(config) != "multiple_choice":
            return (
                "method generate asks multiple-choice questions, but the task has output_type "
                f"{task_metrics.output_type(config)}; remove method"
            )
        if spec.get("metric"):
            return "method generate has the metric accuracy; remove metric, or method"
        return None
    try:
        task_metrics.chosen(config, spec.get("metric"))
    except ValueError as error:
        return str(error)
    return None


def _provenance(files: dict | None, members: list[Leaf]) -> dict | str:
    """Return the source of the questions for task.json: local files by split, or "hub"."""
    if files:
        return {split: str(path) for split, path in files.items()}
    paths: dict[str, list[str]] = {}
    for member in members:
        for split, names in (member.data or {}).items():
            paths[split] = sorted({*paths.get(split, []), *names})
    return paths or "hub"


def _staged_leaf(
    config: dict, plan: dict, member: Leaf, tables: dict[str, pa.Table], own: bool
) -> dict:
    what = f"template {member.name!r}"
    for split, table in tables.items():
        if not own:
            require_columns(table, template_columns(config), what, f"data.{split}")
        examples = split != plan["evaluated"]
        table = process_questions(config, table, what, split, examples=examples)
        tables[split] = without_fingerprint(table) if own else table
    return {
        "name": member.name,
        "yaml": member.yaml,
        "config": member.overrides | plan["config"],
        "tables": tables,
        "splits": {key: plan[key] for key in ("evaluated", "examples")},
        "shots": plan["shots"],
        "output_type": task_metrics.output_type(config),
        "tried": own or bool(config.get("process_results")) or _generates(config),
        "sampler": (config.get("fewshot_config") or {}).get("sampler", "default"),
    }


def _generates(config: dict) -> bool:
    return task_metrics.output_type(config) == "generate_until"


def _plan_splits(
    template: str, config: dict, available: set[str] | None, shots: int | None
) -> dict:
    """Choose the evaluated split and the split of the examples among those available (None: all).

    The choice is lm-eval's. Keys of splits that are not staged become None. The others keep the
    template's values, because lm-eval's sampler depends on them.
    """
    shots = (config.get("num_fewshot") or 0) if shots is None else shots
    fewshot = dict(config.get("fewshot_config") or {})
    named = {key: config.get(key) for key in SPLIT_KEYS} | (
        {"fewshot_split": fewshot["split"]} if "split" in fewshot else {}
    )
    there = {
        key: split
        for key, split in named.items()
        if split and (available is None or split in available)
    }
    evaluated = there.get("test_split") or there.get("validation_split")
    have = ", ".join(sorted(available or ())) or "none"
    if evaluated is None:
        asks = " or ".join(
            repr(named[key]) for key in ("test_split", "validation_split") if named[key]
        )
        raise ValueError(
            f"tasks: template {template!r} is evaluated on split {asks}, but there are "
            f"files only for: {have}. Add a file for that split"
        )
    examples = None
    if shots and not (fewshot.get("samples") and not named["fewshot_split"]):
        examples = next(
            (there[key] for key in ("fewshot_split", *SPLIT_KEYS[:3]) if key in there), None
        )
        if named["fewshot_split"] and "fewshot_split" not in there:
            split = named["fewshot_split"]
            raise ValueError(
                f"tasks: num_fewshot: {shots}: template {template!r} takes its few-shot examples "
                f"from split {split!r}, but there are files only for: {have}. Add a file for that "
                "split, or set num_fewshot: 0"
            )
    staged = {evaluated, examples}
    splits = {key: there.get(key) if there.get(key) in staged else None for key in SPLIT_KEYS}
    if not shots:
        splits |= {"training_split": None, "fewshot_split": None}
    # With equal names, lm-eval leaves the question itself out of its examples.
    if examples == evaluated:
        splits |= {
            "test_split": evaluated,
            "fewshot_split": evaluated,
            "validation_split": None,
            "training_split": None,
        }
    return {
        "evaluated": evaluated,
        "examples": examples,
        "shots": shots,
        "config": splits | {"num_fewshot": shots, "process_docs": None},
    }
