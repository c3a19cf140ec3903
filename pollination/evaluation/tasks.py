"""Stage benchmarks once as files, which every evaluation then reads offline as lm-eval tasks.

A staged task is a folder with these files:
- `splits/{split}.parquet`: the evaluated questions, and the split of few-shot examples if there are
  shots, as the template processes them
- `questions.parquet`: doc_id, row in the source split, question text; the check of corpora against
  benchmarks reads it
- `task.json`: template, splits, counts, lm-eval version. Built-in templates are YAML files that may
  name Python functions, so task.json has only their path in lm-eval's task folder, and the keys
  that differ. For a user's own benchmark it also holds the YAML and Python files.

A group such as `mmlu` is staged as its leaf tasks, one per subject. `rows` gives the rows of each
leaf in the file of each split.

`questions: n` draws systematically (Madow 1949) from the questions, shuffled within each leaf.
Every question is equally likely, and each subject keeps its share to within one question. The
few-shot examples are always complete.
"""

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pollination.core import artifacts
from pollination.core.artifacts import DamagedArtifact
from pollination.core.seeds import derive_seed
from pollination.evaluation.lm_eval_calls import offline, quiet
from pollination.evaluation.template_data import numbered, read_data, require_columns
from pollination.evaluation.template_source import TemplateSource, opened
from pollination.evaluation.templates import stage_lm_eval
from pollination.plan.sizes import SIZES

log = logging.getLogger("pollination")

MADE_UP = {  # answers of no model, by type of request
    "loglikelihood": (-1.0, False),
    "loglikelihood_rolling": -1.0,
    "generate_until": "1",
}
TRIED = 3  # questions of a built-in template that are tried with them
MICROWORLD_COLUMNS = ("question", "choices", "answer", "split")
# The first of these columns that a document has is the question as people wrote it, without the
# template's "Question:" and "Answer:".
QUESTION_COLUMNS = (
    "question",
    "sentence",
    "Problem",
    "problem",
    "query",
    "goal",
    "ctx",
    "input",
    "text",
)


def stage_task(
    spec: dict, folder: Path, evaluation_seed: int, corpus_folder: Path | None = None
) -> None:
    """Write the staged task of the config entry `tasks.{name}: spec` into `folder`.

    `corpus_folder` is the corpus of the microworld, for kind microworld. If `questions` exceeds the
    number of questions, all are staged. ValueError: an unknown template, missing data or columns,
    too few few-shot examples, a question whose answer is not among its choices, or any failure in a
    user's own template.
    """
    random.seed(evaluation_seed)  # templates may draw random numbers
    np.random.seed(evaluation_seed)
    stage = (
        _stage_microworld(spec, corpus_folder)
        if spec["kind"] == "microworld"
        else stage_lm_eval(spec)
    )
    label, leaves = stage["template"], stage["leaves"]
    asked = leaves[0]["splits"]["evaluated"]
    sizes = [len(_evaluated(leaf)) for leaf in leaves]
    total = sum(sizes)
    least = SIZES["questions"].floor
    if total < least:
        has = f"{total} question" if total else "no questions"
        raise ValueError(
            f"task {label!r}: split {asked!r} has {has}; allowed: {least} or more. Add questions "
            "to its data"
        )
    if (spec.get("questions") or 0) > total:
        log.warning(
            "task %r: questions %d exceeds the %d questions of split %r, so all are used",
            label,
            spec["questions"],
            total,
            asked,
        )
    if stage["absent"]:
        log.warning(
            "task %r: the data has no questions for %s, which are left out",
            label,
            ", ".join(stage["absent"]),
        )
    seed = derive_seed(evaluation_seed, "questions", label)
    for leaf, rows in zip(leaves, _draw(sizes, spec.get("questions") or total, seed), strict=True):
        leaf["source_rows"] = _evaluated(leaf)["__row__"].to_numpy()[rows]
        leaf["tables"] = {
            split: (
                table.take(pa.array(rows)) if split == leaf["splits"]["evaluated"] else table
            ).drop_columns(["__row__"])
            for split, table in leaf["tables"].items()
        }
    leaves = [leaf for leaf in leaves if len(leaf["source_rows"])]
    for leaf in leaves:
        if leaf["splits"]["examples"] is not None:
            _check_examples(label, leaf, leaf["splits"])

    questions: list[dict] = []
    doc_id = 0
    own = {key: stage[key] for key in ("aggregates", "include_path", "files") if key in stage}
    with opened(own.get("include_path"), own.get("files")) as source:
        for leaf in leaves:
            checked = _checked_questions(leaf, label, source, spec, evaluation_seed)
            for row, text in zip(leaf["source_rows"], checked, strict=True):
                questions += [
                    {"doc_id": doc_id, "row": int(row), "question": part} for part in text
                ]
                doc_id += 1
    files = _files(leaves)
    digests = {}
    for name, tables in files.items():
        path = folder / "splits" / f"{name}.parquet"
        artifacts.write_table(path, pa.concat_tables(tables, promote_options="default"))
        digests[name] = artifacts.digest(path)
    artifacts.write_table(folder / "questions.parquet", pd.DataFrame(questions))
    kinds = {leaf["output_type"] for leaf in leaves} - {"multiple_choice"}
    entry = {
        "kind": spec["kind"],
        "template": label,
        "data": stage["data"],
        "lm_eval": version("lm-eval"),
        "evaluated_split": asked,
        "examples_split": leaves[0]["splits"]["examples"],
        "questions": doc_id,
        "questions_available": total,
        "subjects_without_data": stage["absent"],
        "evaluation_seed": evaluation_seed,
        "shots": max(leaf["shots"] for leaf in leaves),
        "method": ", ".join(sorted(kinds)) or spec.get("method") or "loglikelihood",
        "splits": digests,
        "answer_tokens": spec.get("answer_tokens") or 16,
        "tasks": [
            {key: leaf[key] for key in ("name", "yaml", "config", "rows", "files") if key in leaf}
            for leaf in leaves
        ],
        **({"metric": spec["metric"]} if spec.get("metric") else {}),
        **own,
    }
    artifacts.write_json(folder / "task.json", entry)


