"""How a run fares, by its files alone: on any node, at any time, whether it runs, has stopped or has not begun.

A job is done where its output is; running while its lease is alive (or, in rules without one, while its log is young); failed
or stopped where the last line of its log says so; and waiting otherwise.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pollination import printable
from pollination.lease import MISSED, describe, newest
from pollination.workflow import Plan

YOUNG_S = 600.0  # a job without a lease whose log is older than this is not running any more
SHOWN = 12  # jobs listed one by one, at most, of each kind
TAIL_BYTES = 4096
STATES = ("done", "running", "failed", "stopped", "waiting")


@dataclass(frozen=True)
class Work:
    """One job of the plan. `output` and `log` are paths; `lease` names its work folder beside the output, if it has one."""

    group: str
    generation: int | None
    stage: str
    output: str
    log: str
    lease: str | None = None


def jobs(plan: Plan) -> Iterator[Work]:
    """Every job of a run, each once: preparation, founder pools, generations, report."""
    logs, needed = f"{plan.results}/logs", set()
    trained = [("founders " + pool, None, f"founders/{pool}", size) for pool, size in plan.pool_sizes.items()]
    for name, experiment in plan.config["experiments"].items():
        trained += [(name, g, plan.place(name, g), experiment["population"]) for g in range(1, experiment["generations"])]
        for g in range(experiment["generations"]):
            for rank in range(plan.k(name)) if plan.writes(name, g) else ():
                needed.update(path for paths in plan.prompt_inputs(name, g, rank).values() for path in paths)
            for m in range(experiment["population"]) if g else ():
                inputs = plan.child_inputs(name, g, m)
                needed.update(path for kind in ("validation", "human") for path in inputs.get(kind, []))
    for pool, size in plan.pool_sizes.items():
        needed.update(path for m in range(size) for paths in plan.founder_inputs(pool, m).values() for path in paths)
        needed.update(f"{plan.blueprint(f'founders/{pool}', m)}/tokenizer.json" for m in range(size))
    scored = {f"founders/{experiment['founders']}" for experiment in plan.config["experiments"].values()}
    measured = [(place, m) for _, g, place, size in trained for m in range(size) if g is not None or place in scored] + [
        (f"base/{model}", 0) for model in plan.bases
    ]
    for place, m in measured:
        needed.update(path for paths in plan.evaluation_inputs(place, m).values() for path in paths)
    for path in plan.disagreements():
        name, generation = path.split("/")[-3], int(path.split("/")[-2].removeprefix("gen"))
        needed.update(plan.disagreement_inputs(name, generation)["text"])
    compared = set(plan.disagreements())
    for place, m in measured if plan.config["evaluate"]["quality"] else ():
        inputs = {} if place.startswith("base/") else plan.quality_inputs(place, m)
        needed.update(path for key in ("world", "held_out", "train", "reference", "prompts") for path in inputs.get(key, []))
    needed.update(path for figure in ("continuations", "degeneration") for path in plan.vocabularies(plan.shown(figure)))
    yield from _preparation(plan, needed)
    for group, generation, place, size in trained:
        for m in range(size):
            folder, log = f"{plan.results}/{place}/member{m}", f"{logs}/{place}/member{m}"
            yield Work(group, generation, "train", f"{folder}/model.safetensors", f"{log}/train.log", ".train.work")
            if generation is not None or place in scored:  # a pool that is only a pretrained model's source is measured as that
                yield Work(group, generation, "evaluate", f"{folder}/scores.json", f"{log}/evaluate.log", ".evaluate.work")
                if plan.config["evaluate"]["quality"]:
                    yield Work(group, generation, "quality", f"{folder}/quality.json", f"{log}/quality.log", ".quality.work")
    for model in plan.bases:
        folder, log = f"base/{model}/member0", f"{logs}/base/{model}/member0/evaluate.log"
        yield Work("base " + model, None, "evaluate", f"{plan.results}/{folder}/scores.json", log, ".evaluate.work")
    for name, experiment in plan.config["experiments"].items():
        for g in range(experiment["generations"]):
            folder, log = f"{plan.results}/{name}/gen{g}", f"{logs}/{name}/gen{g}"
            if f"{folder}/disagreement.json" in compared:
                yield Work(name, g, "compare", f"{folder}/disagreement.json", f"{log}/disagreement.log", ".disagreement.work")
            if plan.selects(name):
                yield Work(name, g, "select", f"{folder}/selection.json", f"{log}/select.log")
            for path in plan.all_shards(name, g) if plan.writes(name, g) else ():
                shard = path.removeprefix(f"{folder}/").removesuffix(".parquet")
                yield Work(name, g, "write", path, f"{log}/{shard}.log", f".{Path(path).stem}.work")
            members = range(experiment["population"]) if g + 1 < experiment["generations"] else ()
            parents = dict.fromkeys(path for m in members for path in plan.weights(name, g + 1, m) if "/parent" in path)
            for path in parents:
                yield Work(name, g, "mutate", path, f"{log}/{Path(path).parent.name}/mutate.log")
            for m in members if experiment["text"] == "pool" else ():
                yield Work(name, g, "deal", f"{folder}/deal{m}/text.parquet", f"{log}/deal{m}/deal.log")
    for path in plan.prunings():
        *_, name, generation, _ = path.split("/")
        log = f"{logs}/{name}/{generation}/prune.log"
        yield Work(name, int(generation.removeprefix("gen")), "prune", path, log)
    yield from _sides(plan)
    if plan.embedded():
        folder, log = f"{plan.results}/semantics", f"{logs}/semantics"
        if plan.encoder:
            yield Work("preparation", None, "fetch", f"{folder}/encoder/config.json", f"{log}/encoder.log")
        yield Work("semantics", None, "embed", plan.embeddings, f"{log}/{Path(plan.embeddings).stem}.log")
        yield Work("semantics", None, "compare", plan.diversity, f"{log}/diversity.log")
    for figure in plan.figures():
        yield Work("report", None, "draw", f"{plan.results}/report/{figure}.csv", f"{logs}/report/{figure}.log")
    for path in plan.paper_files():
        if path.startswith(f"{plan.results}/paper/") and path.endswith(".csv"):
            yield Work("report", None, "draw", path, f"{logs}/paper/{Path(path).stem}.log")


def _sides(plan: Plan) -> Iterator[Work]:
    """Theory and surveys of fingerprints."""
    base, logs = plan.results, f"{plan.results}/logs"
    for table in ("recursion", "sensitivity", "bound") if plan.config["theory"] else ():
        yield Work("theory", None, "simulate", f"{base}/theory/{table}.parquet", f"{logs}/theory/{table}.log")
    if any(survey["count"]["stopwords"] == "nltk" for survey in plan.config["fingerprint"].values()):
        yield Work("preparation", None, "fetch", f"{base}/staged/stopwords.txt", f"{logs}/staged/stopwords.log")
    for name, survey in plan.config["fingerprint"].items():
        group, folder, log = "fingerprint " + name, f"{base}/fingerprint/{name}", f"{logs}/fingerprint/{name}"
        for part in plan.survey_parts(name):
            if survey["kind"] == "collect":
                yield Work(group, None, "collect", f"{folder}/outputs/{part}.parquet", f"{log}/outputs/{part}.log")
            yield Work(group, None, "count", f"{folder}/parts/{part}.json", f"{log}/{part}.log")
        yield Work(group, None, "compare", f"{folder}/statistics.json", f"{log}/compare.log")
        if survey["kind"] == "population":
            yield Work(group, None, "descent", f"{folder}/inheritance.json", f"{log}/inheritance.log")
    for path in plan.theory_files() + plan.fingerprint_files():
        if path.endswith(".csv"):
            figure = Path(path).stem
            yield Work("report", None, "draw", path, f"{logs}/report/{figure}.log")


def _preparation(plan: Plan, needed: set[str]) -> Iterator[Work]:
    """The jobs behind inputs that no member makes: corpora, models, tokens, tasks."""
    base, seen = plan.results, set()
    needed = {path.removeprefix(f"{base}/") for path in needed}
    needed |= {f"corpora/{path.split('/')[2]}/train.parquet" for path in needed if path.startswith("tokens/")}
    for model in {path.split("/")[1] for path in needed if path.startswith("models/")}:
        needed |= {path.removeprefix(f"{base}/") for path in plan.tokenizer_corpus(model)}
    for corpus in {path.split("/")[1] for path in needed if path.startswith("corpora/")}:
        needed |= {path.removeprefix(f"{base}/") for path in plan.corpus_sources(corpus) if path.startswith(f"{base}/")}
    for task in {path.split("/")[1] for path in needed if path.startswith("tasks/")}:
        needed |= {path.removeprefix(f"{base}/") for path in plan.task_sources(task) if path.startswith(f"{base}/")}
    for path in sorted(needed):
        kind, name, *rest = path.split("/")
        if kind == "tokens":
            stem = f"{name}.{rest[0]}.{Path(path).stem}"
            work = Work("preparation", None, "pack", f"{base}/{path}", f"{base}/logs/tokens/{stem}.log")
        elif path.endswith("/overlap.json"):
            work = Work("preparation", None, "overlap", f"{base}/{path}", f"{base}/logs/corpora/{name}.overlap.log")
        elif path.endswith("/vocabulary.parquet"):
            work = Work("preparation", None, "count words", f"{base}/{path}", f"{base}/logs/corpora/{name}.vocabulary.log")
        elif kind == "staged":
            work = Work("preparation", None, "fetch", f"{base}/{path}", f"{base}/logs/staged/{Path(path).stem}.log")
        else:
            file = {"corpora": "run.json", "models": "run.json", "tasks": "task.json", "requests": "run.json"}.get(kind)
            if file is None:
                continue
            work = Work("preparation", None, kind, f"{base}/{kind}/{name}/{file}", f"{base}/logs/{kind}/{name}.log")
        if work not in seen:
            seen.add(work)
            yield work


@cache
def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(path.name for path in Path(folder).iterdir())
    except OSError:
        return frozenset()


def last_line(log: str) -> str:
    """The last line of a log that tells something, without its time; "" where there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # A traceback follows the line that names the error: lines that begin with a time are the job's own.
    told = [one for one in lines if re.match(r"\d{4}-\d\d-\d\d ", one)]
    return printable.line(told[-1].split(" ", 2)[-1]) if told else ""


