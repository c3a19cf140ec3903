"""List the files that the measures of a model read: benchmarks, held-out text and others."""

from pollination.core import userfile
from pollination.core.settings import definition, lean
from pollination.plan.config.userfiles import code_digests
from pollination.plan.config.values import OWN, SEGMENT, is_held_out, listed
from pollination.plan.corpora import joined_corpora, kind_of
from pollination.plan.inputs import (
    child_inputs,
    founder_inputs,
    packed,
    prompts,
    read_corpora,
    sample_corpus,
)
from pollination.plan.job_kinds import ORDER
from pollination.plan.layout import (
    corpus_of,
    member_files,
    model_files,
    model_of,
    place_of,
    segment_file,
)
from pollination.plan.plan import Plan

BESIDE = ("perplexity", "disagreement", "quality", "semantics", "precision")
"""Keys of `evaluate` that a member's evaluation does not take over unchanged."""


def measures(plan: Plan, place: str, member: int) -> dict:
    """Return `evaluate` for one member.

    Entries for other generations or founders are left out. An untouched pretrained model keeps the
    entries of all founders that start from it, except segments, because it has read none. `own`
    becomes the member's corpus; `name` is the corpus name in the scores.
    """
    kind, name = place.split("/")
    generation = {"base": -1, "founders": 0}.get(kind)
    generation = int(name.removeprefix("gen")) if generation is None else generation
    pools = (
        {name}
        if kind == "founders"
        else {p for p, pool in plan.used_pools.items() if name in listed(pool["model"])}
    )
    pools = {plan.experiment(kind)["founders"]} if generation > 0 else pools
    kept = []
    for entry in plan.config["evaluate"]["perplexity"]:
        generations, founders = entry["generations"], entry["founders"]
        if kind == "base" and entry["split"] == SEGMENT:
            continue
        if (generations is None or generation in generations) and (
            founders is None or pools & set(founders)
        ):
            corpus = corpus_of(plan, place, member) if entry["corpus"] == OWN else entry["corpus"]
            text = {key: entry[key] for key in ("split", "sequences", "max_tokens")}
            kept.append(text | {"corpus": corpus, "name": entry["corpus"]})
    shared = {k: value for k, value in plan.config["evaluate"].items() if k not in BESIDE}
    if own := shared["measures"].values():
        shared["code"] = code_digests(userfile.split(text)[0] for text in own)
    return lean(shared | {"perplexity": kept}, definition("evaluate"))


def precision(plan: Plan) -> dict[str, str]:
    """Return the param of the jobs that score models; none at the default, as before the key."""
    asked = plan.config["evaluate"]["precision"]
    return {} if asked == "auto" else {"precision": asked}


def evaluation_inputs(plan: Plan, place: str, member: int) -> dict[str, list[str]]:
    """Return the inputs of a member's evaluation, by kind."""
    text = [
        measured_text(plan, place, member, entry)
        for entry in measures(plan, place, member)["perplexity"]
    ]
    own = plan.config["evaluate"]["measures"].values()
    return {
        "tasks": staged_tasks(plan),
        "requests": requests(plan, model_of(plan, place, member)),
        "text": text,
        "worlds": [
            f"{plan.results}/corpora/{c}/world.json" for c in measured_worlds(plan, place, member)
        ],
        "prompts": [prompts(plan, sample_corpus(plan, place, member))],
        "overlap": [
            f"{plan.results}/corpora/{corpus}/overlap.json"
            for corpus in read_corpora(plan, place, member)
        ],
        "measures": list(dict.fromkeys(userfile.split(text)[0] for text in own)),
    }


def evaluated_model(plan: Plan, place: str, member: int) -> dict[str, str | list[str]]:
    weights, *others = model_files(plan, place, member)
    return {"weights": weights, "model": others}


def preflight_before(plan: Plan, place: str) -> str | list[str]:
    """Return the file that sets the order of jobs, for a model that no job of the run trains."""
    return f"{plan.results}/{ORDER}" if place.startswith("base/") else []


def test_corpora(
    plan: Plan, name: str, member: int, corpus: str, split: str
) -> list[tuple[str, str]]:
    """Return (corpus, its name in the scores) of each text that a member's `corpus` stands for.

    `own` stands for the member's corpus; if that is a union, for each corpus that it joins, so that
    none of them counts more because it is longer. A segment is one text of the member's founder.
    """
    if corpus != OWN:
        return [(corpus, corpus)]
    own = corpus_of(plan, place_of(plan, name, 0), member)
    parts = () if split == SEGMENT else joined_corpora(plan.config.get("corpora", {}), own)
    return [(part, part) for part in parts] or [(own, OWN)]


