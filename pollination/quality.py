"""Effective data quality (study B, equation 7) measured: how far the text of a training is from the truth, minus how far the model is
before it, beside what the training did to the model's loss. docs/quality.md says which distances, and why.

In a microworld the truth is its grammar. Of real text the truth is not known: there stands a *proxy*, the total variation
between bigrams of tokens and those of held-out human text, for samples of equal size.
"""

import numpy as np

from pollination import artifacts, members, models
from pollination.corpora import prompts as corpus_prompts
from pollination.corpora.microworld import World
from pollination.evaluation import score_text, word_scorer
from pollination.generation import continue_prompts
from pollination.grammar import Counts, Grammar
from pollination.job import Job
from pollination.seeds import derive_seed
from pollination.statistics import bootstrap_mean_interval
from pollination.tokens import TokenBlocks
from pollination.training import Subset, mix

PROXY_TOKENS = 16_384  # of each text that a proxy compares
Rows = list[tuple[list[int], int, bool]]  # (token ids, first one that counts, whether they begin where a text does)


def measure(job: Job) -> None:
    """Write the quality.json of one training, a founder's or a child's."""
    founder, member = job.wildcards.place.startswith("founders/"), int(job.wildcards.member)
    name, generation = job.wildcards.place.split("/")[-1], 0
    if not founder:
        generation = int(name.removeprefix("gen"))
    seed = derive_seed("founder", name, member) if founder else derive_seed(job.params.training["seed"], "train", generation, member)
    if job.claim("quality", job.key(seed), at_once=True) is None:
        return
    device = models.prepare(job.params.device, job.params.cpu_threads)
    tokenizer = models.load_tokenizer(job.file("blueprint").parent)
    before, after = members.start(job, seed).to(device), models.load_model(job.file("after").parent, device)
    read = training_text(job, founder, generation, member, tokenizer)
    if job.file("world"):
        world = World.from_json(artifacts.read_json(job.file("world")))
        found = {"kind": "truth"} | from_truth(Grammar(world), read, before, after, tokenizer, job)
    else:
        world, found = None, {"kind": "proxy"} | proxy([row for rows, _ in read for row in rows], before, after, tokenizer, job, seed)
    artifacts.write_json(job.output.quality, found | {"performance": performance(before, after, tokenizer, world, job)})


