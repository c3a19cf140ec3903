"""Resolve a config: fill in defaults, merge and replicate experiments, report every mistake.

The schema (workflow/schemas/config.schema.yaml) alone defines each key, its default, unit and
meaning.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from pollination.core import pin
from pollination.core.datafiles import formats
from pollination.core.sanitize import line
from pollination.core.settings import definition, with_defaults
from pollination.core.userfile import is_own
from pollination.plan.benchmark_folder import built_in_template, read_benchmark
from pollination.plan.benchmark_metrics import metric_mistakes
from pollination.plan.config import libraries
from pollination.plan.config.catalogue import read_catalogue
from pollination.plan.config.checks import (
    check_kept,
    check_kinds,
    check_precisions,
    check_semantics,
    check_splits,
    check_survey,
    check_synthetic,
    check_theory,
)
from pollination.plan.config.engine import check_engines
from pollination.plan.config.experiment_checks import (
    check_experiment,
    check_size,
    check_text_of,
    decide_shards,
)
from pollination.plan.config.libraries import check_architecture
from pollination.plan.config.loading import is_absent_folder, is_file, read_yaml, unusable
from pollination.plan.config.overlay import expand
from pollination.plan.config.paths import SURVEY_ENDINGS, TABLE_ENDINGS, Found, find_data, unfit
from pollination.plan.config.places import Places
from pollination.plan.config.roles import resolve_roles
from pollination.plan.config.schema import INTEGERS, _explain, merge, schema
from pollination.plan.config.sweep import (
    Sweeps,
    blamed,
    equal_variants,
    expand_sweeps,
    summary,
    variants_of,
    written,
)
from pollination.plan.config.userfiles import check_braces, check_file
from pollination.plan.config.values import listed, periodic
from pollination.plan.config.weights import positions, read_config, tensors
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.datasets import remedy
from pollination.plan.operators import ranks_by

REPLICATE = re.compile(r"(?<=\w)\.s\d+(?=[.:\s,])")  # in the name of an experiment or pool
LOOP = ("corpora", "models", "founders", "experiments")  # sections that the loop needs
SIDE = ("theory", "fingerprint")  # sections that run alone, and only if they are not empty


class ConfigError(ValueError):
    """The mistakes of a config, one line each: place, key, value, what is allowed, the fix.

    A mistake that replicates share is named once.
    """

    def __init__(self, mistakes: list[str], source: str | Places) -> None:
        def place(mistake: str) -> str:
            return source.of(mistake) if isinstance(source, Places) else source

        shown: dict[str, str] = {}
        for one in mistakes:
            same = REPLICATE.sub("", one)
            shown[same] = min(one, shown.get(same, one), key=len)
        super().__init__("\n".join(line(f"{place(one)}: {one}") for one in shown.values()))


def _placed(value: Any, data: str) -> Any:
    """Return `value` with '{data}' in its strings replaced by the folder of local data."""
    if isinstance(value, dict):
        return {key: _placed(item, data) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, data) for item in value]
    return value.replace("{data}", data) if isinstance(value, str) else value


def _replicates(name: str, experiment: dict) -> dict[str, dict]:
    """Return the experiments of one entry, by name: itself or `seeds`, then `replicates`."""
    repeats = ("seeds", "replicates", "sweep")
    single = {key: item for key, item in experiment.items() if key not in repeats}
    runs = {f"{name}.s{seed}": single | {"seed": seed} for seed in experiment["seeds"]}
    independent = {
        f"{name}.s{seed}": single | {"seed": seed, "founders": f"{single.get('founders')}.s{seed}"}
        for seed in experiment["replicates"]
    }
    return (runs or {name: single}) | independent


def _own_pools(config: dict) -> None:
    """Add the founder pools of `replicates`, and measure what their originals are measured on."""
    pools = config["founders"]
    for experiment in config["experiments"].values():
        original = experiment.get("founders", "").split(".s")[0]
        if original in pools:
            pools.setdefault(experiment["founders"], pools[original])
    for entry in config["evaluate"]["perplexity"]:
        if entry["founders"] is not None:
            entry["founders"] = [
                pool for name in entry["founders"] for pool in pools if pool.split(".s")[0] == name
            ]


def check_files(config: dict, source: str | Places = "config") -> None:
    """Raise ConfigError if local data, benchmarks or functions that a config names are missing."""
    mistakes = [said for path in config["reuse"] if (said := _unusable(path, config["run"]))]
    for name, corpus in config["corpora"].items():
        kind = CORPUS_KINDS[corpus["kind"]]
        paths = (
            {"path": corpus.get("path")}
            if not corpus["splits"]
            else {f"splits.{split}": path for split, path in corpus["splits"].items()}
        )
        for key, path in paths.items() if kind.local else ():
            check_data(f"corpora.{name}.{key}", path, kind.endings, config["data"], mistakes)
    for name, model in config["models"].items():
        for key, place in {
            "pretrained": model["pretrained"],
            "tokenizer.source": model["tokenizer"].get("source"),
        }.items():
            if isinstance(place, str) and is_absent_folder(place):
                mistakes.append(
                    f"models.{name}.{key}: {place!r}: there is no such folder. "
                    + remedy(place, config["data"])
                )
        check_model_files(name, model, mistakes)
    for name, task in config["tasks"].items():
        for split, path in (task["data"] or {}).items():
            if not is_file(path):
                mistakes.append(
                    f"tasks.{name}.data.{split}: {path!r}: there is no such file. "
                    + remedy(path, config["data"])
                )
            elif said := unfit(Found([path]), TABLE_ENDINGS):
                mistakes.append(f"tasks.{name}.data.{split}: {said}")
        if task["kind"] == "lm_eval" and task["include_path"]:
            check_braces(f"tasks.{name}.include_path", task["include_path"], mistakes)
            try:
                read_benchmark(task)
            except ValueError as error:
                mistakes.append(f"tasks.{name}.include_path: {error}")
                continue
        if task["kind"] == "lm_eval":
            chooses = next(
                (one for one, e in config["experiments"].items() if ranks_by(e, name)),
                None,
            )
            key = f"tasks.{name}"
            if chooses is not None:
                by = config["experiments"][chooses]["select"]["task"] == name
                key = f"experiments.{chooses}.select.{'task' if by else 'rule'}"
            try:
                found = metric_mistakes(task, chooses is not None)
            except ValueError:  # a template of lm-eval that staging refuses by name
                continue
            mistakes += [f"{key}: {task['template']!r}: {said}" for said in found]
    for name, survey in config["fingerprint"].items():
        for entry in (
            [survey.get("path", [])]
            if isinstance(survey.get("path"), str)
            else survey.get("path", [])
        ):
            ends = SURVEY_ENDINGS[survey["kind"]]
            check_data(f"fingerprint.{name}.path", entry, ends, config["data"], mistakes)
        prompts = survey["collect"]["prompts"]
        if prompts and not is_file(prompts):
            mistakes.append(
                f"fingerprint.{name}.collect.prompts: {prompts!r}: there is no such file; correct "
                "the path"
            )
        elif prompts and (said := unfit(Found([prompts]), TABLE_ENDINGS)):
            mistakes.append(f"fingerprint.{name}.collect.prompts: {said}")
        try:
            read_catalogue(
                survey["models"], served=survey["kind"] == "collect"
            ) if "models" in survey else None
        except (ValueError, OSError, RuntimeError) as error:
            mistakes.append(f"fingerprint.{name}.models: {error}")
    for text, key in own_functions(config).items():
        check_file(key, text, mistakes)
    if mistakes:
        raise ConfigError(blamed(mistakes, written(config)), source)


def check_templates(config: dict, source: str | Places = "config") -> None:
    """Raise ConfigError if lm-eval has no template of the name. This takes about a second."""
    mistakes: list[str] = []
    named = {
        f"tasks.{name}.template": template
        for name, task in config["tasks"].items()
        if task["kind"] == "lm_eval" and (template := built_in_template(task))
    }
    libraries.check_templates(named, mistakes)
    if mistakes:
        raise ConfigError(mistakes, source)


def check_model_files(name: str, model: dict, mistakes: list[str]) -> None:
    """Check a new model's architecture, and what the files of a local pretrained model say."""
    source = model["pretrained"]
    if source is None:
        check_architecture(f"models.{name}.architecture", model["architecture"], mistakes)
    elif isinstance(source, str) and (folder := Path(source).expanduser()).is_dir():
        key = f"models.{name}.pretrained"
        try:
            content = read_config(folder)
            kind, limit = content.get("model_type"), positions(content)
            tensors(folder)
        except ValueError as error:
            mistakes.append(f"{key}: {source!r}: {error}")
            return
        said: list[str] = []
        check_architecture(f"{source!r}: {folder / 'config.json'}: model_type", str(kind), said)
        mistakes += [f"{key}: {mistake}" for mistake in said]
        if limit is not None and model["context_tokens"] > limit:
            mistakes.append(
                f"models.{name}.context_tokens: {model['context_tokens']} exceeds the positions of "
                f"{source!r}; allowed: at most {limit}. Lower it"
            )


