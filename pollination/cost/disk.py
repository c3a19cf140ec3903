"""Bytes on disk by kind of artifact. Weights and ids are exact; text and tables by what was measured on artifacts of this project.

Second names of finished files (pollination/lease.py) take no space. What is in progress comes on top while it runs: three times the weights and
the packed text of each training job.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from pollination.checks import listed
from pollination.cost.shapes import published
from pollination.cost.work import Load, Loads, pretrained
from pollination.workflow import Plan

WEIGHTS_BYTES = 4  # fp32
SKIPPED = ("logs", "benchmarks")
PLACES = (  # where an artifact lies says what kind it is
    (r"run\.json$", "records"),
    (r"/parent\d+/", "weights of parents"),
    (r"/models/.*\.safetensors$", "pretrained weights"),
    (r"\.safetensors$", "weights of members"),
    (r"/synthetic\d+/", "synthetic text"),
    (r"/deal\d+/", "dealt text"),
    (r"/(corpora|staged)/", "corpora"),
    (r"/tokens/", "packed tokens"),
    (
        r"/member\d+/(scores|answers|sequences|facts|samples|quality)\.|/disagreement\.|/selection\.|/(tasks|requests)/",
        "scores and samples",
    ),
    (r"/report/|^/claims.json$|^/(semantics|fingerprint|theory|paper)/", "report"),
    (r"/member\d+/|/models/", "tokenizers and settings"),
    (r"", "other"),
)


def disk(loads: Loads, every: list[Load]) -> dict[str, float]:
    """Kind of artifact -> bytes."""
    plan, texts, size = loads.plan, loads.texts, published()["disk"]
    found = dict.fromkeys(("weights of members", "weights of parents", "pretrained weights", "synthetic text", "dealt text"), 0.0)
    found |= dict.fromkeys(("corpora", "packed tokens", "scores and samples", "tokenizers and settings", "records", "report"), 0.0)
    records, kept = 0, _kept(plan)
    for load in every:
        work, parts = load.work, load.work.output.removeprefix(f"{plan.results}/").split("/")
        records += 1
        if work.stage == "train":
            shape = loads.shape(load.model)
            found["weights of members"] += WEIGHTS_BYTES * shape.parameters * kept.get(work.output, 1.0)
            found["tokenizers and settings"] += (
                size["model_files"] + size["training_log"] * _logged(loads, parts) + _tokenizer(loads, load.model)
            )
        elif work.stage == "evaluate":
            place, member = f"{parts[0]}/{parts[1]}", int(parts[2].removeprefix("member"))
            found["scores and samples"] += _scores(loads, place, member)
        elif work.stage == "mutate" and plan.keeps == "all":
            found["weights of parents"] += WEIGHTS_BYTES * loads.shape(plan.model(plan.place(work.group, work.generation), 0)).parameters
        elif work.stage == "write":
            shards = plan.experiment(work.group)["generate"]["shards"]
            rank = int(parts[2].removeprefix("synthetic"))
            found["synthetic text"] += sum(texts.written(work.group, work.generation, rank)) / shards * size["shard_bytes_per_token"]
            found["synthetic text"] += size["small_table"] / 4
        elif work.stage == "deal":
            source = plan.experiment(work.group)["text_of"] or work.group
            total = sum(sum(texts.written(source, work.generation, rank)) for rank in range(plan.k(source)))
            found["dealt text"] += total / plan.experiment(work.group)["population"] * size["dealt_bytes_per_token"]
        elif work.stage == "pack":
            width = 2 if not loads.shape(parts[1]).vocabulary > 2**16 else 4
            found["packed tokens"] += texts.corpus(parts[2])[parts[3].split(".")[0]] * width
        elif work.stage in ("corpora", "fetch") and parts[1].removesuffix(".parquet") in plan.config["corpora"]:
            corpus = parts[1].removesuffix(".parquet")
            found["corpora"] += _text(loads, corpus)
        elif work.stage == "draw":
            found["report"] += size["figure"]
    found["pretrained weights"] = sum(WEIGHTS_BYTES * loads.shape(model).parameters for model in pretrained(plan))
    found["tokenizers and settings"] += sum(
        _tokenizer(loads, model) for model in {m for pool in plan.used_pools.values() for m in listed(pool["model"])}
    )
    found["records"] = records * size["record"]
    return found


def _kept(plan: Plan) -> dict[str, float]:
    """Weights that may be deleted (config key `keep`) -> the share of them that stays: under `parents`, k of n."""
    found = {}
    for path in plan.prunings():
        *_, name, generation, _ = path.split("/")
        share = plan.k(name) / plan.experiment(name)["population"] if plan.keeps == "parents" else 0.0
        found |= dict.fromkeys(plan.prunable(name, int(generation.removeprefix("gen"))), share)
    return found


def on_disk(results: str | Path) -> dict[str, float]:
    """Kind of artifact -> bytes that really lie there, by the same kinds; second names, logs and timings are left out."""
    found: dict[str, float] = {}
    for folder, folders, names in os.walk(results):
        folders[:] = [name for name in folders if not name.startswith(".") and not (Path(folder) == Path(results) and name in SKIPPED)]
        place = Path(folder).relative_to(results).as_posix() + "/"
        for name in names:
            kind = next(kind for pattern, kind in PLACES if re.search(pattern, f"/{place}{name}".replace("/./", "/")))
            with suppress(FileNotFoundError):  # renamed or pruned by another job at this moment
                found[kind] = found.get(kind, 0.0) + os.path.getsize(Path(folder, name))
    return found


def _text(loads: Loads, corpus: str) -> float:
    """Of one copy: a microworld's text is a third as long a token on disk, and its benchmarks and grammar come with it."""
    size, tokens = published()["disk"], sum(loads.texts.corpus(corpus).values())
    if corpus in loads.texts.worlds:
        return tokens * size["world_bytes_per_token"] + 120 * len(loads.texts.worlds[corpus].sentences)
    return tokens * published()["text"]["characters_per_token"] * size["text_bytes_per_character"]