def state(work: Work, now_s: float, pruned: set[str]) -> tuple[str, str]:
    """(one of STATES, what there is to say of it)."""
    folder, name = work.output.rsplit("/", 1)
    names = _names(folder)
    if name in names or work.output in pruned:
        return "done", ""
    log_folder, log_name = work.log.rsplit("/", 1)
    if log_name not in _names(log_folder):
        return "waiting", ""
    told = last_line(work.log)
    level, _, text = told.partition(" ")
    if work.lease in names:
        number, holder = newest(Path(folder) / work.lease)
        if holder and not holder["released"]:
            try:
                silent_s = now_s - (Path(folder) / work.lease / f"lease.{number}").stat().st_mtime
            except OSError:  # passed on at this moment
                silent_s = 0.0
            if silent_s < 2 * MISSED * holder["beat_s"]:
                return "running", f"{text if level == 'INFO' else 'starting'} ({describe(holder)})"
            return "stopped", f"{describe(holder)} has ended without a word; last: {text}"
    elif level != "ERROR" and now_s - Path(work.log).stat().st_mtime < YOUNG_S:
        return "running", text
    if level == "ERROR":
        return "stopped" if ": stopped by " in text else "failed", text.removeprefix("error: ")
    return "stopped", text


def _spans(rows: dict[int | None, Counter]) -> list[tuple[str, Counter]]:
    """Rows by generation; neighbours that are wholly done, or wholly waiting, become one."""
    spans: list[tuple[list, Counter]] = []
    for generation, counts in sorted(rows.items(), key=lambda item: -1 if item[0] is None else item[0]):
        if spans and len(counts) == 1 and spans[-1][1].keys() == counts.keys() and next(iter(counts))[1] in ("done", "waiting"):
            spans[-1] = (spans[-1][0] + [generation], spans[-1][1] + counts)
        else:
            spans.append(([generation], counts))
    return [("" if g[0] is None else f"gen {g[0]}" + (f"-{g[-1]}" if len(g) > 1 else ""), counts) for g, counts in spans]


