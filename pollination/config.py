"""From config files to a resolved config: defaults filled in, experiments merged and replicated, every mistake named.

The schema (workflow/schemas/config.schema.yaml) is the one place where a key, its default, unit and meaning stand.
"""

import copy
import difflib
import math
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from pollination.fingerprint.catalogue import read_catalogue

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
RESERVED = ("founders", "corpora", "models", "tokens", "tasks", "staged", "theory", "fingerprint", "report", "logs", "benchmarks")

LOOP = ("corpora", "models", "founders", "experiments")  # the sections that the loop cannot do without
SIDE = ("theory", "fingerprint")  # what can be run alone, and does not run where it is absent or empty

NEEDS = {  # what each kind of corpus, task and tokenizer cannot do without
    "corpora": {"microworld": [], "files": ["path"], "hub": ["name", "max_tokens"]},
    "tasks": {"microworld": ["corpus", "benchmark"], "lm_eval": ["template"]},
    "tokenizer": {"word": ["corpus"], "bpe": ["corpus"], "pretrained": ["source"]},
}


class ConfigError(ValueError):
    """What is wrong with a config, one line a mistake: file, key, value, what is allowed, the fix."""


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
    if isinstance(value, dict) and node.get("type") == "object":
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


def nearest(word: str, allowed: list[str]) -> str:
    """' (did you mean ...?)' where a name is close enough to be a slip, else nothing."""
    close = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(error: ValidationError) -> str:
    """One line for one violation of the schema."""
    key = ".".join(str(part) for part in error.absolute_path)
    value = error.instance
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        unknown = [name for name in value if name not in allowed]
        prefix = f"{key}." if key else ""
        return "\n".join(f"{prefix}{name}: unknown key{nearest(name, allowed)}; allowed: {', '.join(allowed)}" for name in unknown)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        return f"{key or 'top level'}: the key {missing[0]!r} is missing; add it (config/README.md says what it holds)"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{key}: {value!r} is not allowed{nearest(value, allowed)}; allowed: {', '.join(map(str, allowed))}"
    if error.validator == "type":
        allowed = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        hint = "; write 1.0e-3 with a dot and a sign, YAML reads 1e-3 as text" if isinstance(value, str) and "number" in allowed else ""
        return f"{key}: {value!r} is of the wrong type; allowed: {' or '.join(allowed)}{hint}"
    if error.validator == "pattern":
        return f"{key}: {value!r} is not a usable name; allowed: letters, digits, '_' and '-', a letter or digit first"
    limits = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    if error.validator in limits:
        return f"{key}: {value!r} is out of range; allowed: {limits[error.validator]} {error.validator_value}"
    return f"{key}: {value!r}: {error.message}"


def _reference(mistakes: list[str], key: str, name: Any, table: dict, where: str) -> bool:
    if name in table:
        return True
    listed = ", ".join(sorted(table)) or "(none)"
    mistakes.append(f"{key}: {name!r} is not in {where}{nearest(name, list(table))}; allowed: {listed}")
    return False


def _check_kinds(config: dict, mistakes: list[str]) -> None:
    """Keys that a kind needs or does not read, and names that point nowhere, outside the experiments."""
    corpora = config["corpora"]
    for name, corpus in corpora.items():
        for key in NEEDS["corpora"][corpus["kind"]]:
            if key not in corpus:
                mistakes.append(f"corpora.{name}.{key}: missing; a corpus of kind {corpus['kind']} needs it")
        if sum(corpus["held_out"].values()) >= 1:
            mistakes.append(
                f"corpora.{name}.held_out: the shares add up to {sum(corpus['held_out'].values()):g}; they must leave text to train on (< 1)"
            )
    for name, model in config["models"].items():
        tokenizer = model["tokenizer"]
        if (model["pretrained"] is None) == ("architecture" not in model):
            mistakes.append(
                f"models.{name}: give either 'architecture' (a new model) or 'pretrained' (a folder or hub name), not both or neither"
            )
        if model["pretrained"] is None:
            for key in NEEDS["tokenizer"][tokenizer["kind"]]:
                if key not in tokenizer:
                    mistakes.append(f"models.{name}.tokenizer.{key}: missing; a tokenizer of kind {tokenizer['kind']} needs it")
        if "corpus" in tokenizer:
            _reference(mistakes, f"models.{name}.tokenizer.corpus", tokenizer["corpus"], corpora, "corpora")
    for name, pool in config["founders"].items():
        _reference(mistakes, f"founders.{name}.model", pool["model"], config["models"], "models")
        _reference(mistakes, f"founders.{name}.corpus", pool["corpus"], corpora, "corpora")
        if pool["train"]["tokens"] is None:
            mistakes.append(f"founders.{name}.train.tokens: missing; state how many tokens of human text each founder trains on")
    for name, task in config["tasks"].items():
        for key in NEEDS["tasks"][task["kind"]]:
            if key not in task:
                mistakes.append(f"tasks.{name}.{key}: missing; a task of kind {task['kind']} needs it")
        if "corpus" in task and _reference(mistakes, f"tasks.{name}.corpus", task["corpus"], corpora, "corpora"):
            kind = corpora[task["corpus"]]["kind"]
            if kind != "microworld":
                mistakes.append(f"tasks.{name}.corpus: {task['corpus']!r} is of kind {kind}; a microworld task needs a microworld")
    for index, entry in enumerate(config["evaluate"]["perplexity"]):
        _reference(mistakes, f"evaluate.perplexity.{index}.corpus", entry["corpus"], corpora, "corpora")
    if config["evaluate"]["samples"]["corpus"] is not None:
        _reference(mistakes, "evaluate.samples.corpus", config["evaluate"]["samples"]["corpus"], corpora, "corpora")


