"""Amount of text in a run: corpora, prompts, completions, the text of each member.

NaN means unknown. Sizes are exact if the config states them (budgets, segments, blocks). Sizes of a
microworld come from its grammar. Other sizes are published sizes, or averages of English text
(published.yaml).
"""

import math
import os
from functools import cached_property
from pathlib import Path

from pollination.analysis.cost.shapes import published
from pollination.core.artifacts import read_json
from pollination.core.datafiles.formats import form_of
from pollination.data.microworld import World
from pollination.plan import inputs, layout
from pollination.plan.config.paths import data_files
from pollination.plan.corpora import CORPUS_KINDS, kind_of
from pollination.plan.graph import is_dealt, shares
from pollination.plan.inputs import prompt_corpus
from pollination.plan.layout import model_of, place_of
from pollination.plan.operators import text_of
from pollination.plan.plan import Plan

PARQUET, JSONL, GZIP = 2.5, 0.95, 3.0  # approximate characters of text per byte of a file


class Texts:
    """Sizes of a plan's text, in tokens. `notes`: the assumptions, one line each."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.notes: dict[str, str] = {}
        self._corpora: dict[str, dict[str, float]] = {}
        self._segments: dict[tuple, float] = {}

    @cached_property
    def worlds(self) -> dict[str, World]:
        corpora = self.plan.config["corpora"].items()
        return {
            name: World.create(spec, self.plan.config["data_seed"])
            for name, spec in corpora
            if CORPUS_KINDS[spec["kind"]].world
        }

    @cached_property
    def words(self) -> dict[str, int]:
        """Vocabulary size by microworld: its words, the end of text and the unknown word."""
        return {name: len(world.vocabulary) + 2 for name, world in self.worlds.items()}

    def sentence(self, corpus: str) -> float:
        world = self.worlds.get(corpus)
        if world is None:
            return published()["text"]["sentence_tokens"]
        return float(
            sum(
                p * len(sentence.split())
                for p, sentence in zip(world.probabilities, world.sentences, strict=True)
            )
        )

    def document(self, corpus: str) -> float:
        """Return the mean tokens of a document, including its end of text."""
        spec, kind = self.plan.config["corpora"][corpus], kind_of(self.plan, corpus)
        if kind.world:
            return self.worlds[corpus].mean_sentences * self.sentence(corpus) + 1
        if kind.joined:
            return sum(map(self.document, spec["corpora"])) / len(spec["corpora"])
        if kind.written:
            return self.completion(spec["experiment"])
        if known := self._published(spec).get("document"):
            return known
        self.notes["document"] = (
            f"{corpus}: documents are assumed to have "
            f"{published()['text']['document_tokens']} tokens"
        )
        return published()["text"]["document_tokens"]

    def _published(self, spec: dict) -> dict:
        name = spec.get("name", "")
        return (
            published()["corpora"].get(f"{name}/{spec.get('subset')}")
            or published()["corpora"].get(name)
            or {}
        )

    def corpus(self, name: str) -> dict[str, float]:
        """Return tokens by split: train, validation, test, prompts."""
        if name not in self._corpora:
            self._corpora[name] = self._splits(name, self.plan.config["corpora"][name])
        return self._corpora[name]

    def _splits(self, name: str, spec: dict) -> dict[str, float]:
        if kind_of(self.plan, name).joined:
            return {
                split: sum(self.corpus(part)[split] for part in spec["corpora"])
                for split in ("train", "validation", "test", "prompts")
            }
        longest = spec["max_documents"] * self.document(name) if spec["max_documents"] else math.inf
        if spec["splits"]:
            sizes = {
                split: min(self._own_split(name, spec, split), longest)
                for split in ("train", "validation", "test")
            }
            return sizes | {"prompts": sizes["validation"]}
        total = min(self._total(name, spec), longest)
        shares = spec["held_out"]
        held_out = {split: total * share for split, share in shares.items()}
        return {"train": total * (1 - sum(shares.values()))} | held_out

    def _own_split(self, name: str, spec: dict, split: str) -> float:
        if kind_of(self.plan, name).local:
            return self._files(name, spec["splits"][split])
        return min(self._budget(spec), self._published(spec).get(split, math.inf))

    def _budget(self, spec: dict) -> float:
        characters = spec["max_tokens"] * spec["characters_per_token"]
        return characters / published()["text"]["characters_per_token"]

    def _total(self, name: str, spec: dict) -> float:
        kind = kind_of(self.plan, name)
        if kind.world:
            return spec["documents"] * self.document(name)
        if kind.written:
            writer = spec["experiment"]
            return sum(
                self.written(writer, spec["generation"], rank)[0]
                for rank in range(layout.k(self.plan, writer))
            )
        if kind.stager:
            sizes = self._published(spec)
            note = f"{name}: assumed to have max_tokens tokens; the data set may have fewer"
            self.notes[name] = "" if sizes else note
            return min(self._budget(spec), sizes.get("train", math.inf))
        if kind.local:
            return self._files(name, spec["path"])
        self.notes[name] = f"{name}: the size of a corpus of kind {spec['kind']} is unknown"
        return math.nan

    def _files(self, name: str, paths) -> float:
        characters, files = 0.0, data_files(paths, kind_of(self.plan, name).endings)
        for file in files:
            form, compression = form_of(file)
            factor = {"parquet": PARQUET, "jsonl": JSONL, "json": JSONL}.get(form, 1.0)
            characters += os.path.getsize(file) * factor * (GZIP if compression else 1.0)
        if not files:
            self.notes[name] = f"{name}: its files are absent, so its size is unknown"
            return math.nan
        self.notes[name] = f"{name}: tokens are estimated from the size of its files"
        return characters / published()["text"]["characters_per_token"]

    def packed(self, place: str, member: int, split: str = "train") -> float:
        """Return the tokens of a packed text: counted if it exists, else estimated."""
        made = Path(inputs.packed(self.plan, place, member, split)).with_suffix(".json")
        return read_json(made)["tokens"] if made.is_file() else self.corpus(made.parent.name)[split]

    # --- what members read and write

    def context(self, place: str, member: int) -> int:
        return self.plan.config["models"][model_of(self.plan, place, member)]["context_tokens"]

    def segment(self, pool: str, member: int) -> float:
        """Return the tokens of a founder's human text, without repeats, in whole blocks."""
        if (pool, member) not in self._segments:
            spec, place = self.plan.config["founders"][pool], f"founders/{pool}"
            context = self.context(place, member)
            tokens = spec["train"]["tokens"]
            if tokens is None:
                tokens = self.packed(place, member)
            blocks = tokens / context
            if math.isfinite(blocks):
                blocks = math.floor(blocks)
                segments, by_name = spec["segments"], {"distinct": member, "same": 0}
                listed = not isinstance(segments, str)
                number = segments[member] if listed else by_name[segments]
                if spec["num_segments"]:  # segments differ by at most one block
                    blocks = len(range(number, blocks, spec["num_segments"]))
            self._segments[pool, member] = blocks * context
        return self._segments[pool, member]

    def completion(self, name: str) -> float:
        """Return the mean tokens of a completion: a geometric length, at most `max_new_tokens`."""
        generate = self.plan.experiment(name)["generate"]
        longest, least = generate["max_new_tokens"], generate["min_new_tokens"]
        if least >= longest:
            return longest
        mean = self.document(prompt_corpus(self.plan, name, 0))
        self.notes["completion"] = (
            "completions are assumed to be as long as the documents of the corpus, on average"
        )
        return least + mean * (1 - math.exp(-(longest - least) / mean))

    def prompt(self, name: str, member: int) -> float:
        """Return the mean tokens of a prompt: a block, or the first sentences of a document."""
        generate, place = self.plan.experiment(name)["generate"], place_of(self.plan, name, 0)
        context = self.context(place, member)
        limit = generate["max_prompt_tokens"] or max(
            1, min(context // 2, context - generate["max_new_tokens"])
        )
        if generate["prompt"] == "blocks":
            model = self.plan.config["models"][model_of(self.plan, place, member)]
            whole = model["pretrained"] and not generate["max_prompt_tokens"]
            return context if whole else min(context, limit)
        corpus = prompt_corpus(self.plan, name, member)
        return min(limit, generate["max_sentences"] * self.sentence(corpus), self.document(corpus))

    def written(self, name: str, generation: int, rank: int) -> tuple[float, float]:
        """Return (tokens that a parent writes, tokens of its prompts) in one generation."""
        experiment, generate = self.plan.experiment(name), self.plan.experiment(name)["generate"]
        completion, prompt = self.completion(name), self.prompt(name, rank)
        if generate["tokens"] is not None:
            counted = prompt if generate["budget_counts"] == "text" else 0
            rows = generate["tokens"] / (completion + counted)
        elif generate["prompt"] == "blocks":
            context = self.context(place_of(self.plan, name, 0), rank)
            rows = self.segment(experiment["founders"], rank) / context
        else:
            corpus = prompt_corpus(self.plan, name, rank)
            rows = self.corpus(corpus)["prompts"] / self.document(corpus)
        return rows * completion, rows * prompt

    def child(self, name: str, generation: int, member: int) -> float:
        """Return the tokens of text that a child reads, without repeats, in whole blocks."""
        experiment, human = self.plan.experiment(name), self.plan.experiment(name)["human"]
        context = self.context(place_of(self.plan, name, generation), member)
        if text_of(experiment).is_human:
            return self.segment(experiment["founders"], member)
        tokens = self._round(name, generation, member)
        if human["accumulate"] == "all":
            tokens = generation * tokens + self.segment(experiment["founders"], member)
        return math.floor(tokens / context) * context if math.isfinite(tokens) else tokens

    def dealt(self, name: str, generation: int, folder: str) -> tuple[float, float]:
        """Return (tokens that a job reads to deal or mix a child's text, their part it writes).

        `folder`: deal{m} or mix{m}. The part is 1 / the second number.
        """
        experiment = self.plan.experiment(name)
        source = experiment["text_of"] or name
        if folder.startswith("mix"):
            ranks = list(shares(self.plan, name, generation + 1, int(folder.removeprefix("mix"))))
            count = len(ranks)
        else:
            ranks = list(range(layout.k(self.plan, source)))
            count = experiment["population"]
        return sum(sum(self.written(source, generation, rank)) for rank in ranks), count

    def _round(self, name: str, generation: int, member: int) -> float:
        experiment = self.plan.experiment(name)
        writer = experiment["text_of"] or name
        model = model_of(self.plan, place_of(self.plan, name, generation), member)
        separate = self.plan.config["models"][model]["separator"] == "eos"
        total = 0.0
        is_pool = is_dealt(self.plan, name, generation)
        parts = (
            dict.fromkeys(range(layout.k(self.plan, writer)), 1 / experiment["population"])
            if is_pool
            else shares(self.plan, name, generation, member)
        )
        for rank, share in parts.items():
            written, read = self.written(writer, generation - 1, rank)
            prompts = read if experiment["train"]["include_prompt"] else 0
            separators = written / self.completion(writer) if separate else 0
            total += share * (written + prompts + separators)
        limit = experiment["train"]["tokens"]
        return total if limit is None else min(total, limit)
