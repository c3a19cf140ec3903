"""Every job of a plan with the work in it: tokens trained, written and scored, and the FLOPs of each.

Jobs are those that `status` lists, which are those that Snakemake plans. Work of one place, model and size is worked out once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from pollination.checks import listed
from pollination.cost.shapes import Shape, Unknown, model_shape, published
from pollination.cost.texts import Texts
from pollination.status import Work, jobs
from pollination.workflow import Plan

RULES = {  # what status calls a stage, and what the rule is called
    "train": "train", "evaluate": "evaluate_member", "quality": "measure_quality", "compare": "measure_disagreement",
    "write": "generate_shard", "select": "select_parents", "mutate": "mutate_parent", "deal": "deal_pool", "prune": "prune_generation", "pack": "pack_tokens",
    "overlap": "check_overlap", "fetch": "stage", "corpora": "build_corpus", "models": "prepare_model", "tasks": "stage_task", "requests": "build_requests", "embed": "embed_samples", "count words": "count_vocabulary",
    "simulate": "simulate", "collect": "collect_outputs", "count": "count_fingerprints", "descent": "trace_inheritance", "draw": "draw",
}  # fmt: skip
GPU = ("train", "evaluate", "quality", "compare", "write")  # stages whose jobs ask for a GPU
PROXY_TOKENS = 16_384  # quality on real text: what each of two models writes


@dataclass
class Load:
    """One job. `tokens` and `flops` by kind of work: train, write, score; `processor`: seconds of work without a GPU, start not counted."""

    work: Work
    rule: str
    model: str | None = None
    tokens: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    processor_s: float = 0.0

    @property
    def gpu(self) -> bool:
        return self.model is not None

    def add(self, kind: str, tokens: float, flops_per_token: float) -> None:
        self.tokens[kind] = self.tokens.get(kind, 0.0) + tokens
        self.flops[kind] = self.flops.get(kind, 0.0) + tokens * flops_per_token


class Loads:
    """The work of a plan's jobs. `given`: parameters of models that the tables do not know; `unknown`: what they are, a line each."""

    def __init__(self, plan: Plan, given: dict[str, int] | None = None) -> None:
        self.plan, self.texts, self.given = plan, Texts(plan), given or {}
        self.unknown: dict[str, str] = {}
        self.shape = cache(self._shape)
        self._questions = cache(self.__questions)

    def _shape(self, model: str) -> Shape:
        try:
            return model_shape(self.plan.config, model, self.texts.words, self.given)
        except Unknown as reason:
            self.unknown[model] = str(reason)
            return Shape(math.nan, math.nan)

    def __iter__(self) -> Iterator[Load]:
        for work in jobs(self.plan):
            load = Load(work, RULES.get(work.stage, work.stage))
            parts = work.output.removeprefix(f"{self.plan.results}/").split("/")
            if work.stage in ("train", "evaluate", "quality"):
                place, member = f"{parts[0]}/{parts[1]}", int(parts[2].removeprefix("member"))
                load.model = self.plan.model(place, member)
                {"train": self.train, "evaluate": self.evaluate, "quality": self.quality}[work.stage](load, place, member)
                if work.stage == "train":
                    load.rule = "train_founder" if place.startswith("founders/") else "train_child"
            elif work.stage == "write":
                self.write(load, work.group, work.generation, int(parts[2].removeprefix("synthetic")))
            elif work.stage == "compare" and work.generation is not None:
                self.compare(load, work.group, work.generation)
            elif work.stage == "compare":
                load.rule = "compare_samples" if work.group == "semantics" else "compare_fingerprints"
            elif work.stage in ("mutate", "deal", "pack", "corpora", "overlap", "fetch"):
                load.processor_s = self.processor(work, parts)
            yield load

    # --- on a GPU ----------------------------------------------------------------------------------------------

    def train(self, load: Load, place: str, member: int) -> None:
        first, second = place.split("/")
        founder = first == "founders"
        train = self.plan.config["founders"][second]["train"] if founder else self.plan.experiment(first)["train"]
        tokens = self.texts.segment(second, member) if founder else self.texts.child(first, int(second.removeprefix("gen")), member)
        context, shape = self.texts.context(place, member), self.shape(load.model)
        load.add("train", tokens * train["epochs"], shape.training(context))
        if train["keep"] == "best":
            validation = min(train["validation_blocks"] * context, self.texts.packed(place, member, "validation"))
            load.add("score", validation * train["epochs"], shape.forward(context))

    def write(self, load: Load, name: str, generation: int, rank: int) -> None:
        experiment, place = self.plan.experiment(name), self.plan.place(name, generation)
        generate, load.model = experiment["generate"], self.plan.model(place, 0 if self.plan.selects(name) else rank)
        written, read = (tokens / generate["shards"] for tokens in self.texts.written(name, generation, rank))
        shape, prompt = self.shape(load.model), self.texts.prompt(name, rank)
        passes = generate["beams"] if generate["decoding"] == "beam" else 1
        load.add("write", written, passes * shape.forward(prompt + self.texts.completion(name) / 2))
        load.add("score", read, shape.forward(prompt))

    def evaluate(self, load: Load, place: str, member: int) -> None:
        shape, context, settings = self.shape(load.model), self.texts.context(place, member), self.plan.config["evaluate"]
        for task in self.plan.config["tasks"]:
            requests, tokens = self._questions(task)
            tokens = min(tokens, context)
            load.add("score", requests * tokens, shape.forward(tokens))
        measured = self.plan.measures(place, member)["perplexity"]
        for entry in measured:
            load.add("score", self.held_out(entry), shape.forward(context))
        for name in dict.fromkeys(entry["corpus"] for entry in measured):
            if name in self.texts.worlds:  # every fact with every value of its attribute
                load.add(
                    "score",
                    sum(7 * len(self.texts.worlds[name].values[a]) for a in self.texts.worlds[name].facts.attribute),
                    shape.forward(8),
                )
        samples = settings["samples"]
        load.add("write", samples["prompts"] * samples["max_new_tokens"], shape.forward(samples["max_new_tokens"]))

    def held_out(self, entry: dict) -> float:
        return min(entry["max_tokens"] or math.inf, self.texts.corpus(entry["corpus"])[entry["split"]])

    def __questions(self, name: str) -> tuple[float, float]:
        """(forward passes, tokens of each) of a benchmark."""
        spec = self.plan.config["tasks"][name]
        if spec["kind"] == "microworld":
            questions = self.texts.worlds[spec["corpus"]].benchmarks()[spec["benchmark"]]
            asked = [question for question in questions if question["split"] == "test"]
            words = sum(len(question["question"].split()) + 2 for question in asked) / len(asked)
            return min(spec["questions"] or math.inf, len(asked)), words  # examples are the same for all, and read once
        known = published()["tasks"].get(spec["template"])
        if known is None:
            self.unknown[name] = f"tasks.{name}: the size of template {spec['template']!r} is not in pollination/cost/published.yaml"
            return math.nan, math.nan
        asked = min(spec["questions"] or math.inf, known["questions"])
        return asked * known["requests"], known["question"] + (0 if known.get("shared") else spec["shots"] or 0) * known["example"]

    def asked(self, name: str) -> float:
        """Questions of a benchmark."""
        spec = self.plan.config["tasks"][name]
        requests = self._questions(name)[0]
        return requests if spec["kind"] == "microworld" else requests / published()["tasks"].get(spec["template"], {}).get("requests", 1)

    def quality(self, load: Load, place: str, member: int) -> None:
        shape, context, entry = self.shape(load.model), self.texts.context(place, member), self.plan.quality_entry(place, member)
        load.add("score", 2 * self.held_out(entry), shape.forward(context))
        if self.plan.config["corpora"][entry["corpus"]]["kind"] == "microworld":
            load.add(
                "score", 2 * sum(len(sentence.split()) + 1 for sentence in self.texts.worlds[entry["corpus"]].sentences), shape.forward(8)
            )
        else:
            load.add("write", 2 * PROXY_TOKENS, shape.forward(context / 2))

    def compare(self, load: Load, name: str, generation: int) -> None:
        place, tokens = self.plan.place(name, generation), self.held_out(self.plan.config["evaluate"]["disagreement"])
        load.model = self.plan.model(place, 0)
        for member in range(self.plan.experiment(name)["population"]):
            load.add("score", tokens, self.shape(self.plan.model(place, member)).forward(self.texts.context(place, member)))

    # --- without one -------------------------------------------------------------------------------------------

    def processor(self, work: Work, parts: list[str]) -> float:
        """Seconds of work on one core, start not counted."""
        rates = published()["processor"]
        if work.stage == "mutate":
            return (
                self.shape(self.plan.model(self.plan.place(work.group, work.generation), 0)).parameters / rates["mutate_parameters_per_s"]
            )
        if work.stage == "deal":
            source = self.plan.experiment(work.group)["text_of"] or work.group
            total = sum(sum(self.texts.written(source, work.generation, rank)) for rank in range(self.plan.k(source)))
            return total / rates["corpus_tokens_per_s"]
        if work.stage == "pack":
            return self.texts.corpus(parts[2])[parts[3].split(".")[0]] / rates["pack_tokens_per_s"] / 4
        corpus = parts[1].removesuffix(".parquet")
        if corpus not in self.plan.config["corpora"]:
            return 0.0
        total = sum(self.texts.corpus(corpus).values())
        return total / rates["hub_tokens_per_s" if work.stage == "fetch" else "corpus_tokens_per_s"]


def pretrained(plan: Plan) -> list[str]:
    """Models whose weights are staged."""
    used = {model for pool in plan.used_pools.values() for model in listed(pool["model"])}
    return [name for name in sorted(used) if plan.config["models"][name]["pretrained"]]
