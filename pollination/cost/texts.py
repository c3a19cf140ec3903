"""How much text there will be, before there is any: corpora, prompts, completions, and what each member reads. NaN: not known.

Exact where the config says it (budgets, segments, blocks); a microworld's from its grammar; of other text from what is published of it,
or from averages of English text (published.yaml).
"""

import math
import os
from functools import cached_property
from pathlib import Path

from pollination.artifacts import read_json
from pollination.config import data_files
from pollination.corpora.microworld import World
from pollination.cost.shapes import published
from pollination.workflow import Plan

PARQUET, JSONL, GZIP = 2.5, 0.95, 3.0  # characters of text a byte of a file, about


class Texts:
    """Sizes of a plan's text, in tokens. `notes`: what had to be assumed, a line each."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.notes = plan, {}
        self._corpora: dict[str, dict[str, float]] = {}
        self._segments: dict[tuple, float] = {}

    @cached_property
    def worlds(self) -> dict[str, World]:
        corpora = self.plan.config["corpora"].items()
        return {name: World.create(spec, self.plan.config["data_seed"]) for name, spec in corpora if spec["kind"] == "microworld"}

    @cached_property
    def words(self) -> dict[str, int]:
        """Vocabulary of a word tokenizer by microworld: its words, end of text and unknown."""
        return {name: len(world.vocabulary) + 2 for name, world in self.worlds.items()}

    def sentence(self, corpus: str) -> float:
        world = self.worlds.get(corpus)
        if world is None:
            return published()["text"]["sentence_tokens"]
        return float(sum(p * len(sentence.split()) for p, sentence in zip(world.probabilities, world.sentences, strict=True)))

    def document(self, corpus: str) -> float:
        """Mean tokens of a document, its end of text counted."""
        spec = self.plan.config["corpora"][corpus]
        if corpus in self.worlds:
            return self.worlds[corpus].mean_sentences * self.sentence(corpus) + 1
        if spec["kind"] == "union":
            return sum(map(self.document, spec["corpora"])) / len(spec["corpora"])
        if spec["kind"] == "synthetic":
            return self.completion(spec["experiment"])
        if known := self._published(spec).get("document"):
            return known
        self.notes["document"] = f"documents of {corpus} are taken to have {published()['text']['document_tokens']} tokens"
        return published()["text"]["document_tokens"]

    def _published(self, spec: dict) -> dict:
        name = spec.get("name", "")
        return published()["corpora"].get(f"{name}/{spec.get('subset')}") or published()["corpora"].get(name) or {}

    def corpus(self, name: str) -> dict[str, float]:
        """Tokens by split: train, validation, test, prompts."""
        if name not in self._corpora:
            self._corpora[name] = self._splits(name, self.plan.config["corpora"][name])
        return self._corpora[name]

    def _splits(self, name: str, spec: dict) -> dict[str, float]:
        if spec["kind"] == "union":
            return {
                split: sum(self.corpus(part)[split] for part in spec["corpora"]) for split in ("train", "validation", "test", "prompts")
            }
        longest = spec["max_documents"] * self.document(name) if spec["max_documents"] else math.inf
        if spec["splits"]:
            sizes = {split: min(self._own_split(name, spec, split), longest) for split in ("train", "validation", "test")}
            return sizes | {"prompts": sizes["validation"]}
        total = min(self._total(name, spec), longest)
        shares = spec["held_out"]
        return {"train": total * (1 - sum(shares.values()))} | {split: total * share for split, share in shares.items()}

    def _own_split(self, name: str, spec: dict, split: str) -> float:
        if spec["kind"] == "files":
            return self._files(name, spec["splits"][split])
        return min(self._budget(spec), self._published(spec).get(split, math.inf))

    def _budget(self, spec: dict) -> float:
        return spec["max_tokens"] * spec["characters_per_token"] / published()["text"]["characters_per_token"]

    def _total(self, name: str, spec: dict) -> float:
        if spec["kind"] == "microworld":
            return spec["documents"] * self.document(name)
        if spec["kind"] == "synthetic":
            writer = spec["experiment"]
            return sum(self.written(writer, spec["generation"], rank)[0] for rank in range(self.plan.k(writer)))
        if spec["kind"] == "hub":
            self.notes[name] = f"{name}: at most its max_tokens; the data set may have less" if not self._published(spec) else ""
            return min(self._budget(spec), sum(self._published(spec).get(split, math.inf) for split in ("train",)))
        return self._files(name, spec["path"])

    def _files(self, name: str, paths) -> float:
        characters, files = 0.0, data_files(paths)
        for file in files:
            factor = PARQUET if file.endswith(".parquet") else JSONL if ".jsonl" in file else 1.0
            characters += os.path.getsize(file) * factor * (GZIP if file.endswith(".gz") else 1.0)
        if not files:
            self.notes[name] = f"{name}: its files are not here, so its size is not known"
            return math.nan
        self.notes[name] = f"{name}: its tokens are estimated from the size of its files"
        return characters / published()["text"]["characters_per_token"]

    def packed(self, place: str, member: int, split: str = "train") -> float:
        """Tokens of a packed text: counted, where it has been packed; else estimated."""
        made = Path(self.plan.packed(place, member, split)).with_suffix(".json")
        return read_json(made)["tokens"] if made.is_file() else self.corpus(made.parent.name)[split]

    # --- what members read and write ---------------------------------------------------------------------------

    def context(self, place: str, member: int) -> int:
        return self.plan.config["models"][self.plan.model(place, member)]["context_tokens"]

    def segment(self, pool: str, member: int) -> float:
        """Tokens of human text that a founder reads, once: whole blocks."""
        if (pool, member) not in self._segments:
            spec, place = self.plan.config["founders"][pool], f"founders/{pool}"
            context = self.context(place, member)
            tokens = spec["train"]["tokens"] if spec["train"]["tokens"] is not None else self.packed(place, member)
            blocks = tokens / context
            if math.isfinite(blocks):
                blocks = math.floor(blocks)
                segments = spec["segments"]
                number = {"distinct": member, "same": 0}[segments] if isinstance(segments, str) else segments[member]
                blocks = len(range(number, blocks, spec["of"])) if spec["of"] else blocks  # they differ by one block at most
            self._segments[pool, member] = blocks * context
        return self._segments[pool, member]

    def completion(self, name: str) -> float:
        """Mean tokens of a completion: to the end of a text whose lengths are geometric, `max_new_tokens` at most."""
        generate = self.plan.experiment(name)["generate"]
        longest, least = generate["max_new_tokens"], generate["min_new_tokens"]
        if least >= longest:
            return longest
        mean = self.document(self.plan.prompt_corpus(name, 0))
        self.notes["completion"] = "completions end where texts of the corpus would, on average"
        return least + mean * (1 - math.exp(-(longest - least) / mean))

    def prompt(self, name: str, member: int) -> float:
        """Mean tokens of a prompt: a block, or the first sentences of a document."""
        generate, place = self.plan.experiment(name)["generate"], self.plan.place(name, 0)
        context = self.context(place, member)
        limit = generate["max_prompt_tokens"] or max(1, min(context // 2, context - generate["max_new_tokens"]))
        if generate["prompt"] == "blocks":
            pretrained = self.plan.config["models"][self.plan.model(place, member)]["pretrained"]
            return context if pretrained and not generate["max_prompt_tokens"] else min(context, limit)
        corpus = self.plan.prompt_corpus(name, member)
        return min(limit, generate["max_sentences"] * self.sentence(corpus), self.document(corpus))

    def written(self, name: str, generation: int, rank: int) -> tuple[float, float]:
        """(tokens that a parent writes, tokens of the prompts that it reads) for one generation, over all shards."""
        experiment, generate = self.plan.experiment(name), self.plan.experiment(name)["generate"]
        completion, prompt = self.completion(name), self.prompt(name, rank)
        if generate["tokens"] is not None:
            rows = generate["tokens"] / (completion + (prompt if generate["budget_counts"] == "text" else 0))
        elif generate["prompt"] == "blocks":
            rows = self.segment(experiment["founders"], rank) / self.context(self.plan.place(name, 0), rank)
        else:
            corpus = self.plan.prompt_corpus(name, rank)
            rows = self.corpus(corpus)["prompts"] / self.document(corpus)
        return rows * completion, rows * prompt

    def child(self, name: str, generation: int, member: int) -> float:
        """Tokens of text that a child reads, once: whole blocks."""
        experiment, human = self.plan.experiment(name), self.plan.experiment(name)["human"]
        context = self.context(self.plan.place(name, generation), member)
        if experiment["text"] == "human":
            return self.segment(experiment["founders"], member)
        rounds = generation if human["accumulate"] == "all" else 1
        tokens = rounds * self._round(name, generation, member)
        tokens += self.segment(experiment["founders"], member) if human["accumulate"] == "all" else 0
        return math.floor(tokens / context) * context if math.isfinite(tokens) else tokens

    def _round(self, name: str, generation: int, member: int) -> float:
        experiment = self.plan.experiment(name)
        writer = experiment["text_of"] or name
        separate = self.plan.config["models"][self.plan.model(self.plan.place(name, generation), member)]["separator"] == "eos"
        ranks = range(self.plan.k(writer)) if experiment["text"] == "pool" else [member % self.plan.k(name)]
        total = 0.0
        for rank in ranks:
            written, read = self.written(writer, generation - 1, rank)
            rows = written / self.completion(writer)
            total += written + (read if experiment["train"]["include_prompt"] else 0) + (rows if separate else 0)
        share = total / experiment["population"] if experiment["text"] == "pool" else total
        return share if experiment["train"]["tokens"] is None else min(share, experiment["train"]["tokens"])