def measured_sequences(plan: Plan, place: str, member: int) -> list[str]:
    """Return how the text of each perplexity entry of a member is cut, in order."""
    return [sequences(plan, entry) for entry in measures(plan, place, member)["perplexity"]]


def staged_tasks(plan: Plan) -> list[str]:
    return [f"{plan.results}/tasks/{task}/task.json" for task in sorted(plan.config["tasks"])]


def requests(plan: Plan, model: str) -> list[str]:
    """Return the tokenised benchmark requests of a model; one job makes them for all members."""
    return [
        f"{plan.results}/requests/{model}/{task}.parquet" for task in sorted(plan.config["tasks"])
    ]


def sequences(plan: Plan, entry: dict) -> str:
    """Return how the text of an entry is cut: documents or blocks.

    A microworld is scored by documents, because only then the true likelihood of every token is
    known. A segment consists of blocks, also in a microworld.
    """
    if entry["split"] == SEGMENT:
        return "blocks"
    return "documents" if kind_of(plan, entry["corpus"]).world else entry["sequences"]


def measured_text(plan: Plan, place: str, member: int, entry: dict) -> str:
    """Return the text of an entry of `evaluate` as a model reads it: packed blocks or documents."""
    if entry["split"] == SEGMENT:
        return segment_file(plan, place, member)
    if sequences(plan, entry) == "blocks":
        model = model_of(plan, place, member)
        return f"{plan.results}/tokens/{model}/{entry['corpus']}/{entry['split']}.bin"
    return f"{plan.results}/corpora/{entry['corpus']}/{entry['split']}.parquet"


def disagreement_inputs(plan: Plan, name: str, generation: int) -> dict[str, list[str]]:
    """Return weights, tokenizer and text by slot; only members that read the same are compared."""
    files = {
        "weights": "model.safetensors",
        "configs": "config.json",
        "tokenizers": "tokenizer.json",
    }
    inputs = {key: member_files(plan, name, generation, file) for key, file in files.items()}
    place, entry = place_of(plan, name, generation), plan.config["evaluate"]["disagreement"]
    return inputs | {
        "text": [
            measured_text(plan, place, m, entry) for m in range(plan.experiment(name)["population"])
        ]
    }


def quality_entry(plan: Plan, place: str, member: int) -> dict:
    """Return the held-out text that measures the effect of a training.

    It is the first entry of `evaluate.perplexity` on held-out text of the training's corpus.
    """
    entries = [
        entry
        for entry in plan.config["evaluate"]["perplexity"]
        if entry["corpus"] in (OWN, corpus_of(plan, place, member)) and is_held_out(entry)
    ]
    entry = entries[0] | {"corpus": corpus_of(plan, place, member)}
    return lean(entry, definition("perplexity"))


def quality_sequences(plan: Plan, place: str, member: int) -> str:
    return sequences(plan, quality_entry(plan, place, member))


def quality_inputs(plan: Plan, place: str, member: int) -> dict[str, list[str]]:
    """Return what a training read and started from, held-out text, and the truth.

    The truth is the grammar of a microworld. For other corpora, human text is a proxy.
    """
    first, second = place.split("/")
    corpus = corpus_of(plan, place, member)
    inputs = (
        founder_inputs(plan, second, member)
        if first == "founders"
        else child_inputs(plan, first, int(second.removeprefix("gen")), member)
    )
    inputs = {key: paths for key, paths in inputs.items() if key != "validation"}
    inputs["held_out"] = [measured_text(plan, place, member, quality_entry(plan, place, member))]
    if kind_of(plan, corpus).world:
        return inputs | {"world": [f"{plan.results}/corpora/{corpus}/world.json"]}
    human = {
        "train": [packed(plan, place, member)],
        "reference": [packed(plan, place, member, "test")],
    }
    return inputs | human | {"prompts": [prompts(plan, corpus)]}


def disagreement_sequences(plan: Plan) -> str | None:
    entry = plan.config["evaluate"]["disagreement"]
    return sequences(plan, entry) if entry else None


def measured_worlds(plan: Plan, place: str, member: int) -> list[str]:
    named = dict.fromkeys(entry["corpus"] for entry in measures(plan, place, member)["perplexity"])
    return [name for name in named if kind_of(plan, name).world]