def _check_experiment(name: str, experiment: dict, config: dict, mistakes: list[str]) -> None:
    """What the schema cannot say of one merged experiment; `select.k` is filled in."""
    key = f"experiments.{name}"
    if name in RESERVED:
        mistakes.append(f"{key}: {name!r} is a folder of every run; choose another name")
    if "founders" not in experiment:
        mistakes.append(f"{key}.founders: missing; name a pool of founders: {', '.join(config['founders'])}")
    else:
        _reference(mistakes, f"{key}.founders", experiment["founders"], config["founders"], "founders")
    prompts = experiment["generate"]["prompts"]
    if prompts is not None:
        _reference(mistakes, f"{key}.generate.prompts", prompts, config["corpora"], "corpora")
    select, n = experiment["select"], experiment["population"]
    if select["task"] == "none":
        for operator in ("weights", "text"):
            if experiment[operator] == "parent":
                mistakes.append(f"{key}.{operator}: 'parent' needs selection; set {key}.select.task, or {operator}: own")
    else:
        _reference(mistakes, f"{key}.select.task", select["task"], config["tasks"] | {"none": 0}, "tasks")
        select["k"] = math.isqrt(n) if select["k"] is None else select["k"]
        if experiment["text"] == "own":
            mistakes.append(
                f"{key}.text: 'own' with selection has no text to read, only parents write; allowed: parent, pool, or select.task: none"
            )
        if experiment["weights"] == "own" and experiment["mutate"]["scale"] > 0:
            mistakes.append(
                f"{key}.weights: 'own' with selection cannot be mutated, only parents are; set mutate.scale: 0, or weights: parent"
            )
        by_parent = "parent" in (experiment["weights"], experiment["text"])
        if select["k"] > n:
            mistakes.append(f"{key}.select.k: {select['k']} parents cannot be chosen from population {n}; allowed: 1 to {n}")
        elif by_parent and select["k"] ** 2 != n:
            near = max(1, round(math.sqrt(n)))
            mistakes.append(
                f"{key}.population: {n} children cannot be all ordered pairs of k = {select['k']} parents (k*k = {select['k'] ** 2});"
                f" allowed: a square, e.g. {near**2} or {(near + 1) ** 2}"
            )
    if experiment["weights"] == "fresh" and config["models"].get(
        config["founders"].get(experiment.get("founders"), {}).get("model"), {}
    ).get("pretrained"):
        mistakes.append(f"{key}.weights: 'fresh' with a pretrained model has no meaning; allowed: founder, own, parent")
    generate = experiment["generate"]
    if generate["tokens"] is not None and generate["decoding"] in ("greedy", "beam"):
        mistakes.append(
            f"{key}.generate.tokens: {generate['decoding']} decoding writes one completion a prompt; set tokens: null (one pass over the prompts)"
        )


def _check_theory(theory: dict, mistakes: list[str]) -> None:
    """More samples than dimensions, else no covariance can be estimated."""
    if theory:
        most = max(theory["dimensions"], *theory["grid"]["dimensions"])
        for key, n in (("n", theory["n"]), ("grid.n", min(theory["grid"]["n"]))):
            dimensions = most if key == "n" else theory["dimensions"]
            if n <= dimensions:
                mistakes.append(f"theory.{key}: {n} samples cannot estimate {dimensions} dimensions; allowed: more samples than dimensions")


SURVEY = {  # what each kind of survey cannot do without
    "outputs": ("models", "path"),
    "results": ("models", "path"),
    "collect": ("models",),
    "population": (),
}


def _check_survey(key: str, survey: dict, config: dict, named: dict, mistakes: list[str]) -> None:
    """Keys that a kind of survey needs, and experiments that are there; the experiments of a population become their replicates."""
    for needed in SURVEY[survey["kind"]]:
        if needed not in survey:
            mistakes.append(f"{key}.{needed}: missing; a survey of kind {survey['kind']} needs it")
    if survey["kind"] == "collect" and survey["collect"]["prompts"] is None:
        mistakes.append(f"{key}.collect.prompts: missing; name a parquet or jsonl file with prompt_id and prompt")
    if isinstance(rule := survey["compare"]["bandwidth"], str) and rule not in ("scott", "silverman") or rule == 0:
        mistakes.append(f"{key}.compare.bandwidth: {rule!r} is not allowed; allowed: scott, silverman, a number above 0")
    if survey["kind"] == "population":
        chosen = list(named) if survey["experiments"] is None else survey["experiments"]
        if all([_reference(mistakes, f"{key}.experiments", name, named, "experiments") for name in chosen]):
            survey["experiments"] = [r for name in chosen for r in config["experiments"] if r == name or r.startswith(f"{name}.s")]
        if not named:
            mistakes.append(f"{key}.kind: 'population' needs experiments; this config has none")


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
    """Local files that a `files` corpus names: a file, the parquet, jsonl and txt files of a folder, a glob, or a list of these."""
    found = []
    for pattern in [path] if isinstance(path, str) else path:
        target = Path(pattern).expanduser()
        if target.is_dir():
            found += sorted(str(file) for end in ("parquet", "jsonl", "jsonl.gz", "txt") for file in target.rglob(f"*.{end}"))
        else:  # a name with brackets in it is a file's name first, and a pattern only where there is no such file
            found += [str(target)] if target.is_file() else sorted(glob(str(target), recursive=True))
    return list(dict.fromkeys(found))


