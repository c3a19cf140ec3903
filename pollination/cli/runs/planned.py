"""Ask Snakemake for the params of the rules, and compare records with them.

The rules alone state the params of their jobs. So the commands load rules/ as `snakemake -n` does,
without running a job and without writing to the run's folder or to `.snakemake`.
"""

import gc
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pollination import ROOT
from pollination.core.settings import UNREAD, differing, whole_params
from pollination.plan.layout import model_of
from pollination.plan.plan import Plan

SHOWN = 4  # keys of one record that a line names
PROFILE = ROOT / "profiles/local/config.yaml"
KEYS = {  # param of a rule, or key in it -> its config key; absent: derived from several keys
    "config": "",
    "training": "{entry}",
    "generate": "{entry}.generate",
    "mutate": "{entry}.mutate",
    "select": "{entry}.select",
    "population": "{entry}.population",
    "segment": "founders.{pool}",
    "segment.tokens": "founders.{pool}.train.tokens",
    "corpus": "corpora.{corpus}",
    "max_overlap": "corpora.{corpus}.max_overlap",
    "model": "models.{model}",
    "context_tokens": "models.{model}.context_tokens",
    "separator": "models.{model}.separator",
    "task": "tasks.{task}",
    "tasks": "tasks",
    "evaluate": "evaluate",
    "precision": "evaluate.precision",
    "entry": "evaluate.perplexity",
    "disagreement": "evaluate.disagreement",
    "batch_size": "evaluate.batch_size",
    "texts": "evaluate.samples.texts",
    "encoder": "evaluate.semantics.encoder",
    "revision": "evaluate.semantics.revision",
    "max_tokens": "evaluate.semantics.max_tokens",
    "collect": "fingerprint.{survey}.collect",
    "kind": "fingerprint.{survey}.kind",
    "settings": "fingerprint.{survey}.count",
    "compare": "fingerprint.{survey}.compare",
    "mismatch": "fingerprint.{survey}.mismatch",
    "permutations": "fingerprint.{survey}.compare.permutations",
    "theory": "theory",
    "keep": "keep.checkpoints",
    "keep_text": "keep.text",
    "seed": "evaluation_seed",
    "data_seed": "data_seed",
    "cpu_threads": "cpu_threads",
}
NOWHERE = object()
OMITTED = {"precision": "auto"}  # params that rules leave out at this value (plan/measuring.py)
SEEDS = {  # rules whose `seed` is another one
    **dict.fromkeys(("mutate_parent", "generate_shard", "deal_pool", "mix_text"), "{entry}.seed"),
    **dict.fromkeys(
        ("build_corpus", "build_microworld", "prepare_model", "stage_model"), "data_seed"
    ),
}


@dataclass(frozen=True)
class Params:
    """The rule and the params that the plan has for one record."""

    rule: str
    wildcards: dict[str, str]
    params: dict[str, Any]


class Planned:
    """The rules of a plan. `of` gives the params of a record's job."""

    def __init__(self, plan: Plan, workflow: Any) -> None:
        self.plan, self.workflow = plan, workflow

    def of(self, path: str, rule: str = "") -> Params | None:
        """Return the params of the job that writes `path`, in the form of its record.

        `path` begins with results/{run}/. `rule`: the rule to try first. None: no rule writes it.
        ValueError: a file that the params depend on, such as a user's own function, is unreadable.
        """
        from snakemake.exceptions import WorkflowError
        from snakemake.iocontainers import InputFiles, OutputFiles

        for one in sorted(self.workflow.rules, key=lambda one: one.name != rule):
            if one.is_producer(path):
                wildcards = one.get_wildcards(path)
                try:
                    params, _ = one.expand_params(wildcards, InputFiles(), OutputFiles(), None)
                except (WorkflowError, OSError) as error:
                    raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
                return Params(one.name, wildcards, as_recorded(dict(params.items())))
        return None


def as_recorded(params: dict[str, Any]) -> dict[str, Any]:
    """Return params as a record holds them."""
    return json.loads(json.dumps(params, default=str))


@contextmanager
def planned(plan: Plan) -> Iterator[Planned]:
    """Load the rules for a plan, whose folder may lie anywhere; take about two seconds."""
    here = Plan(plan.config, f"results/{plan.config['run']}")  # as rules write it
    with loaded(here) as workflow:
        yield Planned(here, workflow)


