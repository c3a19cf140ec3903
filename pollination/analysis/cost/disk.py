"""Bytes on disk by kind of artifact.

Weights and ids are exact. Text and tables use sizes measured on artifacts of this project. Files
that `keep` deletes are left out, although they take space until their last reader is done. Hard
links to finished files (pollination/core/lease.py) take no space. A running training job takes
more: three times its weights, and its packed text.
"""

import math
import os
import re
from contextlib import suppress
from pathlib import Path

from pollination.analysis.cost.shapes import published
from pollination.analysis.cost.work import Load, Loads, pretrained, token_bytes
from pollination.plan import layout, measuring, pruning
from pollination.plan.config.values import listed
from pollination.plan.layout import model_of, place_of
from pollination.plan.measuring import measured_worlds
from pollination.plan.plan import Plan

WEIGHTS_BYTES = 4  # fp32
KINDS = (
    "weights of members",
    "weights of parents",
    "pretrained weights",
    "synthetic text",
    "dealt text",
    "corpora",
    "packed tokens",
    "scores and samples",
    "tokenizers and settings",
    "records",
    "report",
)
SKIPPED = ("logs", "benchmarks")
PLACES = (  # pattern of an artifact's path, its kind; the first match counts
    (r"run\.json$", "records"),
    (r"/(parent|soup)\d+/", "weights of parents"),
    (r"/models/.*\.safetensors$", "pretrained weights"),
    (r"\.safetensors$", "weights of members"),
    (r"/synthetic\d+/", "synthetic text"),
    (r"/(deal|mix)\d+/", "dealt text"),
    (r"/(corpora|staged)/", "corpora"),
    (r"/(tokens|segments)/", "packed tokens"),
    (
        (
            r"/member\d+/(scores|answers|sequences|facts|samples|quality)\."
            r"|/disagreement\.|/selection\.|/(tasks|requests)/"
        ),
        "scores and samples",
    ),
    (r"/report/|^/claims.json$|^/(semantics|fingerprint|theory|paper)/", "report"),
    (r"/member\d+/|/models/", "tokenizers and settings"),
    (r"", "other"),
)


def disk(loads: Loads, every: list[Load]) -> dict[str, float]:
    """Return kind of artifact -> bytes."""
    plan, texts, size = loads.plan, loads.texts, published()["disk"]
    by_kind = dict.fromkeys(KINDS, 0.0)
    records, kept = 0, _kept(plan)
    deleted = {  # (experiment, generation) whose text goes, because nothing reads it any more
        (parts[-3], int(parts[-2].removeprefix("gen")))
        for parts in (path.split("/") for path in pruning.text_prunings(plan))
    }
    for load in every:
        work, parts = load.work, load.work.output.removeprefix(f"{plan.results}/").split("/")
        generation = work.generation or 0
        records += 1
        if work.stage == "train" and load.model is not None:
            shape = loads.shape(load.model)
            weights = WEIGHTS_BYTES * shape.parameters * kept.get(work.output, 1.0)
            by_kind["weights of members"] += weights
            by_kind["tokenizers and settings"] += (
                size["model_files"]
                + size["training_log"] * _logged(loads, parts)
                + _tokenizer(loads, load.model)
            )
        elif work.stage == "evaluate":
            place, member = f"{parts[0]}/{parts[1]}", int(parts[2].removeprefix("member"))
            by_kind["scores and samples"] += _scores(loads, place, member)
        elif work.stage in ("mutate", "average") and pruning.keeps(plan) == "all":
            model = model_of(plan, place_of(plan, work.group, generation), 0)
            by_kind["weights of parents"] += WEIGHTS_BYTES * loads.shape(model).parameters
        elif work.stage in ("write", "deal") and (work.group, generation) in deleted:
            continue
        elif work.stage == "write":
            shards = plan.experiment(work.group)["generate"]["shards"]
            rank = int(parts[2].removeprefix("synthetic"))
            tokens = sum(texts.written(work.group, generation, rank)) / shards
            by_kind["synthetic text"] += tokens * size["shard_bytes_per_token"]
            by_kind["synthetic text"] += size["small_table"] / 4
        elif work.stage == "deal":
            total, count = texts.dealt(work.group, generation, parts[2])
            tokens = total / count
            by_kind["dealt text"] += tokens * size["dealt_bytes_per_token"]
        elif work.stage == "pack":
            tokens = texts.corpus(parts[2])[parts[3].split(".")[0]]
            by_kind["packed tokens"] += tokens * token_bytes(loads.shape(parts[1]))
        elif work.stage == "segment":
            place = f"founders/{parts[1]}"
            member = int(parts[2].removeprefix("member").removesuffix(".bin"))
            width = token_bytes(loads.shape(model_of(plan, place, member)))
            width += size["block_number"] / texts.context(place, member)
            by_kind["packed tokens"] += texts.segment(parts[1], member) * width
            by_kind["packed tokens"] += size["small_table"] / 4
        elif work.stage in ("corpora", "fetch"):
            corpus = parts[1].removesuffix(".parquet")
            if corpus in plan.config["corpora"]:
                by_kind["corpora"] += _text(loads, corpus)
        elif work.stage == "draw":
            by_kind["report"] += size["figure"]
    by_kind["pretrained weights"] = sum(
        WEIGHTS_BYTES * loads.shape(model).parameters for model in pretrained(plan)
    )
    by_kind["tokenizers and settings"] += sum(
        _tokenizer(loads, model)
        for model in {m for pool in plan.used_pools.values() for m in listed(pool["model"])}
    )
    by_kind["records"] = records * size["record"]
    return by_kind