def training_text(job: Job, founder: bool, generation: int, member: int, tokenizer) -> list[tuple[Rows, float]]:
    """What the training reads, as members.train_founder and train_child give it: rows, and the share of them that is read."""
    as_rows = lambda blocks: [(row, 0, False) for row in blocks.blocks(np.arange(len(blocks))).tolist()]  # noqa: E731
    about, human = job.params.training, job.file("blocks" if founder else "human")
    if founder or about["text"] == "human":
        return [(as_rows(members.own_segment(job, human, member)), 1.0)]
    train, mixing = about["train"], about["human"]
    written = members.synthetic_rows(job.files("text"), train["include_prompt"], train["tokens"], tokenizer)
    rows = [(ids, first, True) for ids, first in written]
    if not human:
        return [(rows, 1.0)]
    blocks, tokens = TokenBlocks(human), sum(len(ids) - first + 1 for ids, first, _ in rows)
    if mixing["accumulate"] != "none":
        own = members.own_segment(job, human, member)
        count = tokens // blocks.context_tokens  # of all rounds; a fixed budget is one round's share of them and of the human text
        share = 1.0 if mixing["accumulate"] == "all" else count / generation / (count + len(own))
        return [(rows, share), (as_rows(own), share)]
    seed = derive_seed(job.params.data_seed, "human", generation, member)
    mixed = mix(range(tokens // blocks.context_tokens), blocks, mixing["fraction"], seed).human
    return [(rows, 1 - mixing["fraction"]), (as_rows(Subset(blocks, mixed[mixed >= 0])), 1.0)]


def from_truth(grammar: Grammar, read: list[tuple[Rows, float]], before, after, tokenizer, job: Job) -> dict:
    """Distances of text and models from a microworld's grammar."""
    eos = tokenizer.eos_token
    words = lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False).replace(eos, f" {eos} ").split()  # noqa: E731
    spelt = lambda rows: ((words(ids[:first]) + words(ids[first:]), len(words(ids[:first])), known) for ids, first, known in rows)  # noqa: E731
    parts: list[Counts] = [share * grammar.read(spelt(rows), eos) for rows, share in read]
    counts = sum(parts[1:], parts[0])
    sentences = counts.edges[list(grammar.children[0].values())].sum() + counts.outside[0]  # begun, whole or not
    text, floor = grammar.distances(grammar.of_text(counts)), grammar.floor(max(1, round(sentences)), derive_seed(job.params.seed, "floor"))
    side = {
        name: grammar.distances(grammar.of_model(word_scorer(model, tokenizer, job.params.batch_size)))
        for name, model in (("before", before), ("after", after))
    }
    distances = {key: _distance(text[key], floor[key], side["before"][key], side["after"][key]) for key in ("sentences", "next_token")}
    outside = {"text": text["outside"], "before": side["before"]["outside"], "after": side["after"]["outside"]}
    return {"distances": distances, "outside": outside, "sentences": float(sentences)}


def proxy(rows: Rows, before, after, tokenizer, job: Job, seed: int) -> dict:
    """Distances of bigrams from those of held-out human text. The models' text is sampled as they predict (temperature 1)."""
    settings = {"decoding": "sample", "temperature": 1.0, "top_p": 1.0, "top_k": 0, "beams": 5, "repetition_penalty": 1.0}
    context = before.config.max_position_embeddings
    settings |= {"max_new_tokens": context // 2, "min_new_tokens": context // 2, "batch_size": job.params.batch_size}
    prompts = corpus_prompts(job.file("prompts").parent, 1)
    count = -(-PROXY_TOKENS // settings["max_new_tokens"])

    def written(model) -> list[list[int]]:
        chosen = [prompts[i % len(prompts)] for i in range(count)]
        texts = continue_prompts(model, tokenizer, chosen, settings, derive_seed(seed, "proxy")).completion
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    train, rng = TokenBlocks(job.file("train")), np.random.default_rng(derive_seed(job.params.seed, "proxy"))
    some = lambda values: [values[i] for i in rng.permutation(len(values))]  # noqa: E731
    human = train.blocks(rng.permutation(len(train))[: -(-PROXY_TOKENS // train.context_tokens)]).tolist()
    sides = {"text": some([ids[first:] for ids, first, _ in rows]), "human": human, "before": written(before), "after": written(after)}
    tokens = min(PROXY_TOKENS, *(sum(map(len, side)) for side in sides.values()))
    reference = bigrams(TokenBlocks(job.file("reference")).tokens_NT, None)
    found = {name: total_variation(bigrams(side, tokens), reference) for name, side in sides.items()}
    return {"distances": {"bigrams": _distance(found["text"], (found["human"], 0.0), found["before"], found["after"])}, "tokens": tokens}


def _distance(text: float, floor: tuple[float, float], before: float, after: float) -> dict:
    """delta = distance of the text - distance of the model before training (equation 7). `floor`: what the truth's own text has."""
    shown = {"text": text, "text_floor": floor[0], "text_floor_sd": floor[1], "before": before, "after": after}
    return shown | {"delta": text - before, "delta_corrected": text - floor[0] - before}


def bigrams(rows, tokens: int | None) -> dict[int, float]:
    """Shares of pairs of neighbouring tokens in the first `tokens` tokens of rows."""
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
    """Loss on held-out human text before and after, and the change in nats a token (above zero: the training did harm)."""
    entry, path = job.params.entry, job.file("held_out")
    frames = [score_text(m, tokenizer, entry, job.params.sequences, path, world, job.params.batch_size) for m in (before, after)]
    tokens, losses = frames[0].tokens.to_numpy(float), [frame.nll.to_numpy() for frame in frames]
    change = bootstrap_mean_interval(losses[1] - losses[0], derive_seed(job.params.seed, "change"), 1000, weights=tokens)
    result = {"change": change["mean"], "change_stderr": change["stderr"]}
    for name, nll, frame in zip(("before", "after"), losses, frames, strict=True):
        result[f"nll_per_token_{name}"] = float(nll.sum() / tokens.sum())
        if world is not None:
            result[f"excess_nats_per_token_{name}"] = float((nll - frame.truth_nll).sum() / tokens.sum())
    return result
