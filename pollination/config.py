"""From config files to a resolved config: defaults filled in, experiments merged and replicated, every mistake named.

The schema (workflow/schemas/config.schema.yaml) is the one place where a key, its default, unit and meaning stand.
"""

import copy
import csv
import os
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from pollination.checks import (
    check_experiment,
    check_kinds,
    check_semantics,
    check_size,
    check_survey,
    check_synthetic,
    check_text_of,
    check_theory,
    nearest,
)
from pollination.fingerprint.catalogue import read_catalogue
from pollination.printable import line
from pollination.roles import resolve_roles
from pollination.twin import expand
from pollination.yamlfile import is_file, unusable

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"

LOOP = ("corpora", "models", "founders", "experiments")  # the sections that the loop cannot do without
SIDE = ("theory", "fingerprint")  # what can be run alone, and does not run where it is absent or empty
MOST_FILES = 200_000  # in a folder of text
# 4.0 is no count: JSON schema takes it for an integer, and no range of Python does
INTEGERS = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool))


class ConfigError(ValueError):
    """What is wrong with a config, one line a mistake: file, key, value, what is allowed, the fix."""

    def __init__(self, mistakes: list[str], source: str) -> None:
        super().__init__("\n".join(line(f"{source}: {mistake}") for mistake in mistakes))


@cache
def schema() -> dict:
    """The JSON schema of a config."""
    return yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))