def _logged(loads: Loads, parts: list[str]) -> float:
    """Share of a long training's log that a training has: a line a step, about 200 at most."""
    first, second, third = parts[0], parts[1], int(parts[2].removeprefix("member"))
    founder = first == "founders"
    train = loads.plan.config["founders"][second]["train"] if founder else loads.plan.experiment(first)["train"]
    tokens = loads.texts.segment(second, third) if founder else loads.texts.child(first, int(second.removeprefix("gen")), third)
    steps = train["epochs"] * tokens / loads.texts.context(f"{first}/{second}", third) / train["batch_sequences"]
    return min(1.0, max(1.0, steps) / 200) if steps == steps else 1.0


def _tokenizer(loads: Loads, model: str) -> float:
    vocabulary = loads.shape(model).vocabulary
    kind = (loads.plan.config["models"][model]["tokenizer"] or {}).get("kind")
    return vocabulary * published()["disk"]["word_tokenizer_bytes_per_token" if kind == "word" else "tokenizer_bytes_per_token"]


def _scores(loads: Loads, place: str, member: int) -> float:
    plan, size = loads.plan, published()["disk"]
    questions = sum(loads.asked(task) for task in plan.config["tasks"])
    context, sequences = loads.texts.context(place, member), 0.0
    for entry in plan.measures(place, member)["perplexity"]:
        length = loads.texts.document(entry["corpus"]) if plan.sequences(entry) == "documents" else context
        sequences += loads.held_out(entry) / length
    samples = plan.config["evaluate"]["samples"]["prompts"] * size["sample"]
    facts = sum(size["fact"] * len(loads.texts.worlds[name].facts) for name in plan.measured_worlds(place, member))
    return size["scores"] + 3 * size["small_table"] / 4 + questions * size["answer"] + sequences * size["sequence"] + samples + facts
