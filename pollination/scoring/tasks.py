"""Benchmarks as lm-eval tasks: staged once as files, then read offline by every model's evaluation.

A staged task is a folder: `{split}.parquet` (the questions that are asked, and where there are shots the split that examples
are drawn from), `questions.parquet` (doc_id, row in the source split, question text; for the check of corpora against
benchmarks) and `task.json`. Built-in templates are Python-bearing YAML files, so task.json keeps them by name, relative to
lm-eval's task folder, with the keys that differ; the pinned lm-eval version is part of it. A group such as `mmlu` is staged
as its leaf tasks, one a subject: `rows` says which rows of each split's file are the leaf's.

`questions: n` draws systematically (Madow 1949) from the questions shuffled within each leaf: every question is as likely as any
other, and each subject's share is kept to within one question. Few-shot examples are never thinned.
"""

import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pollination import artifacts
from pollination.seeds import derive_seed

SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
MICROWORLD_COLUMNS = ("question", "choices", "answer", "split")
# The first of these that a document has is its question as people wrote it, without the template's "Question:" and "Answer:".
QUESTION_COLUMNS = ("question", "sentence", "Problem", "problem", "query", "goal", "ctx", "input", "text")


def stage_task(spec: dict, folder: Path, evaluation_seed: int, corpus_folder: Path | None = None) -> None:
    """Write the staged task of the config entry `tasks.{name}: spec` into `folder` (see the module's text).

    `corpus_folder` is the microworld's corpus, for kind microworld. ValueError for an unknown template, absent data or columns,
    too few few-shot examples, and questions whose answer is not among the choices. More `questions` than there are: all.
    """
    stage = _stage_microworld(spec, corpus_folder) if spec["kind"] == "microworld" else _stage_lm_eval(spec)
    label, leaves, splits = stage["template"], stage["leaves"], stage["splits"]
    asked = splits["evaluated"]
    total = sum(len(leaf["tables"][asked]) for leaf in leaves)
    if total == 0:
        raise ValueError(f"task {label!r}: split {asked!r} has no questions")
    sizes = [len(leaf["tables"][asked]) for leaf in leaves]
    seed = derive_seed(evaluation_seed, "questions", label)
    for leaf, rows in zip(leaves, _draw(sizes, spec.get("questions") or total, seed), strict=True):
        leaf["source_rows"] = leaf["tables"][asked]["__row__"].to_numpy()[rows]
        leaf["tables"] = {
            split: (table.take(pa.array(rows)) if split == asked else table).drop_columns(["__row__"])
            for split, table in leaf["tables"].items()
        }
    leaves = [leaf for leaf in leaves if len(leaf["source_rows"])]
    for leaf in leaves:
        if splits["examples"] is not None:
            _check_examples(label, leaf, splits)

    questions, first = [], {split: 0 for split in leaves[0]["tables"]}
    for leaf in leaves:
        task = _build(leaf["name"], leaf, leaf["tables"], label)
        for index, (row, text) in enumerate(zip(leaf["source_rows"], _question_texts(task, label), strict=True)):
            questions += [{"doc_id": first[asked] + index, "row": int(row), "question": part} for part in text]
        leaf["rows"] = {split: [first[split], first[split] + len(table)] for split, table in leaf["tables"].items()}
        first = {split: stop for split, (_, stop) in leaf["rows"].items()}

    for split in first:
        pieces = [leaf["tables"][split] for leaf in leaves]
        artifacts.write_table(folder / f"{split}.parquet", pa.concat_tables(pieces, promote_options="default"))
    artifacts.write_table(folder / "questions.parquet", pd.DataFrame(questions))
    entry = {
        "kind": spec["kind"],
        "template": label,
        "data": stage["data"],
        "lm_eval": version("lm-eval"),
        "evaluated_split": asked,
        "examples_split": splits["examples"],
        "questions": first[asked],
        "questions_available": total,
        "subjects_without_data": stage["absent"],
        "evaluation_seed": evaluation_seed,
        "shots": stage["shots"],
        "method": spec.get("method") or "loglikelihood",
        "answer_tokens": spec.get("answer_tokens") or 16,
        "tasks": [{key: leaf[key] for key in ("name", "yaml", "config", "rows")} for leaf in leaves],
    }
    artifacts.write_json(folder / "task.json", entry)