def _kept(plan: Plan) -> dict[str, float]:
    """Return weights that `keep` may delete -> share that remains; `parents`: k of n."""
    shares: dict[str, float] = {}
    for path in pruning.prunings(plan):
        *_, name, generation, _ = path.split("/")
        share = 0.0
        if pruning.keeps(plan) == "parents":
            share = layout.k(plan, name) / plan.experiment(name)["population"]
        files = pruning.prunable(plan, name, int(generation.removeprefix("gen")))
        shares |= dict.fromkeys(files, share)
    return shares


def on_disk(results: str | Path) -> dict[str, float]:
    """Return kind of artifact -> bytes on disk, without hard links, logs and timings."""
    by_kind: dict[str, float] = {}
    for folder, folders, names in os.walk(results):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not (Path(folder) == Path(results) and name in SKIPPED)
        ]
        place = Path(folder).relative_to(results).as_posix() + "/"
        for name in names:
            kind = next(
                kind
                for pattern, kind in PLACES
                if re.search(pattern, f"/{place}{name}".replace("/./", "/"))
            )
            with suppress(FileNotFoundError):  # renamed or pruned by another job at this moment
                by_kind[kind] = by_kind.get(kind, 0.0) + os.path.getsize(Path(folder, name))
    return by_kind


def _text(loads: Loads, corpus: str) -> float:
    """Return the bytes of one copy.

    A microworld takes a third as many bytes per token, plus its benchmarks and grammar.
    """
    size, tokens = published()["disk"], sum(loads.texts.corpus(corpus).values())
    if corpus in loads.texts.worlds:
        sentences = loads.texts.worlds[corpus].sentences
        return tokens * size["world_bytes_per_token"] + 120 * len(sentences)
    return tokens * published()["text"]["characters_per_token"] * size["text_bytes_per_character"]


def _logged(loads: Loads, parts: list[str]) -> float:
    """Return a training log's size relative to a long one: a line per step, at most about 200."""
    first, second, member = parts[0], parts[1], int(parts[2].removeprefix("member"))
    if first == "founders":
        train = loads.plan.config["founders"][second]["train"]
        tokens = loads.texts.segment(second, member)
    else:
        train = loads.plan.experiment(first)["train"]
        tokens = loads.texts.child(first, int(second.removeprefix("gen")), member)
    context = loads.texts.context(f"{first}/{second}", member)
    steps = train["epochs"] * tokens / context / train["batch_size"]
    return 1.0 if math.isnan(steps) else min(1.0, max(1.0, steps) / 200)


def _tokenizer(loads: Loads, model: str) -> float:
    kind = (loads.plan.config["models"][model]["tokenizer"] or {}).get("kind")
    key = "word_tokenizer_bytes_per_token" if kind == "word" else "tokenizer_bytes_per_token"
    return loads.shape(model).vocabulary * published()["disk"][key]


def _scores(loads: Loads, place: str, member: int) -> float:
    plan, size = loads.plan, published()["disk"]
    questions = sum(loads.asked(task) for task in plan.config["tasks"])
    context, sequences = loads.texts.context(place, member), 0.0
    for entry in measuring.measures(plan, place, member)["perplexity"]:
        documents = measuring.sequences(plan, entry) == "documents"
        length = loads.texts.document(entry["corpus"]) if documents else context
        sequences += loads.measured(place, member, entry) / length
    samples = plan.config["evaluate"]["samples"]["num_prompts"] * size["sample"]
    facts = sum(
        size["fact"] * len(loads.texts.worlds[name].facts)
        for name in measured_worlds(plan, place, member)
    )
    return (
        size["scores"]
        + 3 * size["small_table"] / 4
        + questions * size["answer"]
        + sequences * size["sequence"]
        + samples
        + facts
    )