@contextmanager
def loaded(plan: Plan, deep: bool = False) -> Iterator[Any]:
    """Yield Snakemake's workflow of a plan, silent and without any file of its own.

    The rules raise Python's recursion limit, which lets damaged JSON crash the process. So it stays
    raised only with `deep`, to build the DAG. In the mode of a remote job, Snakemake keeps its
    notes and its cache in a temporary folder.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import (
        OutputSettings,
        ResourceSettings,
        StorageSettings,
        WorkflowSettings,
    )
    from snakemake_interface_executor_plugins.settings import ExecMode

    quiet = OutputSettings(
        dryrun=True,
        quiet={Quietness.ALL},
        log_level_override=logging.CRITICAL,
        enable_file_logging=False,
        skip_plugin_handlers=True,
    )
    with SnakemakeApi(quiet) as api:
        workflow_api = api.workflow(
            ResourceSettings(cores=1),
            storage_settings=StorageSettings(shared_fs_usage=frozenset()),
            workflow_settings=WorkflowSettings(exec_mode=ExecMode.REMOTE),
            snakefile=ROOT / "Snakefile",
        )
        workflow = workflow_api._get_workflow()
        workflow_api._workflow_store = workflow
        workflow.globals.update(pinned=plan.config)
        limit, threshold = sys.getrecursionlimit(), gc.get_threshold()
        try:
            workflow.include(workflow_api.snakefile, overwrite_default_target=True)
            workflow.check()
            if not deep:
                sys.setrecursionlimit(limit)
            yield workflow
        finally:
            sys.setrecursionlimit(limit)
            gc.set_threshold(*threshold)


def build_dag(workflow: Any) -> Any:
    """Return Snakemake's DAG of all files of the run, with the reason of each job that would run.

    The rerun triggers are those of profiles/local. Snakemake's notes on finished jobs are read from
    `.snakemake` of the current folder.
    """
    from humanfriendly import parse_size
    from snakemake.settings.enums import RerunTrigger
    from snakemake.settings.types import DAGSettings, ExecutionSettings

    profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    workflow.dag_settings = DAGSettings(
        rerun_triggers={RerunTrigger.parse_choice(name) for name in profile["rerun-triggers"]},
        max_checksum_file_size=parse_size(profile["max-checksum-file-size"]),
        force_incomplete=profile["rerun-incomplete"],
    )
    workflow.execution_settings = ExecutionSettings()
    notes = workflow.snakemake_tmp_dir / "persistence"
    notes.mkdir()
    for name in ("metadata", "incomplete"):
        if (there := Path(".snakemake", name)).is_dir():
            (notes / name).symlink_to(there.absolute())
    workflow._prepare_dag(forceall=False, ignore_incomplete=False, lock_warn_only=True, nolock=True)
    workflow._build_dag()
    return workflow.dag


def other_settings(record: dict, planned: Params) -> dict[str, list]:
    """Return key of a param -> [recorded, planned] where a record differs from the plan.

    Keys that an older record lacks have the value that they stand for (core/settings.py). A param
    that the rule no longer has, or that no job reads, cannot differ.
    """
    there, here = whole_params(record.get("params", {})), whole_params(planned.params)
    names = [*here, *(name for name in OMITTED if name in there and name not in here)]
    before, after = ({n: one.get(n, OMITTED.get(n)) for n in names} for one in (there, here))
    found = differing(before, after)
    return {key: values for key, values in found.items() if key not in UNREAD}


def config_key(plan: Plan, planned: Params, key: str) -> str:
    """Return the config key of a key of a rule's params; "" if the plan derives the param."""
    name, _, rest = key.partition(".")
    known = dict(planned.wildcards)
    place = known.get("place") or f"founders/{known.get('pool', '')}"
    first, _, second = place.partition("/")
    experiment = known.get("experiment") or (first if first not in ("founders", "base") else "")
    known |= {"entry": f"experiments.{experiment}" if experiment else f"founders.{second}"}
    if "model" not in known and "member" in known:
        at = f"{experiment}/gen{known['gen']}" if "gen" in known else place
        known["model"] = model_of(plan, at, int(known["member"]))
    template = KEYS.get(name)
    if name == "seed":
        template = SEEDS.get(planned.rule, template)
    elif key in KEYS:
        template, rest = KEYS[key], ""
    if template is None:
        return ""
    path = ".".join(part for part in (template.format(**known), rest) if part)
    return path if _at(plan.config, path) is not NOWHERE else ""


def _at(node: Any, path: str) -> Any:
    """Return the value at a dotted path, None for an absent key of a mapping, or NOWHERE."""
    if not isinstance(node, dict):
        return NOWHERE
    if path in node or "." not in path:
        return node.get(path)
    inside = [key for key in node if path.startswith(f"{key}.")]  # names may contain dots
    values = [_at(node[key], path[len(key) + 1 :]) for key in inside]
    return next((value for value in values if value is not NOWHERE), NOWHERE)


def phrases(plan: Plan, planned: Params, settings: dict[str, list], form: str) -> list[str]:
    """Return each setting that differs as text: `form` of its config key, before and after.

    A param that the plan derives from several keys, such as the models of a table, is only named.
    """
    texts = []
    for key, (before, after) in settings.items():
        if key == "recipe":
            texts.append(recipe(before, after))
        elif (name := config_key(plan, planned, key)) and (
            after is not None or _at(plan.config, name) is None
        ):
            texts += [
                form.format(path, short(a), short(b)) for path, a, b in inside(name, before, after)
            ]
        else:
            texts.append(f"its param {key} changed with the plan")
    return texts


def inside(key: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, before, after) where a setting differs, inside its lists of equal length too."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (a, b) in enumerate(zip(before, after, strict=True)):
            for path, (one, other) in differing(a, b, f"{key}.{place}").items():
                yield from inside(path, one, other)
    else:
        yield key, before, after


def said(plan: Plan, planned: Params, settings: dict[str, list]) -> str:
    """Return the settings that differ as one line: `key: recorded A, the config says B`."""
    texts = phrases(plan, planned, settings, "{}: recorded {}, the config says {}")
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def recipe(recorded: int | None, now: int) -> str:
    """Return what a record with another recipe means: the number of a rule's method."""
    if recorded is not None and recorded > now:
        return f"made by a later version of the rule (recipe {recorded}; this version has {now})"
    return f"made by an earlier recipe ({recorded or 'none'}, now {now}); snakemake recomputes it"


def short(value: Any) -> str:
    """Return a value of a setting in at most 60 characters."""
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