def _evaluated(leaf: dict) -> pa.Table:
    return leaf["tables"][leaf["splits"]["evaluated"]]


def _files(leaves: list[dict]) -> dict[str, list[pa.Table]]:
    """Return file name -> tables of leaves that it holds; note the rows of each leaf.

    A split of leaves with equal columns is one file, named like the split. Further columns make
    further files.
    """
    files: dict[str, list[pa.Table]] = {}
    names: dict[tuple, str] = {}
    for leaf in leaves:
        leaf["rows"], other = {}, {}
        for split, table in leaf["tables"].items():
            form = split, frozenset((field.name, str(field.type)) for field in table.schema)
            if form not in names:
                forms = sum(1 for known, _ in names if known == split)
                names[form] = f"{split}.{forms + 1}" if forms else split
            file = files.setdefault(names[form], [])
            start = sum(map(len, file))
            leaf["rows"][split] = [start, start + len(table)]
            file.append(table)
            if names[form] != split:
                other[split] = names[form]
        if other:
            leaf["files"] = other
    return files


def load_tasks(folders: dict[str, Path], evaluation_seed: int) -> dict:
    """Return lm-eval's task dict of staged tasks for `evaluator.evaluate`.

    It has {"tasks": {name: Task}, "groups": {name: Group}}. The leaves of a group are
    "{name}/{leaf}". `evaluation_seed` seeds the few-shot sampler. The function reads only the
    folders: no network, no cache.
    """
    from lm_eval.api.group import Group

    tasks: dict = {}
    groups: dict[str, Group] = {}
    for name, folder in folders.items():
        entry = artifacts.read_json(Path(folder) / "task.json")
        staged = {}
        for split, expected in entry["splits"].items():
            path = Path(folder) / "splits" / f"{split}.parquet"
            if not path.is_file() or artifacts.digest(path) != expected:
                raise DamagedArtifact(
                    f"{path}: the file is missing or differs from its digest in task.json; delete "
                    f"{folder} and run snakemake again"
                )
            staged[split] = artifacts.read_table(path)
        with opened(entry.get("include_path"), entry.get("files")) as source:
            for leaf, key in zip(entry["tasks"], leaf_names(name, entry), strict=True):
                tables = {
                    split: staged[leaf.get("files", {}).get(split, split)].slice(
                        start, stop - start
                    )
                    for split, (start, stop) in leaf["rows"].items()
                }
                tasks[key] = _build(key, leaf, tables, entry["template"], source)
                tasks[key].set_fewshot_seed(evaluation_seed)
                if len(entry["tasks"]) > 1:
                    shared = {"group": name, "aggregate_metric_list": entry.get("aggregates")}
                    groups.setdefault(name, Group.from_config(shared)).add(tasks[key])
    return {"tasks": tasks, "groups": groups}


