"""List the jobs of a run.

Snakemake plans the same jobs from rules/; a test compares the two lists.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pollination.plan import embedding, layout, outputs, pruning, report
from pollination.plan.graph import is_dealt, is_mixed
from pollination.plan.inputs import (
    child_inputs,
    corpus_sources,
    founder_inputs,
    parent_weights,
    prompt_inputs,
    removed_questions,
    segment_source,
    task_sources,
    tokenizer_corpus,
)
from pollination.plan.job_kinds import KINDS, JobKind
from pollination.plan.landing import landing_page
from pollination.plan.layout import place_of
from pollination.plan.measuring import disagreement_inputs, evaluation_inputs, quality_inputs
from pollination.plan.paper import paper_files
from pollination.plan.plan import Plan
from pollination.plan.report import shown_in
from pollination.plan.semantics import embeddings_file, encoder_files, vocabularies
from pollination.plan.standalone import fingerprint_files, survey_parts, theory_files
from pollination.plan.synthetic import all_shards, writers


@dataclass(frozen=True)
class Work:
    """One job of the plan. `group` and `generation` are its place in `pollination status`."""

    kind: JobKind
    group: str
    generation: int | None
    output: str
    log: str
    lease: str | None

    @property
    def stage(self) -> str:
        return self.kind.stage


def everything(plan: Plan) -> list[str]:
    """Return the files that `snakemake` makes without a target.

    They include the first file of every job. Otherwise Snakemake would not make a deleted file that
    all of its readers have read.
    """
    files = report.report_files(plan) + paper_files(plan)
    files += theory_files(plan) + fingerprint_files(plan) + landing_page(plan)
    deletable = pruning.deletable(plan)
    return list(dict.fromkeys(files + [w.output for w in jobs(plan) if w.output not in deletable]))


def jobs(plan: Plan) -> Iterator[Work]:
    """Yield every job of a run once: preparation, founder pools, generations, report."""
    yield from _preparation(plan)
    yield from _members(plan)
    yield from _generations(plan)
    yield from _theory_and_surveys(plan)
    yield from _semantics(plan)
    yield from _figures(plan)


def _work(
    plan: Plan, rule: str, group: str, generation: int | None = None, **wildcards: object
) -> Work:
    kind = KINDS[rule]
    return Work(
        kind,
        group,
        generation,
        output=f"{plan.results}/{kind.output.format(**wildcards)}",
        log=f"{plan.results}/logs/{kind.log.format(**wildcards)}.log",
        lease=kind.lease.format(**wildcards) if kind.lease else None,
    )


def _trained(plan: Plan) -> list[tuple[str, int | None, str, int]]:
    """Return (group, generation, place, members) of all founder pools and later generations."""
    pools = [
        (f"founders {pool}", None, f"founders/{pool}", size)
        for pool, size in plan.pool_sizes.items()
    ]
    return pools + [
        (name, g, place_of(plan, name, g), experiment["population"])
        for name, experiment in plan.config["experiments"].items()
        for g in range(1, experiment["generations"])
    ]


def _scored(plan: Plan) -> set[str]:
    """Return the evaluated founder pools: not those that only provide a pretrained model."""
    return {f"founders/{e['founders']}" for e in plan.config["experiments"].values()}


def _measured(plan: Plan) -> list[tuple[str, int]]:
    """Return (place, member) of every model that is evaluated."""
    scored = _scored(plan)
    return [
        (place, m)
        for _, generation, place, size in _trained(plan)
        for m in range(size)
        if generation is not None or place in scored
    ] + [(f"base/{model}", 0) for model in plan.bases]


def _members(plan: Plan) -> Iterator[Work]:
    scored = _scored(plan)
    for group, generation, place, size in _trained(plan):
        train = "train_founder" if generation is None else "train_child"
        rules = [train]
        if generation is not None or place in scored:
            rules.append("evaluate_member")
            if plan.config["evaluate"]["quality"]:
                rules.append("measure_quality")
        for m in range(size):
            for rule in rules:
                yield _work(plan, rule, group, generation, place=place, member=m)
    for model in plan.bases:
        yield _work(plan, "evaluate_member", f"base {model}", place=f"base/{model}", member=0)


def _generations(plan: Plan) -> Iterator[Work]:
    compared = set(outputs.disagreements(plan))
    for name, experiment in plan.config["experiments"].items():
        for g in range(experiment["generations"]):
            here = {"experiment": name, "gen": g}
            folder = f"{plan.results}/{name}/gen{g}"
            if f"{folder}/disagreement.json" in compared:
                yield _work(plan, "measure_disagreement", name, g, **here)
            if layout.selects(plan, name):
                yield _work(plan, "select_parents", name, g, **here)
            for path in all_shards(plan, name, g):
                rank, shard = re.findall(r"synthetic(\d+)/shard(\d+)\.parquet$", path)[0]
                yield _work(plan, "generate_shard", name, g, **here, rank=rank, shard=shard)
            for path in parent_weights(plan, name, g):
                folder = Path(path).parent.name
                rule = "average_weights" if folder.startswith("soup") else "mutate_parent"
                number = re.sub(r"\D", "", folder)
                yield _work(plan, rule, name, g, **here, rank=number)
            last = g + 1 == experiment["generations"]
            members = () if last else range(experiment["population"])
            for m in members:
                if is_dealt(plan, name, g + 1):
                    yield _work(plan, "deal_pool", name, g, **here, member=m)
                elif is_mixed(plan, name, g + 1, m):
                    yield _work(plan, "mix_text", name, g, **here, member=m)
    for rule, paths in (
        ("prune_generation", pruning.prunings(plan)),
        ("prune_text", pruning.text_prunings(plan)),
    ):
        for path in paths:
            *_, name, folder, _ = path.split("/")
            g = int(folder.removeprefix("gen"))
            yield _work(plan, rule, name, g, experiment=name, gen=g)


def _theory_and_surveys(plan: Plan) -> Iterator[Work]:
    for table in ("recursion", "sensitivity", "bound") if plan.config["theory"] else ():
        yield _work(plan, "simulate", "theory", table=table)
    surveys = plan.config["fingerprint"]
    if any(survey["count"]["stopwords"] == "nltk" for survey in surveys.values()):
        yield _work(plan, "stage_stopwords", "preparation")
    for name, survey in surveys.items():
        group = f"fingerprint {name}"
        for part in survey_parts(plan, name):
            if survey["kind"] == "collect":
                yield _work(plan, "collect_outputs", group, survey=name, part=part)
            yield _work(plan, "count_fingerprints", group, survey=name, part=part)
        yield _work(plan, "compare_fingerprints", group, survey=name)
        if survey["kind"] == "population":
            yield _work(plan, "trace_inheritance", group, survey=name)
    yield from _drawn(plan, theory_files(plan) + fingerprint_files(plan))


def _semantics(plan: Plan) -> Iterator[Work]:
    if embedding.embedded(plan):
        if encoder_files(plan):
            yield _work(plan, "stage_encoder", "preparation")
        encoder = Path(embeddings_file(plan)).name.removesuffix(".embeddings.parquet")
        yield _work(plan, "embed_samples", "semantics", encoder=encoder)
        yield _work(plan, "compare_samples", "semantics")


def _figures(plan: Plan) -> Iterator[Work]:
    yield from _drawn(plan, report.report_files(plan))
    for path in paper_files(plan):
        if path.startswith(f"{plan.results}/paper/") and path.endswith(".csv"):
            yield _work(plan, "draw_target", "report", target=Path(path).stem)
    if landing_page(plan):
        yield _work(plan, "write_landing", "report")


def _drawn(plan: Plan, files: Iterable[str]) -> Iterator[Work]:
    for path in files:
        if path.startswith(f"{plan.results}/report/") and path.endswith(".csv"):
            yield _work(plan, "draw", "report", figure=Path(path).stem)


def _preparation(plan: Plan) -> Iterator[Work]:
    """Yield the jobs that prepare corpora, models, tokens and tasks."""
    made: dict[tuple, None] = {}
    for path in sorted(_prepared(plan)):
        folder, name, *parts = path.split("/")
        file = parts[-1] if parts else ""
        if folder == "tokens":
            made[
                "pack_tokens", ("model", name), ("corpus", parts[0]), ("split", Path(file).stem)
            ] = None
        elif folder == "segments":
            member = Path(file).stem.removeprefix("member")
            made["cut_segment", ("pool", name), ("member", member)] = None
        elif file == "overlap.json":
            made["check_overlap", ("corpus", name)] = None
        elif file == "vocabulary.parquet":
            made["count_vocabulary", ("corpus", name)] = None
        elif folder == "staged":
            made["stage_corpus", ("corpus", Path(name).stem)] = None
        elif folder in PREPARED:
            rule, wildcard = PREPARED[folder]
            made[rule, (wildcard, name)] = None
    for rule, *wildcards in made:
        yield _work(plan, rule, "preparation", **dict(wildcards))
    if plan.used_pools:
        yield _work(plan, "preflight", "preparation")


PREPARED = {  # folder of a run -> the rule that makes its files, and its wildcard
    "corpora": ("build_corpus", "corpus"),
    "models": ("prepare_model", "model"),
    "tasks": ("stage_task", "task"),
    "requests": ("build_requests", "model"),
}


def _prepared(plan: Plan) -> set[str]:
    """Return the paths below results/{run}/ of all files that no member makes."""
    base = f"{plan.results}/"
    needed = {path.removeprefix(base) for path in _needed(plan) if path.startswith(base)}
    needed |= {
        segment_source(plan, pool, m).removeprefix(base)
        for pool, size in plan.pool_sizes.items()
        for m in range(size)
    }
    needed |= {
        f"corpora/{path.split('/')[2]}/train.parquet"
        for path in needed
        if path.startswith("tokens/")
    }
    for folder, sources in (
        ("models", tokenizer_corpus),
        ("corpora", corpus_sources),
        ("corpora", removed_questions),
        ("tasks", task_sources),
    ):
        for name in {path.split("/")[1] for path in needed if path.startswith(f"{folder}/")}:
            paths = sources(plan, name)
            needed |= {path.removeprefix(base) for path in paths if path.startswith(base)}
    return needed


def held_out_splits(plan: Plan) -> list[tuple[str, str]]:
    """Return (corpus, split) of the validation text, test text and prompts that the run reads."""
    found = set()
    for path in _needed(plan):
        *_, folder, file = path.split("/")
        split = file.split(".")[0]
        if split in ("validation", "test", "prompts") and file.endswith((".parquet", ".bin")):
            found.add((folder, split))
    return sorted(found)


def _needed(plan: Plan) -> set[str]:
    """Return the inputs of the jobs of members and figures."""
    needed: set[str] = set()

    def add(inputs: dict[str, list[str]], *names: str) -> None:
        needed.update(path for name in names or inputs for path in inputs.get(name, []))

    for name, experiment in plan.config["experiments"].items():
        for g in range(experiment["generations"]):
            for rank in writers(plan, name, g):
                add(prompt_inputs(plan, name, g, rank))
            for m in range(experiment["population"]) if g else ():
                add(child_inputs(plan, name, g, m), "validation", "segment", "human")
    for pool, size in plan.pool_sizes.items():
        for m in range(size):
            add(founder_inputs(plan, pool, m))
            needed.add(f"{layout.blueprint(plan, f'founders/{pool}', m)}/tokenizer.json")
    for place, m in _measured(plan):
        add(evaluation_inputs(plan, place, m))
        if plan.config["evaluate"]["quality"] and not place.startswith("base/"):
            inputs = quality_inputs(plan, place, m)
            add(inputs, "world", "held_out", "train", "reference", "prompts")
    for path in outputs.disagreements(plan):
        name, folder = path.split("/")[-3:-1]
        add(disagreement_inputs(plan, name, int(folder.removeprefix("gen"))), "text")
    for path in pruning.text_prunings(plan):
        *_, name, folder, _ = path.split("/")
        done = pruning.text_pruning_inputs(plan, name, int(folder.removeprefix("gen")))
        needed.update(path for path in done if path.startswith(f"{plan.results}/corpora/"))
    for figure in ("continuations", "degeneration"):
        needed.update(vocabularies(plan, shown_in(plan, figure)))
    return needed