def load_tasks(folders: dict[str, Path], evaluation_seed: int) -> dict:
    """lm-eval's task dict {"tasks": {name: Task}} of staged tasks, for `evaluator.evaluate`; leaves of a group are "{name}/{leaf}".

    The few-shot sampler is seeded with `evaluation_seed`. Reads the folders only: no network, no cache.
    """
    tasks = {}
    for name, folder in folders.items():
        entry = artifacts.read_json(Path(folder) / "task.json")
        staged = {split: artifacts.read_table(Path(folder) / f"{split}.parquet") for split in entry["tasks"][0]["rows"]}
        for leaf, key in zip(entry["tasks"], leaf_names(name, entry), strict=True):
            tables = {split: staged[split].slice(start, stop - start) for split, (start, stop) in leaf["rows"].items()}
            tasks[key] = _build(key, leaf, tables, entry["template"])
            tasks[key].set_fewshot_seed(evaluation_seed)
    return {"tasks": tasks}


def leaf_names(name: str, entry: dict) -> list[str]:
    """Names in lm-eval's task dict of the leaves of the staged task `name` whose task.json is `entry`."""
    return [name] if len(entry["tasks"]) == 1 else [f"{name}/{leaf['name']}" for leaf in entry["tasks"]]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's warnings and the progress bars that it offers no switch for."""
    import lm_eval.api.task

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with patch.object(lm_eval.api.task, "tqdm", lambda items, **_: items):
            yield
    finally:
        logger.setLevel(level)


def _build(name: str, leaf: dict, tables: dict[str, pa.Table], label: str):
    """One lm-eval Task on tables held in memory (datasets' own loaders would write a cache for each of 57 subjects)."""
    import datasets
    from jinja2 import UndefinedError
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    data = {split: datasets.Dataset(datasets.table.InMemoryTable(table)) for split, table in tables.items()}
    template = load_yaml(_task_root() / leaf["yaml"]) if leaf["yaml"] else {}
    config = template | leaf["config"] | {"task": name, "custom_dataset": lambda **_: data, "dataset_kwargs": None}
    try:
        with quiet():
            return TaskManager(include_defaults=False).load([config])["tasks"][name]
    except (KeyError, UndefinedError, ValueError, TypeError, IndexError) as error:
        columns = ", ".join(next(iter(tables.values())).column_names)
        raise ValueError(
            f"task {label!r}: its data does not fit the template {leaf['name']!r} ({type(error).__name__}: {error}); "
            f"its columns are {columns}"
        ) from error


def _draw(sizes: list[int], questions: int, seed: int) -> list[np.ndarray]:
    """For each stratum the rows drawn, ascending: `questions` in all (or all there are), every row equally likely."""
    total = sum(sizes)
    if questions >= total:
        return [np.arange(size) for size in sizes]
    generator = np.random.default_rng(seed)
    order = [generator.permutation(size) for size in sizes]
    points = ((generator.random() + np.arange(questions)) * total / questions).astype(np.int64)
    stops = np.cumsum(sizes)
    return [
        np.sort(rows[points[(points >= stop - len(rows)) & (points < stop)] - (stop - len(rows))])
        for rows, stop in zip(order, stops, strict=True)
    ]


# Kind microworld


