"""Work of every job of a plan: tokens trained, written and scored, and their FLOPs.

The jobs are those that `status` lists and Snakemake plans.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from pollination.analysis.cost.shapes import Shape, Unknown, model_shape, published
from pollination.analysis.cost.texts import Texts
from pollination.plan import layout, measuring
from pollination.plan.benchmark_folder import built_in_template
from pollination.plan.config.values import SEGMENT, listed
from pollination.plan.corpora import kind_of
from pollination.plan.decoding import DECODINGS
from pollination.plan.inputs import checked_tasks
from pollination.plan.jobs import Work, jobs
from pollination.plan.layout import model_of, place_of, pool_name
from pollination.plan.measuring import quality_entry
from pollination.plan.plan import Plan

PACK_THREADS = 4  # of the rule pack_tokens (rules/corpus.smk)
WITHOUT_GPU = (
    "mutate",
    "average",
    "deal",
    "pack",
    "segment",
    "corpora",
    "overlap",
    "count words",
    "fetch",
)  # stages whose work without a GPU is estimated
READ_CHARACTERS = 1_000_000_000  # that count_vocabulary counts at most (data/vocabulary.py)
PROXY_TOKENS = 16_384  # quality on real text: tokens that each of two models writes


@dataclass
class Load:
    """One job.

    `tokens` and `flops` by kind of work: train, write, score; `processor_s`: seconds of work
    without a GPU, excluding the start; `threads`: cores that the job takes, without a GPU; `gpus`:
    number of GPUs that share the work.
    """

    work: Work
    model: str | None = None
    tokens: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    processor_s: float = 0.0
    threads: int = 1
    gpus: int = 1

    @property
    def gpu(self) -> bool:
        return self.model is not None

    def add(self, kind: str, tokens: float, flops_per_token: float) -> None:
        self.tokens[kind] = self.tokens.get(kind, 0.0) + tokens
        self.flops[kind] = self.flops.get(kind, 0.0) + tokens * flops_per_token


class Loads:
    """The work of a plan's jobs.

    `parameters`: counts for models that the tables do not contain; `processor`: rates of jobs
    without a GPU; `unknown`: unknown amounts, one line each.
    """

    def __init__(
        self,
        plan: Plan,
        parameters: dict[str, int] | None = None,
        processor: dict[str, float] | None = None,
    ) -> None:
        self.plan, self.texts, self.parameters = plan, Texts(plan), parameters or {}
        self.processor_rates = processor or published()["processor"]
        self.unknown: dict[str, str] = {}
        self.shape = cache(self._shape)
        self._questions = cache(self.__questions)

    def _shape(self, model: str) -> Shape:
        try:
            return model_shape(self.plan.config, model, self.texts.words, self.parameters)
        except Unknown as reason:
            self.unknown[model] = str(reason)
            return Shape(math.nan, math.nan)

    def __iter__(self) -> Iterator[Load]:
        for work in jobs(self.plan):
            load = Load(work)
            parts = work.output.removeprefix(f"{self.plan.results}/").split("/")
            generation = work.generation or 0
            if work.stage in ("train", "evaluate", "quality"):
                place, member = f"{parts[0]}/{parts[1]}", int(parts[2].removeprefix("member"))
                load.model = model_of(self.plan, place, member)
                {"train": self.train, "evaluate": self.evaluate, "quality": self.quality}[
                    work.stage
                ](load, place, member)
            elif work.stage == "write":
                self.write(load, work.group, generation, int(parts[2].removeprefix("synthetic")))
            elif work.kind.rule == "measure_disagreement":
                self.compare(load, work.group, generation)
            elif work.stage in WITHOUT_GPU:
                load.processor_s = self.processor(work, parts)
                load.threads = PACK_THREADS if work.stage == "pack" else 1
            yield load

    # --- on a GPU

    def train(self, load: Load, place: str, member: int) -> None:
        first, second = place.split("/")
        if first == "founders":
            train = self.plan.config["founders"][second]["train"]
            tokens = self.texts.segment(second, member)
        else:
            train = self.plan.experiment(first)["train"]
            tokens = self.texts.child(first, int(second.removeprefix("gen")), member)
        context, shape = self.texts.context(place, member), self.shape(load.model)
        load.gpus = train["gpus"]
        # the forward pass, a third of the work, is computed twice
        factor = 4 / 3 if train["activation_checkpointing"] else 1
        load.add("train", tokens * train["epochs"], factor * shape.training(context))
        if train["checkpoint"] == "best":
            validation = min(
                train["validation_blocks"] * context, self.texts.packed(place, member, "validation")
            )
            load.add("score", validation * train["epochs"], shape.forward(context))

    def write(self, load: Load, name: str, generation: int, rank: int) -> None:
        experiment, place = self.plan.experiment(name), place_of(self.plan, name, generation)
        generate, selects = experiment["generate"], layout.selects(self.plan, name)
        load.model = model_of(self.plan, place, 0 if selects else rank)
        written, read = (
            tokens / generate["shards"] for tokens in self.texts.written(name, generation, rank)
        )
        shape, prompt = self.shape(load.model), self.texts.prompt(name, rank)
        if generate["engine"] != "native":
            self.texts.notes[f"{name}.engine"] = (
                f"{name}: its text is timed with the rates of native, because those of "
                f"{generate['engine']} are unknown"
            )
        passes = DECODINGS[generate["decoding"]].sequences(generate)
        load.add("write", written, passes * shape.forward(prompt + self.texts.completion(name) / 2))
        load.add("score", read, shape.forward(prompt))

    def evaluate(self, load: Load, place: str, member: int) -> None:
        shape, context = self.shape(load.model), self.texts.context(place, member)
        for task in self.plan.config["tasks"]:
            requests, tokens = self._questions(task)
            tokens = min(tokens, context)
            load.add("score", requests * tokens, shape.forward(tokens))
        measured = measuring.measures(self.plan, place, member)["perplexity"]
        for entry in measured:
            load.add("score", self.measured(place, member, entry), shape.forward(context))
        for name in dict.fromkeys(entry["corpus"] for entry in measured):
            if name in self.texts.worlds:  # every fact is scored with every value of its attribute
                world = self.texts.worlds[name]
                tokens = sum(7 * len(world.values[a]) for a in world.facts.attribute)
                load.add("score", tokens, shape.forward(8))
        samples = self.plan.config["evaluate"]["samples"]
        length = samples["max_new_tokens"]
        load.add("write", samples["num_prompts"] * length, shape.forward(length))

    def measured(self, place: str, member: int, entry: dict) -> float:
        """Return the tokens of an entry of `evaluate` that are scored for one member."""
        if entry["split"] == SEGMENT:
            size = self.texts.segment(pool_name(self.plan, place), member)
        else:
            size = self.texts.corpus(entry["corpus"])[entry["split"]]
        return min(entry["max_tokens"] or math.inf, size)

    def __questions(self, name: str) -> tuple[float, float]:
        """Return (forward passes, tokens per pass) of a benchmark."""
        spec = self.plan.config["tasks"][name]
        if spec["kind"] == "microworld":
            questions = self.texts.worlds[spec["corpus"]].benchmarks()[spec["benchmark"]]
            asked = [question for question in questions if question["split"] == "test"]
            words = sum(len(question["question"].split()) + 2 for question in asked) / len(asked)
            # all questions share the few-shot examples, which are scored once
            return min(spec["questions"] or math.inf, len(asked)), words
        known = published()["tasks"].get(built_in_template(spec))
        if known is None:
            self.unknown[name] = (
                f"tasks.{name}: the size of template {spec['template']!r} is not in "
                "pollination/analysis/cost/published.yaml"
            )
            return math.nan, math.nan
        count = min(spec["questions"] or math.inf, known["questions"])
        examples = 0 if known.get("shared") else spec["num_fewshot"] or 0
        return count * known["requests"], known["question"] + examples * known["example"]

    def asked(self, name: str) -> float:
        """Return the number of questions of a benchmark."""
        spec = self.plan.config["tasks"][name]
        requests = self._questions(name)[0]
        if spec["kind"] == "microworld":
            return requests
        known = published()["tasks"].get(built_in_template(spec), {})
        return requests / known.get("requests", 1)

    def quality(self, load: Load, place: str, member: int) -> None:
        shape, context = self.shape(load.model), self.texts.context(place, member)
        entry = quality_entry(self.plan, place, member)
        load.add("score", 2 * self.measured(place, member, entry), shape.forward(context))
        if kind_of(self.plan, entry["corpus"]).world:
            sentences = self.texts.worlds[entry["corpus"]].sentences
            tokens = sum(len(sentence.split()) + 1 for sentence in sentences)
            load.add("score", 2 * tokens, shape.forward(8))
        else:
            load.add("write", 2 * PROXY_TOKENS, shape.forward(context / 2))

    def compare(self, load: Load, name: str, generation: int) -> None:
        place = place_of(self.plan, name, generation)
        tokens = self.measured(place, 0, self.plan.config["evaluate"]["disagreement"])
        load.model = model_of(self.plan, place, 0)
        for member in range(self.plan.experiment(name)["population"]):
            shape = self.shape(model_of(self.plan, place, member))
            load.add("score", tokens, shape.forward(self.texts.context(place, member)))

    # --- without a GPU

    def processor(self, work: Work, parts: list[str]) -> float:
        """Return seconds of work, excluding the start."""
        rates, generation = self.processor_rates, work.generation or 0
        if work.stage in ("mutate", "average"):
            model = model_of(self.plan, place_of(self.plan, work.group, generation), 0)
            return self.shape(model).parameters / rates["mutate_parameters_per_s"]
        if work.stage == "deal":  # each member's job reads the whole text of its writers
            return (
                self.texts.dealt(work.group, generation, parts[2])[0] / rates["deal_tokens_per_s"]
            )
        if work.stage == "pack":
            tokens = self.texts.corpus(parts[2])[parts[3].split(".")[0]]
            return tokens / rates["pack_tokens_per_s"]  # nearly all of it runs in one thread
        if work.stage == "segment":  # the job hashes the packed corpus
            member = int(parts[2].removeprefix("member").removesuffix(".bin"))
            width = token_bytes(self.shape(model_of(self.plan, f"founders/{parts[1]}", member)))
            tokens = self.texts.packed(f"founders/{parts[1]}", member)
            return tokens * width / rates["hash_bytes_per_s"]
        corpus = parts[1].removesuffix(".parquet")
        if corpus not in self.plan.config["corpora"]:
            return 0.0
        sizes = self.texts.corpus(corpus)
        if work.stage == "count words":
            characters = sizes["train"] * published()["text"]["characters_per_token"]
            counted = min(1.0, READ_CHARACTERS / characters) * sizes["train"]
            # all documents are read, at most as slowly as when they were written
            return (
                counted / rates["count_tokens_per_s"]
                + sizes["train"] / rates["corpus_tokens_per_s"]
            )
        return self._corpus(corpus, work.stage, sum(sizes.values()), sizes["test"])

    def _corpus(self, corpus: str, stage: str, tokens: float, test: float) -> float:
        """Return the seconds that a job takes to fetch, build or search a corpus."""
        rates, spec = self.processor_rates, self.plan.config["corpora"][corpus]
        if stage == "fetch":
            return tokens / rates["hub_tokens_per_s"]
        if stage == "overlap":  # test text is not searched
            searched = (tokens - test) if checked_tasks(self.plan) else 0.0
            return searched / rates["search_tokens_per_s"]
        is_world = kind_of(self.plan, corpus).world
        build_s = tokens / rates["world_tokens_per_s" if is_world else "corpus_tokens_per_s"]
        if spec["on_overlap"] == "remove" and checked_tasks(self.plan):
            build_s += tokens / rates["search_tokens_per_s"]
        return build_s


def token_bytes(shape: Shape) -> int:
    """Return the bytes of a packed token id."""
    return 4 if shape.vocabulary > 2**16 else 2


def pretrained(plan: Plan) -> list[str]:
    """Return the models whose weights are staged."""
    used = {model for pool in plan.used_pools.values() for model in listed(pool["model"])}
    return [name for name in sorted(used) if plan.config["models"][name]["pretrained"]]