def own_functions(config: dict) -> dict[str, str]:
    """Return {function of the user: first key that names it}."""
    keys = [(f"evaluate.measures.{n}", f) for n, f in config["evaluate"]["measures"].items()]
    keys += [
        (f"experiments.{name}.select.rule", experiment["select"]["rule"])
        for name, experiment in config["experiments"].items()
    ]
    return {text: key for key, text in reversed(keys) if is_own(text)}


def check_data(
    key: str, path: str | list[str], endings: tuple[str, ...], folder: str, mistakes: list[str]
) -> None:
    """Check that local text is there; `folder` is the data folder of the config."""
    for entry in listed(path):
        try:
            found = find_data(entry, endings)
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
            continue
        if not found.files:
            is_folder = os.path.isdir(os.path.expanduser(entry))
            said = f"no {formats.listed(endings)} file" if is_folder else "no such file"
            passed_over = f" ({found.summary()})" if found.passed_over else ""
            mistakes.append(
                f"{key}: {entry!r}: there is {said}{passed_over}. {remedy(entry, folder)}"
            )
        elif mistake := unfit(found, endings):
            mistakes.append(f"{key}: {mistake}")


def _unusable(folder: str, run: str) -> str | None:
    """Return why a run of the key `reuse` cannot be one; None if it can."""
    path = Path(folder)
    if not path.is_dir():
        return f"reuse: {folder!r}: there is no such folder; correct or delete the entry"
    if path.resolve() == Path("results", run).resolve():
        return f"reuse: {folder!r} is the folder of this run; delete the entry"
    saved = pin.latest_config(path)
    written = str(path / "config.yaml")
    config = saved[1] if saved else is_file(written) and read_yaml(written)
    name = config.get("run") if isinstance(config, dict) else None
    if name is None:
        return f"reuse: {folder!r} is not the folder of a run; give a path like results/other"
    if name != path.resolve().name:
        return f"reuse: {folder!r} is the folder of run {name!r}; give it this name back"
    return None