def _definition(node: dict) -> dict:
    return schema()["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def with_defaults(value: Any, node: dict) -> Any:
    """`value` with the schema's defaults filled in, recursively; the input is left alone.

    Keys come in the schema's order (free ones sorted), because Snakemake compares settings as text: another order in the file is
    no other setting.
    """
    node = _definition(node)
    if isinstance(value, dict) and node.get("type") in ("object", ["object", "null"]):
        children = node.get("properties", {})
        filled = {
            key: with_defaults(value.get(key, copy.deepcopy(child.get("default"))), child)
            for key, child in children.items()
            if key in value or "default" in child
        }
        named = node.get("additionalProperties")
        if isinstance(named, dict):
            order = value if "$ref" in named else sorted(value)  # the first experiment and its like count; other orders do not
            return filled | {key: with_defaults(value[key], named) for key in order if key not in children}
        return filled | {key: value[key] for key in sorted(value) if key not in children}
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    return value


def merge(base: dict, change: dict) -> dict:
    """`base` with `change` laid over it; mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def _explain(error: ValidationError) -> list[str]:
    """A violation of the schema: one line, or one for each unknown key."""
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        unknown = [name for name in error.instance if name not in allowed]
        prefix = f"{key}." if key else ""
        return [f"{prefix}{name}: unknown key{nearest(name, allowed)}; allowed: {', '.join(allowed)}" for name in unknown]
    return [_said(error, key or "top level")]


def _said(error: ValidationError, key: str) -> str:
    value = error.instance
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        return f"{key}: the key {missing[0]!r} is missing; add it (config/README.md says what it holds)"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{key}: {value!r} is not allowed{nearest(value, allowed)}; allowed: {', '.join(map(str, allowed))}"
    if error.validator == "type":
        allowed = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        hint = "; write 1.0e-3 with a dot and a sign, YAML reads 1e-3 as text" if isinstance(value, str) and "number" in allowed else ""
        return f"{key}: {value!r} is of the wrong type; allowed: {' or '.join(allowed)}{hint}"
    if error.validator == "pattern":
        allowed = error.schema.get("title", "letters, digits, '_' and '-', a letter or digit first")
        return f"{key}: {value!r} is not a usable name; allowed: {allowed}"
    limits = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    if error.validator in limits:
        return f"{key}: {value!r} is out of range; allowed: {limits[error.validator]} {error.validator_value}"
    sizes = {"minLength": "at least {} characters", "maxLength": "at most {} characters", "minItems": "at least {} entries"}
    sizes |= {"maxItems": "at most {} entries", "minProperties": "at least {} entries"}
    if error.validator in sizes:
        return f"{key}: {value!r} is of the wrong size; allowed: {sizes[error.validator].format(error.validator_value)}"
    return f"{key}: {error.message}"


def _placed(value: Any, data: str) -> Any:
    """`value` with '{data}' in its strings replaced by the folder of local data."""
    if isinstance(value, dict):
        return {key: _placed(item, data) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, data) for item in value]
    return value.replace("{data}", data) if isinstance(value, str) else value


def _replicates(name: str, experiment: dict) -> dict[str, dict]:
    single = {key: value for key, value in experiment.items() if key != "seeds"}
    if not experiment["seeds"]:
        return {name: single}
    return {f"{name}.s{seed}": {**single, "seed": seed} for seed in experiment["seeds"]}


def data_files(path: str | list[str]) -> list[str]:
    """Local files that a `files` corpus names: a file, the parquet, jsonl and txt files of a folder, a glob, or a list of these.

    ValueError: more files in a folder than MOST_FILES, of whatever kind.
    """
    found = []
    for pattern in [path] if isinstance(path, str) else path:
        try:
            target = Path(pattern).expanduser()
            if target.is_dir():
                found += _text_files(target)
            else:  # a name with brackets in it is a file's name first, and a pattern only where there is no such file
                found += [str(target)] if target.is_file() else sorted(glob(str(target), recursive=True))
        except (OSError, RuntimeError):  # a name that is too long, a user that is not there: nothing is found
            continue
    return list(dict.fromkeys(found))


def _text_files(folder: Path) -> list[str]:
    found, seen = [], 0
    for place, _, names in os.walk(folder):
        seen += len(names)
        if seen > MOST_FILES:
            raise ValueError(
                f"more than {MOST_FILES:,} files lie in {str(folder)!r}; name the folder of the text alone, or put it into fewer files"
            )
        found += [os.path.join(place, name) for name in names if name.endswith((".parquet", ".jsonl", ".jsonl.gz", ".txt"))]
    return sorted(found)


def check_files(config: dict, source: str = "config") -> None:
    """ConfigError where local data, models or tokenizers that a config names are not there."""
    mistakes = []
    for name, corpus in config["corpora"].items():
        paths = (
            {"path": corpus.get("path")} if not corpus["splits"] else {f"splits.{split}": path for split, path in corpus["splits"].items()}
        )
        for key, path in paths.items() if corpus["kind"] == "files" else ():
            check_data(f"corpora.{name}.{key}", path, "no parquet, jsonl or txt file", mistakes)
    for name, task in config["tasks"].items():
        for split, path in (task["data"] or {}).items():
            if not is_file(path):
                mistakes.append(f"tasks.{name}.data.{split}: {path!r}: there is no such file; correct the path")
    for name, survey in config["fingerprint"].items():
        for entry in [survey.get("path", [])] if isinstance(survey.get("path"), str) else survey.get("path", []):
            check_data(f"fingerprint.{name}.path", entry, "no file", mistakes)
        if survey["collect"]["prompts"] and not is_file(survey["collect"]["prompts"]):
            mistakes.append(
                f"fingerprint.{name}.collect.prompts: {survey['collect']['prompts']!r}: there is no such file; correct the path"
            )
        try:
            read_catalogue(survey["models"], served=survey["kind"] == "collect") if "models" in survey else None
        except (ValueError, OSError, RuntimeError, csv.Error) as error:
            mistakes.append(f"fingerprint.{name}.models: {error}")
    if mistakes:
        raise ConfigError(mistakes, source)


def check_data(key: str, path: str | list[str], nothing: str, mistakes: list[str]) -> None:
    try:
        if not data_files(path):
            mistakes.append(f"{key}: {path!r}: {nothing} is there; correct the path")
    except ValueError as error:
        mistakes.append(f"{key}: {error}")


def resolve(raw: dict, source: str = "config") -> dict:
    """The resolved config: defaults filled in, `experiments` merged and replicated, `defaults` gone.

    Raises ConfigError, one line a mistake, each opening with `source` (the files that the config came from).
    """
    mistakes = unusable(raw)
    if mistakes:
        raise ConfigError(mistakes, source)
    try:
        raw = expand(raw)
    except ValueError as error:
        raise ConfigError(str(error).split("\n"), source) from None
    raw = {key: value for key, value in raw.items() if value is not None or key not in SIDE}
    validator = extend(Draft202012Validator, type_checker=INTEGERS)(schema())
    for error in sorted(validator.iter_errors(raw), key=lambda error: [str(part) for part in error.absolute_path]):
        mistakes += _explain(error)
    if any(raw.get(key) for key in LOOP) or not any(raw.get(key) for key in SIDE):
        mistakes += [
            f"top level: the key {key!r} is missing; add it (config/README.md says what it holds)" for key in LOOP if key not in raw
        ][:1]
    if not mistakes:
        experiment_node = schema()["$defs"]["experiment"]
        config = with_defaults({key: value for key, value in raw.items() if key not in ("defaults", "experiments")}, schema())
        del config["defaults"]
        config |= {key: _placed(config[key], config["data"]) for key in ("corpora", "models", "tasks", "fingerprint")}
        config["evaluate"]["semantics"] = _placed(config["evaluate"]["semantics"], config["data"])
        merged = {name: merge(raw.get("defaults", {}), change) for name, change in raw.get("experiments", {}).items()}
        config["experiments"] = {}
        check_kinds(config, mistakes)
        for name, change in merged.items():
            experiment = with_defaults(change, experiment_node)
            check_experiment(name, experiment, config, mistakes)
            config["experiments"] |= _replicates(name, experiment)
        check_size(config["experiments"], mistakes)
        check_text_of(config, mistakes)
        check_synthetic(config, mistakes)
        check_semantics(config, merged, mistakes)
        config["figures"] = resolve_roles(config, merged, mistakes)
        config["theory"] = config["theory"] if raw.get("theory") else {}
        check_theory(config["theory"], mistakes)
        for name, survey in config["fingerprint"].items():
            check_survey(f"fingerprint.{name}", survey, config, merged, mistakes)
    if mistakes:
        raise ConfigError(mistakes, source)
    return config