def has_own_code(folder: Path) -> bool:
    """Return whether a staged task is a user's own benchmark, which may name functions."""
    return "include_path" in artifacts.read_json(folder / "task.json")


def leaf_names(name: str, entry: dict) -> list[str]:
    """Return the leaves' names in lm-eval's task dict; `entry` is the task.json of task `name`."""
    return (
        [name]
        if len(entry["tasks"]) == 1
        else [f"{name}/{leaf['name']}" for leaf in entry["tasks"]]
    )


def _build(name: str, leaf: dict, tables: dict[str, pa.Table], label: str, source: TemplateSource):
    """Return an lm-eval Task on tables in memory.

    The loaders of `datasets` would write a cache for each of 57 subjects.
    """
    import datasets
    from jinja2 import UndefinedError
    from lm_eval.tasks import TaskManager

    data = {
        split: datasets.Dataset(datasets.table.InMemoryTable(table))
        for split, table in tables.items()
    }
    template = source.load(leaf["yaml"]) if leaf["yaml"] else {}
    config = (
        template
        | leaf["config"]
        | {"task": name, "custom_dataset": lambda **_: data, "dataset_kwargs": None}
    )
    # fewshot_split holds the split, and all questions are processed already.
    if config.get("fewshot_config"):
        config["fewshot_config"] = {
            key: value
            for key, value in config["fewshot_config"].items()
            if key not in ("split", "process_docs")
        }
    try:
        with quiet():
            return TaskManager(include_defaults=False).load([config])["tasks"][name]
    except (KeyError, UndefinedError, ValueError, TypeError, IndexError) as error:
        columns = ", ".join(next(iter(tables.values())).column_names)
        raise ValueError(
            f"task {label!r}: its data does not fit the template {leaf['name']!r} "
            f"({type(error).__name__}: {error}); its columns are {columns}; rename the columns of "
            "the data, or choose another template"
        ) from error


def _draw(sizes: list[int], questions: int, seed: int) -> list[np.ndarray]:
    """Draw `questions` rows in total (at most all), each equally likely; ascending per stratum."""
    total = sum(sizes)
    if questions >= total:
        return [np.arange(size) for size in sizes]
    generator = np.random.default_rng(seed)
    order = [generator.permutation(size) for size in sizes]
    points = (
        ((generator.random() + np.arange(questions)) * total / questions)
        .astype(np.int64)
        .clip(max=total - 1)
    )
    stops = np.cumsum(sizes)
    return [
        np.sort(rows[points[(points >= stop - len(rows)) & (points < stop)] - (stop - len(rows))])
        for rows, stop in zip(order, stops, strict=True)
    ]


# Kind microworld


def _stage_microworld(spec: dict, corpus_folder: Path | None) -> dict:
    benchmark, shots = spec["benchmark"], spec.get("num_fewshot") or 0
    assert corpus_folder is not None, "the rule names the microworld's corpus"
    path = corpus_folder / "tasks" / f"{benchmark}.parquet"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.parquet"))) or "none"
        raise ValueError(
            f"tasks: benchmark {benchmark!r} is not in corpus {spec.get('corpus')!r}; allowed: "
            f"{there}"
        )
    table = read_data(path, f"benchmark {benchmark!r}")
    require_columns(table, MICROWORLD_COLUMNS, f"benchmark {benchmark!r}", path.name)
    splits = {"evaluated": "test", "examples": "dev" if shots else None}
    names = [name for name in splits.values() if name]
    tables = {
        name: table.filter(pc.equal(table["split"], name)).select(MICROWORLD_COLUMNS[:3])
        for name in names
    }
    # Sentences end with " .": the delimiter adds it if the answers do not.
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
    leaf = {
        "name": benchmark,
        "yaml": None,
        "config": config,
        "tables": {k: numbered(t) for k, t in tables.items()},
        "splits": splits,
        "shots": shots,
        "output_type": "multiple_choice",
        "tried": False,
        "sampler": "first_n",
    }
    return {"template": benchmark, "data": spec.get("corpus"), "leaves": [leaf], "absent": []}