def _stage_microworld(spec: dict, corpus_folder: Path | None) -> dict:
    benchmark, shots = spec["benchmark"], spec.get("shots") or 0
    path = Path(corpus_folder) / "tasks" / f"{benchmark}.parquet"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.parquet"))) or "none"
        raise ValueError(f"tasks: benchmark {benchmark!r} is not in corpus {spec.get('corpus')!r}; it has: {there}")
    table = _read(path, f"benchmark {benchmark!r}")
    _require_columns(table, MICROWORLD_COLUMNS, f"benchmark {benchmark!r}", path.name)
    splits = {"evaluated": "test", "examples": "dev" if shots else None}
    names = [name for name in splits.values() if name]
    tables = {name: table.filter(pc.equal(table["split"], name)).select(MICROWORLD_COLUMNS[:3]) for name in names}
    # The world's sentences end with " .": where the answers do not bring it along, the text between examples does.
    choices = table["choices"].combine_chunks().flatten().to_pylist()
    delimiter = " " if all(choice.endswith(".") for choice in choices) else " . "
    config = {
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": splits["examples"],
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": shots,
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "fewshot_delimiter": delimiter,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    leaf = {"name": benchmark, "yaml": None, "config": config, "tables": {k: _numbered(t) for k, t in tables.items()}}
    return {
        "template": benchmark,
        "data": spec.get("corpus"),
        "leaves": [leaf],
        "splits": splits,
        "shots": shots,
        "absent": [],
    }


# Kind lm_eval


def _task_root() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _stage_lm_eval(spec: dict) -> dict:
    from lm_eval.tasks._yaml_loader import load_yaml

    template, files = spec["template"], spec.get("data")
    members = _leaves(template)
    local = {split: _read(Path(path), f"data.{split}") for split, path in (files or {}).items()}
    leaves, absent, plan = [], [], None
    for name, path, extra in members:
        config = load_yaml(path) | extra
        if config.get("output_type") != "multiple_choice":
            raise ValueError(
                f"task template {template!r} is not multiple choice (output_type {config.get('output_type')!r}); "
                "name one that is, such as mmlu, winogrande, mathqa, social_iqa, arc_easy, piqa"
            )
        plan = _plan_splits(template, config, set(local) if files else None, spec.get("shots"))
        subset = config.get("dataset_name")
        tables = {
            split: _subject(_numbered(local[split]), subset, len(members) > 1, f"data.{split}") if files else _fetch(config, split)
            for split in {plan["evaluated"]: 0, plan["examples"]: 0}
            if split
        }
        if len(tables[plan["evaluated"]]) == 0:
            absent.append(subset)
            continue
        for split, table in tables.items():
            _require_columns(table, _template_columns(config), f"template {name!r}", f"data.{split}")
        leaf_config = extra | plan["config"]
        leaves.append({"name": name, "yaml": str(path.relative_to(_task_root())), "config": leaf_config, "tables": tables})
    if not leaves:
        raise ValueError(f"task template {template!r}: column 'subject' of its data names none of {', '.join(absent[:5])}, ...")
    splits = {key: plan[key] for key in ("evaluated", "examples")}
    data = {split: str(path) for split, path in files.items()} if files else "hub"
    return {
        "template": template,
        "data": data,
        "leaves": leaves,
        "splits": splits,
        "shots": plan["shots"],
        "absent": absent,
    }


def _leaves(template: str) -> list[tuple[str, Path, dict]]:
    """(name, YAML file, keys that override it) of the leaf tasks that a built-in name stands for.

    All 14,000 names take 9 s to index, so only the folder that defines the name is; all of it where that does not suffice.
    """
    from lm_eval.tasks._index import TaskIndex

    root = _task_root()
    line = re.compile(rf"^[\"']?(?:task|group)[\"']?\s*:\s*[\"']?{re.escape(template)}[\"']?\s*$", re.MULTILINE)
    found = next((path for path in sorted(root.glob("**/*.yaml")) if line.search(path.read_text(errors="replace"))), None)
    try:
        return _expand(template, TaskIndex.build([found.parent]) if found else {}, {})
    except KeyError:
        with quiet():
            index = TaskIndex.build([root])
    if template not in index:
        near = difflib.get_close_matches(template, index, n=3) or ["mmlu", "winogrande", "mathqa", "social_iqa"]
        raise ValueError(f"unknown task template {template!r}; nearest built-in names of lm-eval: {', '.join(near)}")
    return _expand(template, index, {})


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
            leaves += _expand(member["task"], index, extra | {key: member[key] for key in member if key != "task"})
        else:
            raise ValueError(f"task template {name!r} is a group with members defined inside it; name its members instead")
    return leaves


def _plan_splits(template: str, config: dict, available: set[str] | None, shots: int | None) -> dict:
    """Which split is asked and which one gives examples, as lm-eval would choose among those that are available (None: all).

    Split keys that are not staged become None, the others stay as the template has them: lm-eval's sampler depends on them.
    """
    shots = (config.get("num_fewshot") or 0) if shots is None else shots
    fewshot = dict(config.get("fewshot_config") or {})
    named = {key: config.get(key) for key in SPLIT_KEYS} | ({"fewshot_split": fewshot["split"]} if "split" in fewshot else {})
    there = {key: split for key, split in named.items() if split and (available is None or split in available)}
    evaluated = there.get("test_split") or there.get("validation_split")
    have = ", ".join(sorted(available or ())) or "none"
    if evaluated is None:
        asks = " or ".join(repr(named[key]) for key in ("test_split", "validation_split") if named[key])
        raise ValueError(f"tasks: template {template!r} is evaluated on split {asks}; data names: {have}")
    examples = None
    if shots and not (fewshot.get("samples") and not named["fewshot_split"]):
        examples = next((there[key] for key in ("fewshot_split", *SPLIT_KEYS[:3]) if key in there), None)
        if named["fewshot_split"] and "fewshot_split" not in there:
            split = named["fewshot_split"]
            raise ValueError(f"tasks: shots {shots} of template {template!r} needs data.{split}; data names: {have}")
    staged = {evaluated, examples}
    splits = {key: there.get(key) if there.get(key) in staged else None for key in SPLIT_KEYS}
    if not shots:
        splits |= {"training_split": None, "fewshot_split": None}
    if examples == evaluated:  # said outright, so that lm-eval leaves the question itself out of its examples
        splits |= {
            "test_split": evaluated,
            "fewshot_split": evaluated,
            "validation_split": None,
            "training_split": None,
        }
    plan = splits | {"num_fewshot": shots}
    if fewshot:
        plan["fewshot_config"] = {key: value for key, value in fewshot.items() if key != "split"}
    return {"evaluated": evaluated, "examples": examples, "shots": shots, "config": plan}


def _read(path: Path, key: str) -> pa.Table:
    if not path.is_file():
        raise ValueError(f"tasks: {key}: {path}: the file does not exist")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"tasks: {key}: {path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def _fetch(config: dict, split: str) -> pa.Table:
    """One split of the template's data set from the hub, through datasets' own cache."""
    import datasets

    path, name = config["dataset_path"], config.get("dataset_name")
    options = {key: value for key, value in (config.get("dataset_kwargs") or {}).items() if key != "trust_remote_code"}
    try:
        data = datasets.load_dataset(path, name, split=split, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"tasks: data set {path!r} ({name or 'default'}, {split}) cannot be fetched ({reason}); "
            f"stage it where there is a network, or name local files: data: {{{split}: file.parquet}}"
        ) from error
    return _numbered(data.with_format("arrow")[:])


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("__row__", pa.array(np.arange(len(table))))


def _subject(table: pa.Table, subset: str | None, group: bool, key: str) -> pa.Table:
    """A local file holds all subjects of a group: the rows whose column `subject` is the leaf's data set name."""
    if "subject" not in table.column_names:
        if group:
            raise ValueError(f"tasks: {key}: a group's file needs column 'subject'; it has {_names(table)}")
        return table
    rows = table.filter(pc.equal(table["subject"], pa.scalar(subset, table["subject"].type)))
    return rows if group or len(rows) else table


def _names(table: pa.Table) -> str:
    return ", ".join(name for name in table.column_names if name != "__row__")


def _require_columns(table: pa.Table, columns: tuple[str, ...] | list[str], what: str, where: str) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(f"tasks: {what} needs columns {', '.join(missing)}, which {where} lacks; it has {_names(table)}")


def _template_columns(config: dict) -> list[str]:
    """Columns that the template's Jinja strings name; what its Python functions read shows when the first row is built."""
    from jinja2 import meta
    from lm_eval.utils import env

    if config.get("process_docs"):
        return []
    names = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        text = config.get(key)
        if isinstance(text, str):
            names |= {text} if text.isidentifier() else meta.find_undeclared_variables(env.parse(text))
    return sorted(names - set(env.globals))


def _check_examples(label: str, leaf: dict, splits: dict) -> None:
    config, pool = leaf["config"], len(leaf["tables"][splits["examples"]])
    sampler = (config.get("fewshot_config") or {}).get("sampler", "default")
    # lm-eval draws one more than it shows where it may have to leave out the question itself.
    spare = splits["examples"] == splits["evaluated"] or (sampler == "default" and config["fewshot_split"] == config["test_split"])
    needed = config["num_fewshot"] + spare
    if pool < needed:
        raise ValueError(
            f"tasks: {label!r} with shots {config['num_fewshot']} needs {needed} examples in split {splits['examples']!r} "
            f"of {leaf['name']!r}; it has {pool}: lower shots or add examples"
        )


def gold(task, doc: dict) -> int:
    """Index of the right choice (of the first right one where a template has several), -1 where there is none."""
    choices = task.doc_to_choice(doc)
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    target = target[0] if isinstance(target, list) else target
    if isinstance(target, str):
        return choices.index(target) if target in choices else -1
    return int(target) if 0 <= target < len(choices) else -1


def _question_texts(task, label: str) -> Iterator[list[str]]:
    """Texts under which a corpus might hold each question, after a check that it has its answer among the choices."""
    for index, doc in enumerate(task.eval_docs):
        try:
            answer = gold(task, doc)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ValueError(f"task {label!r}: question {index} does not fit the template ({type(error).__name__}: {error})") from error
        if answer < 0:
            raise ValueError(f"task {label!r}: question {index} has no answer among its choices: are the split's labels hidden?")
        if task.multiple_input:  # each choice fills the gap of one sentence
            yield [f"{choice} {task.doc_to_target(doc)}" for choice in task.doc_to_choice(doc)]
            continue
        column = next((name for name in QUESTION_COLUMNS if isinstance(doc.get(name), str)), None)
        context = doc.get("context") if isinstance(doc.get("context"), str) else ""
        yield [f"{context} {doc[column]}".strip() if column else task.doc_to_text(doc)]
