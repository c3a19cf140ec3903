"""List the properties of each rule's jobs: stage, paths, lease, GPU.

A new rule needs an entry here, and its jobs in pollination/plan/jobs.py.
"""

import re
from dataclasses import dataclass

TEXTS, BENCHMARKS, OTHER = "prepare text and tokens", "stage benchmarks", "other"
DRAW = "draw the report"


@dataclass(frozen=True)
class JobKind:
    """The properties of one rule's jobs. Paths are templates with wildcards."""

    rule: str
    stage: str
    """Its name in `pollination status`."""
    activity: str
    """Its name in the figure of costs."""
    output: str
    """The file below results/{run}/ that exists once the job is done."""
    log: str
    """The path of its log below logs/ and its timings below benchmarks/, without endings."""
    lease: str | None = None
    """Its work folder beside the output, if the job takes a lease."""
    gpu: bool = False
    """Whether the rule asks for a GPU."""


ORDER = "staged/complete"  # only sets the order of jobs, so no record names it
MEMBER, GENERATION = "{place}/member{member}", "{experiment}/gen{gen}"
SHARD = f"{GENERATION}/synthetic{{rank}}/shard{{shard}}"
SURVEY = "fingerprint/{survey}"
KINDS = {
    kind.rule: kind
    for kind in (
        JobKind(
            "stage_corpus",
            "fetch",
            TEXTS,
            "staged/{corpus}.parquet",
            "staged/{corpus}",
            ".{corpus}.work",
        ),
        JobKind("build_corpus", "corpora", TEXTS, "corpora/{corpus}/run.json", "corpora/{corpus}"),
        JobKind("prepare_model", "models", TEXTS, "models/{model}/run.json", "models/{model}"),
        JobKind("stage_task", "tasks", BENCHMARKS, "tasks/{task}/task.json", "tasks/{task}"),
        JobKind(
            "build_requests",
            "requests",
            BENCHMARKS,
            "requests/{model}/run.json",
            "requests/{model}",
        ),
        JobKind(
            "pack_tokens",
            "pack",
            TEXTS,
            "tokens/{model}/{corpus}/{split}.bin",
            "tokens/{model}.{corpus}.{split}",
        ),
        JobKind(
            "cut_segment",
            "segment",
            TEXTS,
            "segments/{pool}/member{member}.bin",
            "segments/{pool}/member{member}",
        ),
        JobKind(
            "check_overlap",
            "overlap",
            TEXTS,
            "corpora/{corpus}/overlap.json",
            "corpora/{corpus}.overlap",
        ),
        JobKind(
            "count_vocabulary",
            "count words",
            TEXTS,
            "corpora/{corpus}/vocabulary.parquet",
            "corpora/{corpus}.vocabulary",
        ),
        JobKind("preflight", "preflight", OTHER, ORDER, "preflight", gpu=True),
        JobKind(
            "train_founder",
            "train",
            "train a model",
            f"{MEMBER}/model.safetensors",
            f"{MEMBER}/train",
            ".train.work",
            gpu=True,
        ),
        JobKind(
            "train_child",
            "train",
            "train a model",
            f"{MEMBER}/model.safetensors",
            f"{MEMBER}/train",
            ".train.work",
            gpu=True,
        ),
        JobKind(
            "evaluate_member",
            "evaluate",
            "evaluate a model",
            f"{MEMBER}/scores.json",
            f"{MEMBER}/evaluate",
            ".evaluate.work",
            gpu=True,
        ),
        JobKind(
            "measure_quality",
            "quality",
            "measure data quality",
            f"{MEMBER}/quality.json",
            f"{MEMBER}/quality",
            ".quality.work",
            gpu=True,
        ),
        JobKind(
            "measure_disagreement",
            "compare",
            "compare members",
            f"{GENERATION}/disagreement.json",
            f"{GENERATION}/disagreement",
            ".disagreement.work",
            gpu=True,
        ),
        JobKind(
            "select_parents",
            "select",
            "select parents",
            f"{GENERATION}/selection.json",
            f"{GENERATION}/select",
        ),
        JobKind(
            "generate_shard",
            "write",
            "write synthetic text",
            f"{SHARD}.parquet",
            SHARD,
            ".shard{shard}.work",
            gpu=True,
        ),
        JobKind(
            "mutate_parent",
            "mutate",
            "mutate a parent",
            f"{GENERATION}/parent{{rank}}/model.safetensors",
            f"{GENERATION}/parent{{rank}}/mutate",
        ),
        JobKind(
            "average_weights",
            "average",
            "average parents",
            f"{GENERATION}/soup{{rank}}/model.safetensors",
            f"{GENERATION}/soup{{rank}}/average",
        ),
        JobKind(
            "deal_pool",
            "deal",
            "deal the pool",
            f"{GENERATION}/deal{{member}}/text.parquet",
            f"{GENERATION}/deal{{member}}/deal",
        ),
        JobKind(
            "mix_text",
            "deal",
            "mix text",
            f"{GENERATION}/mix{{member}}/text.parquet",
            f"{GENERATION}/mix{{member}}/mix",
        ),
        JobKind(
            "prune_generation", "prune", OTHER, f"{GENERATION}/pruned.json", f"{GENERATION}/prune"
        ),
        JobKind(
            "prune_text",
            "prune text",
            OTHER,
            f"{GENERATION}/pruned_text.json",
            f"{GENERATION}/prune_text",
        ),
        JobKind("simulate", "simulate", OTHER, "theory/{table}.parquet", "theory/{table}"),
        JobKind("stage_stopwords", "fetch", OTHER, "staged/stopwords.txt", "staged/stopwords"),
        JobKind(
            "collect_outputs",
            "collect",
            OTHER,
            f"{SURVEY}/outputs/{{part}}.parquet",
            f"{SURVEY}/outputs/{{part}}",
        ),
        JobKind(
            "count_fingerprints",
            "count",
            OTHER,
            f"{SURVEY}/parts/{{part}}.json",
            f"{SURVEY}/{{part}}",
        ),
        JobKind(
            "compare_fingerprints",
            "compare",
            OTHER,
            f"{SURVEY}/statistics.json",
            f"{SURVEY}/compare",
        ),
        JobKind(
            "trace_inheritance",
            "descent",
            OTHER,
            f"{SURVEY}/inheritance.json",
            f"{SURVEY}/inheritance",
        ),
        JobKind(
            "stage_encoder", "fetch", OTHER, "semantics/encoder/config.json", "semantics/encoder"
        ),
        JobKind(
            "embed_samples",
            "embed",
            OTHER,
            "semantics/{encoder}.embeddings.parquet",
            "semantics/{encoder}.embeddings",
            ".embed.work",
        ),
        JobKind(
            "compare_samples",
            "compare",
            OTHER,
            "semantics/diversity.parquet",
            "semantics/diversity",
        ),
        JobKind("draw", "draw", DRAW, "report/{figure}.csv", "report/{figure}"),
        JobKind("draw_target", "draw", DRAW, "paper/{target}.csv", "paper/{target}"),
        JobKind("write_landing", "draw", DRAW, "report/index.html", "report/index"),
    )
}


def activity_of(timing: str) -> str:
    """Return the activity of a file of timings, given its path below benchmarks/."""
    for kind in KINDS.values():
        parts = re.split(r"\{(\w+)\}", kind.log)
        texts, wildcards = map(re.escape, parts[::2]), [*parts[1::2], ""]
        pattern = "".join(
            text + (".+" if name == "place" else "[^/]+" if name else "")
            for text, name in zip(texts, wildcards, strict=True)
        )
        if re.fullmatch(rf"{pattern}\.tsv", timing):
            return kind.activity
    return DRAW if timing == "config.tsv" else OTHER