def report(plan: Plan) -> str:
    """One screen: counts by experiment and generation, then what runs, what has failed and what has stopped."""
    _names.cache_clear()
    now_s = time.time()
    rows: dict[str, dict] = {}
    stages: dict[tuple, Counter] = {}
    total, listed = Counter(), {name: [] for name in ("running", "failed", "stopped")}
    pruned = plan.pruned()
    for work in jobs(plan):
        found, text = state(work, now_s, pruned)
        total[found] += 1
        rows.setdefault(work.group, {}).setdefault(work.generation, Counter())[(None, found)] += 1
        stages.setdefault((work.group, work.generation), Counter())[(work.stage, found == "done")] += 1
        if found in listed:
            where = work.log if found != "running" else work.output.removeprefix(f"{plan.results}/").rsplit("/", 1)[0]
            listed[found].append(f"{where}: {work.stage}: {text}" if found == "running" else f"{where}: {text}")
    lines = [f"{plan.results}: {sum(total.values())} jobs, " + ", ".join(f"{total[name]} {name}" for name in STATES), ""]
    lines.append(f"{'':<34}" + "".join(f"{name:>9}" for name in STATES))
    for group, generations in rows.items():
        for span, counts in _spans(generations):
            line = f"{group:<25} {span:<8}" + "".join(f"{counts[(None, name)] or '.':>9}" for name in STATES)
            if len(counts) > 1 or (None, "running") in counts and "-" not in span:
                generation = int(span.split()[1]) if span else None
                by_stage = stages[(group, generation)]
                names = dict.fromkeys(stage for stage, _ in by_stage)
                line += "   " + ", ".join(f"{s} {by_stage[(s, True)]}/{by_stage[(s, True)] + by_stage[(s, False)]}" for s in names)
            lines.append(line.rstrip())
    titles = {
        "running": "running:",
        "failed": "failed (log: last error):",
        "stopped": "stopped, will go on when snakemake runs (log: last words):",
    }
    for name, entries in listed.items():
        if entries:
            more = [f"  ... and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
            lines += ["", titles[name], *(f"  {entry}" for entry in entries[:SHOWN]), *more]
    return "\n".join(lines)