def checked(raw: dict, places: Places) -> dict:
    """Return the resolved config of `snakemake`; exit with one line per mistake.

    `raw`: what Snakemake merged of the files in `places`. It keeps the last of two equal keys.
    """
    try:
        for path in places.files:
            read_yaml(path)
        config = resolve(raw, places)
        check_files(config, places)
    except ValueError as mistakes:
        sys.exit(str(mistakes))
    return config


def _violations(value: dict, node: dict) -> list[str]:
    """Return one line for each value that a schema does not allow."""
    validator = extend(Draft202012Validator, type_checker=INTEGERS)(node)
    found = sorted(
        validator.iter_errors(value), key=lambda one: [str(part) for part in one.absolute_path]
    )
    return [mistake for violation in found for mistake in _explain(violation)]


def _is_saved(raw: dict) -> bool:
    """Return whether `raw` was resolved before: then a list of experiments has each role."""
    figures = raw.get("figures")
    return isinstance(figures, dict) and all(
        isinstance(figures.get(role), list) for role in ("population", "line")
    )


def resolve(raw: dict, source: str | Places = "config") -> dict:
    """Return the resolved config: defaults filled in, experiments swept, merged and replicated.

    `defaults` is removed. `sweeps` is added if an experiment has a sweep. Raises ConfigError with
    one line per mistake. Each line begins with the place in `source`, or with `source` itself if
    that is text.
    """
    mistakes = unusable(raw)
    if mistakes:
        raise ConfigError(mistakes, source)
    try:
        raw = expand(raw, source if isinstance(source, Places) else None)
    except ValueError as error:
        raise ConfigError(str(error).split("\n"), source) from None
    raw = {key: value for key, value in raw.items() if value is not None or key not in SIDE}
    mistakes += _violations(raw, schema())
    if mistakes and _is_saved(raw):
        said = (
            "figures: this is the resolved config that a run has saved, and no config file; give "
            "the file that you wrote, or the folder of the run to commands that take one "
            "(reproduce and export: --run FOLDER)"
        )
        raise ConfigError([said], source)
    if any(raw.get(key) for key in LOOP) or not any(raw.get(key) for key in SIDE):
        mistakes += [
            f"top level: the key {key!r} is missing; add it (config/README.md describes it)"
            for key in LOOP
            if key not in raw
        ][:1]
    sweeps: Sweeps = {}
    if not mistakes:
        raw, sweeps = expand_sweeps(raw, mistakes)
        if not mistakes:
            mistakes += _violations(*variants_of(raw, sweeps))
    if not mistakes:
        experiment_node = definition("experiment")
        config = with_defaults(
            {key: value for key, value in raw.items() if key not in ("defaults", "experiments")},
            schema(),
        )
        del config["defaults"]
        config |= {
            key: _placed(config[key], config["data"])
            for key in ("corpora", "models", "tasks", "fingerprint")
        }
        config["evaluate"]["semantics"] = _placed(config["evaluate"]["semantics"], config["data"])
        merged = {
            name: merge(raw.get("defaults", {}), change)
            for name, change in raw.get("experiments", {}).items()
        }
        config["experiments"] = {}
        check_kinds(config, mistakes)
        for section in (*LOOP, "tasks", *SIDE):
            mistakes += periodic(section, merged if section == "experiments" else config[section])
        for name, change in merged.items():
            experiment = with_defaults(change, experiment_node)
            decide_shards(name, experiment, config, mistakes)
            check_experiment(name, experiment, config, mistakes)
            config["experiments"] |= _replicates(name, experiment)
        if sweeps:
            config["sweeps"] = summary(sweeps, config["experiments"])
            mistakes += equal_variants(config["sweeps"], config["experiments"])
        _own_pools(config)
        if not mistakes:  # a wrong graph cannot be drawn
            check_size(config["experiments"], mistakes)
        check_splits(config["tasks"], mistakes)
        check_text_of(config, mistakes)
        check_precisions(config, mistakes)
        check_engines(config, mistakes)
        check_synthetic(config, mistakes)
        check_kept(config, mistakes)
        check_semantics(config, merged, mistakes)
        config["figures"] = resolve_roles(config, merged, mistakes)
        config["theory"] = config["theory"] if raw.get("theory") else {}
        check_theory(config["theory"], mistakes)
        for name, survey in config["fingerprint"].items():
            check_survey(f"fingerprint.{name}", survey, config, merged, mistakes)
    if mistakes:
        raise ConfigError(blamed(mistakes, sweeps), source)
    return config