def check_files(config: dict, source: str = "config") -> None:
    """ConfigError where local data, models or tokenizers that a config names are not there."""
    mistakes = []
    for name, corpus in config["corpora"].items():
        if corpus["kind"] == "files" and not data_files(corpus["path"]):
            mistakes.append(f"corpora.{name}.path: {corpus['path']!r}: no parquet, jsonl or txt file is there; correct the path")
    for name, task in config["tasks"].items():
        for split, path in (task["data"] or {}).items():
            if not Path(path).expanduser().is_file():
                mistakes.append(f"tasks.{name}.data.{split}: {path!r}: there is no such file; correct the path")
    for name, survey in config["fingerprint"].items():
        for entry in [survey.get("path", [])] if isinstance(survey.get("path"), str) else survey.get("path", []):
            if not data_files(entry):
                mistakes.append(f"fingerprint.{name}.path: {entry!r}: no file is there; correct the path")
        if survey["collect"]["prompts"] and not Path(survey["collect"]["prompts"]).expanduser().is_file():
            mistakes.append(
                f"fingerprint.{name}.collect.prompts: {survey['collect']['prompts']!r}: there is no such file; correct the path"
            )
        try:
            read_catalogue(survey["models"], served=survey["kind"] == "collect") if "models" in survey else None
        except (ValueError, OSError) as error:
            mistakes.append(f"fingerprint.{name}.models: {error}")
    if mistakes:
        raise ConfigError("\n".join(f"{source}: {line}" for line in mistakes))


def resolve(raw: dict, source: str = "config") -> dict:
    """The resolved config: defaults filled in, `experiments` merged and replicated, `defaults` gone.

    Raises ConfigError, one line a mistake, each opening with `source` (the files that the config came from).
    """
    mistakes = []
    raw = {key: value for key, value in raw.items() if value is not None or key not in SIDE}
    for error in sorted(Draft202012Validator(schema()).iter_errors(raw), key=lambda error: [str(part) for part in error.absolute_path]):
        mistakes += _explain(error).split("\n")
    if any(raw.get(key) for key in LOOP) or not any(raw.get(key) for key in SIDE):
        mistakes += [
            f"top level: the key {key!r} is missing; add it (config/README.md says what it holds)" for key in LOOP if key not in raw
        ][:1]
    if not mistakes:
        experiment_node = schema()["$defs"]["experiment"]
        config = with_defaults({key: value for key, value in raw.items() if key not in ("defaults", "experiments")}, schema())
        del config["defaults"]
        config |= {key: _placed(config[key], config["data"]) for key in ("corpora", "models", "tasks", "fingerprint")}
        merged = {name: merge(raw.get("defaults", {}), change) for name, change in raw.get("experiments", {}).items()}
        config["experiments"] = {}
        _check_kinds(config, mistakes)
        for name, change in merged.items():
            experiment = with_defaults(change, experiment_node)
            _check_experiment(name, experiment, config, mistakes)
            config["experiments"] |= _replicates(name, experiment)
        config["figures"] = _roles(config, merged, mistakes)
        config["theory"] = config["theory"] if raw.get("theory") else {}
        _check_theory(config["theory"], mistakes)
        for name, survey in config["fingerprint"].items():
            _check_survey(f"fingerprint.{name}", survey, config, merged, mistakes)
    if mistakes:
        raise ConfigError("\n".join(f"{source}: {line}" for line in mistakes))
    return config


def _roles(config: dict, named: dict, mistakes: list[str]) -> dict[str, list[str]]:
    """Role -> replicates of the experiment that plays it (an empty list where nobody does)."""
    replicates = {name: [r for r in config["experiments"] if r == name or r.startswith(f"{name}.s")] for name in named}
    sizes = {name: config["experiments"][names[0]]["population"] for name, names in replicates.items()}
    first = {
        "population": next((name for name, size in sizes.items() if size > 1), None),
        "line": next((name for name, size in sizes.items() if size == 1), None),
    }
    roles = {}
    for role, chosen in config["figures"].items():
        chosen = chosen or first[role]
        if chosen is not None and not _reference(mistakes, f"figures.{role}", chosen, replicates, "experiments"):
            chosen = None
        roles[role] = replicates.get(chosen, [])
    return roles
