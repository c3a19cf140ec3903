"""Measure effective data quality (study B, equation 7) for one training.

It is the distance of the training text from the truth, minus the distance of the model before
training. quality.json also holds the change of the model's loss. docs/quality.md explains the
distances.

In a microworld the truth is its grammar. The truth of real text is unknown. A *proxy* replaces it:
the total variation of token bigrams from those of held-out human text, for samples of equal size.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pollination.core import artifacts, resume
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.core.statistics import bootstrap_mean_interval
from pollination.data.corpora import prompts as corpus_prompts
from pollination.data.encoding import encode
from pollination.data.microworld import World
from pollination.data.special import special_tokens
from pollination.data.tokens import TokenBlocks
from pollination.evaluation.grammar import Counts, Grammar
from pollination.evaluation.member import score_text, word_scorer
from pollination.evolution import children
from pollination.evolution.reading import Training, training_of, training_rows
from pollination.models import checkpoint
from pollination.models.completion import continue_prompts
from pollination.models.inference import begin
from pollination.models.limits import context_limit

PROXY_TOKENS = 16_384  # tokens per text in a proxy
# (token ids, index of the first that counts, whether they begin with a text)
Rows = list[tuple[list[int], int, bool]]


def measure(job: Job) -> None:
    """Write the quality.json of one training, of a founder or a child."""
    training = training_of(job)
    work = job.claim("quality", job.key(training.seed), at_once=True)
    if work is not None:
        with resume.saving(work, job.stop, job.log):
            _measure(job, training)


def _measure(job: Job, training: Training) -> None:
    blueprint, folder = job.file("blueprint").parent, job.file("after").parent
    asked = job.params.get("precision", "auto")
    inference = begin(job, "evaluate.precision", asked, [blueprint, folder])
    tokenizer = checkpoint.load_tokenizer(blueprint)
    before = resume.name(inference.placed(children.start(job, training.seed)), "before")
    after = resume.name(inference.model(folder), "after")
    read = training_text(training, tokenizer)
    world = None
    if job.files("world"):
        world = World.from_json(artifacts.read_json(job.file("world")))
        result = {"kind": "truth"} | from_truth(Grammar(world), read, before, after, tokenizer, job)
    else:
        rows = [row for rows, _ in read for row in rows]
        result = {"kind": "proxy"} | proxy(rows, before, after, tokenizer, job, training.seed)
    result["performance"] = performance(before, after, tokenizer, world, job)
    artifacts.write_json(job.output.quality, result)


def training_text(training: Training, tokenizer) -> list[tuple[Rows, float]]:
    """Return the text of a training: lists of rows, each with the share that the training reads."""
    parts = training_rows(training, tokenizer)
    return [([(*row, begins) for row in rows], share) for rows, begins, share in parts]


def from_truth(
    grammar: Grammar, read: list[tuple[Rows, float]], before, after, tokenizer, job: Job
) -> dict:
    """Return the distances of text and models from the grammar of a microworld."""
    eos, special = tokenizer.eos_token, special_tokens(tokenizer)

    def decode_words(ids: list[int]) -> list[str]:
        text = tokenizer.decode(special.text(ids), clean_up_tokenization_spaces=False)
        return text.replace(eos, f" {eos} ").split()

    def decode_rows(rows: Rows) -> Iterator[tuple[list[str], int, bool]]:
        for ids, first, known in rows:
            opening = decode_words(ids[:first])
            yield opening + decode_words(ids[first:]), len(opening), known

    def model_distances(model) -> dict[str, float]:
        scorer = word_scorer(model, tokenizer, job.params.batch_size)
        return grammar.distances(grammar.of_model(scorer))

    parts: list[Counts] = [share * grammar.read(decode_rows(rows), eos) for rows, share in read]
    counts = sum(parts[1:], parts[0])
    first_words = list(grammar.children[0].values())
    sentences = counts.edges[first_words].sum() + counts.outside[0]  # begun, complete or not
    text = grammar.distances(grammar.of_text(counts))
    floor = grammar.floor(max(1, round(sentences)), derive_seed(job.params.seed, "floor"))
    sides = {"text": text, "before": model_distances(before), "after": model_distances(after)}
    distances = {
        key: _distance(text[key], floor[key], sides["before"][key], sides["after"][key])
        for key in ("sentences", "next_token")
    }
    outside = {name: side["outside"] for name, side in sides.items()}
    return {"distances": distances, "outside": outside, "sentences": float(sentences)}


def proxy(rows: Rows, before, after, tokenizer, job: Job, seed: int) -> dict:
    """Return the distances of bigrams from held-out human text; models sample at temperature 1."""
    train, special = TokenBlocks(job.file("train")), special_tokens(tokenizer)
    context = context_limit(before.config) or train.context_tokens
    settings: dict[str, Any] = {
        "decoding": "sample",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "num_beams": 5,
        "repetition_penalty": 1.0,
        "max_new_tokens": context // 2,
        "min_new_tokens": context // 2,
        "batch_size": job.params.batch_size,
    }
    prompts = corpus_prompts(job.file("prompts").parent, 1)
    count = -(-PROXY_TOKENS // settings["max_new_tokens"])

    def written(model) -> list[list[int]]:
        chosen = [prompts[i % len(prompts)] for i in range(count)]
        table = continue_prompts(model, tokenizer, chosen, settings, derive_seed(seed, "proxy"))
        return [ids.tolist() for ids in encode(table.completion, tokenizer)]

    rng = np.random.default_rng(derive_seed(job.params.seed, "proxy"))

    def shuffled(values: list) -> list:
        return [values[i] for i in rng.permutation(len(values))]

    human_blocks = -(-PROXY_TOKENS // train.context_tokens)
    human = train.blocks(rng.permutation(len(train))[:human_blocks]).tolist()
    sides = {
        "text": shuffled([special.text(ids[first:]) for ids, first, _ in rows]),
        "human": [special.text(ids) for ids in human],
        "before": written(before),
        "after": written(after),
    }
    tokens = min(PROXY_TOKENS, *(sum(map(len, side)) for side in sides.values()))
    held_out = map(special.text, TokenBlocks(job.file("reference")).tokens_NT.tolist())
    reference = bigrams(held_out, None)
    tv = {name: total_variation(bigrams(side, tokens), reference) for name, side in sides.items()}
    distance = _distance(tv["text"], (tv["human"], 0.0), tv["before"], tv["after"])
    return {"distances": {"bigrams": distance}, "tokens": tokens}


def _distance(text: float, floor: tuple[float, float], before: float, after: float) -> dict:
    """Return the distances; delta = text - model before training (equation 7).

    `floor` is the mean and standard deviation of the distance of true text.
    """
    return {
        "text": text,
        "text_floor": floor[0],
        "text_floor_sd": floor[1],
        "before": before,
        "after": after,
        "delta": text - before,
        "delta_corrected": text - floor[0] - before,
    }


def bigrams(rows, tokens: int | None) -> dict[int, float]:
    """Return the shares of adjacent token pairs in the first `tokens` tokens of rows (None: all).

    The key of a pair (a, b) is a << 32 | b.
    """
    left, pairs = float("inf") if tokens is None else tokens, []
    for row in rows:
        ids = np.asarray(row[: int(min(left, len(row)))], dtype=np.int64)
        pairs.append(ids[:-1] << 32 | ids[1:])
        left -= len(ids)
        if left <= 0:
            break
    keys, counts = np.unique(np.concatenate(pairs), return_counts=True)
    return dict(zip(keys.tolist(), (counts / counts.sum()).tolist(), strict=True))


def total_variation(p: dict[int, float], q: dict[int, float]) -> float:
    return sum(abs(p.get(key, 0.0) - q.get(key, 0.0)) for key in p.keys() | q.keys()) / 2


def performance(before, after, tokenizer, world: World | None, job: Job) -> dict:
    """Return the loss on held-out human text before and after training, in nats per token.

    A change above zero means that the training did harm.
    """
    entry, path = job.params.entry, job.file("held_out")
    frames = [
        score_text(m, tokenizer, entry, job.params.sequences, path, world, job.params.batch_size)
        for m in (before, after)
    ]
    tokens, losses = frames[0].tokens.to_numpy(float), [frame.nll.to_numpy() for frame in frames]
    change = bootstrap_mean_interval(
        losses[1] - losses[0], derive_seed(job.params.seed, "change"), 1000, weights=tokens
    )
    result = {"change": change["mean"], "change_stderr": change["stderr"]}
    for name, nll, frame in zip(("before", "after"), losses, frames, strict=True):
        result[f"nll_per_token_{name}"] = float(nll.sum() / tokens.sum())
        if world is not None:
            excess = (nll - frame.truth_nll).sum()
            result[f"excess_nats_per_token_{name}"] = float(excess / tokens.sum())
    return result