def _check_examples(label: str, leaf: dict, splits: dict) -> None:
    config, pool = leaf["config"], len(leaf["tables"][splits["examples"]])
    # lm-eval draws one spare example if it may have to leave out the question itself.
    spare = splits["examples"] == splits["evaluated"] or (
        leaf["sampler"] == "default" and config["fewshot_split"] == config["test_split"]
    )
    needed = config["num_fewshot"] + spare
    if pool < needed:
        raise ValueError(
            f"tasks: {label!r} with num_fewshot {config['num_fewshot']} needs {needed} examples "
            f"in split {splits['examples']!r} of {leaf['name']!r}; it has {pool}; lower "
            "num_fewshot or add examples"
        )


def gold(task, doc: dict) -> int:
    """Return the index of the right choice (the first, if there are several), or -1 for none."""
    choices = task.doc_to_choice(doc)
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    target = target[0] if isinstance(target, list) else target
    if isinstance(target, str):
        return choices.index(target) if target in choices else -1
    return int(target) if 0 <= target < len(choices) else -1


def _checked_questions(
    leaf: dict, label: str, source: TemplateSource, spec: dict, seed: int
) -> list[list[str]]:
    """Return the texts of each question of a leaf; try the code of its template once."""
    with source.blamed(leaf["yaml"]):
        task = _build(leaf["name"], leaf, leaf["tables"], label, source)
        questions = list(_question_texts(task, label))
        if source.folder:
            _try_requests(task, spec.get("method"), seed)
    if leaf["tried"] and not source.folder:
        try:
            with offline():
                _try_requests(task, spec.get("method"), seed, TRIED)
        except Exception as error:  # the code of lm-eval's tasks may raise any
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"task {label!r}: lm-eval's template {leaf['name']!r} cannot score an answer here "
                f"({reason}); install what it needs, or choose another template"
            ) from error
    return questions


def _try_requests(task, method: str | None, seed: int, most: int | None = None) -> None:
    """Build requests of a task (of `most` questions) and score made-up answers.

    A faulty template then fails here, before any model is evaluated.
    """
    task.set_fewshot_seed(seed)
    with quiet():
        task.build_all_requests(rank=0, world_size=1, limit=most)
    by_question: dict[int, list] = {}
    for instance in task.instances:
        instance.resps = [MADE_UP[instance.request_type]] * instance.repeats
        by_question.setdefault(instance.doc_id, []).append(instance)
    task.apply_filters()
    values: dict[str, list] = {}
    for index, instances in by_question.items():
        doc = instances[0].doc
        for name in instances[0].filtered_resps:
            found = task.process_results(doc, [one.filtered_resps[name] for one in instances])
            for metric, value in found.items():
                values.setdefault(metric, []).append(value)
        if method == "generate" and isinstance(task.doc_to_target(doc), list):
            raise ValueError(
                f"question {index} has several right answers, which method generate does not "
                "score; set method: loglikelihood"
            )
    aggregations = task.aggregation()
    for metric in values.keys() & aggregations.keys():
        # made-up answers may be too much alike
        with suppress(ArithmeticError), warnings.catch_warnings(action="ignore"):
            aggregations[metric](values[metric])


def _question_texts(task, label: str) -> Iterator[list[str]]:
    """Yield the texts of each question that a corpus might contain.

    ValueError: a question does not have its answer among its choices.
    """
    chooses = task.OUTPUT_TYPE == "multiple_choice"
    for index, doc in enumerate(task.eval_docs):
        try:
            answer = gold(task, doc) if chooses else task.doc_to_target(doc)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"task {label!r}: question {index} does not fit the template "
                f"({type(error).__name__}: {error}); correct the data or choose another template"
            ) from error
        if chooses and answer < 0:
            raise ValueError(
                f"task {label!r}: question {index} has no answer among its choices; use a split "
                "whose answers are public"
            )
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            yield [str(answer)]
            continue
        if task.multiple_input:  # each choice fills the gap in one sentence
            yield [f"{choice} {task.doc_to_target(doc)}" for choice in task.doc_to_choice(doc)]
            continue
        column = next((name for name in QUESTION_COLUMNS if isinstance(doc.get(name), str)), None)
        context = doc.get("context") if isinstance(doc.get("context"), str) else ""
        yield [f"{context} {doc[column]}".strip() if column else task.doc_to_text(doc)]
