"""Which files an experiment consists of, and which of them each step reads: the static DAG, as functions of the config.

Slots and ranks (docs/design.md): members are slots 0..N-1, parents are ranks 0..k-1; who holds a rank is written in
`selection.json` and read when a job runs, so the whole plan is known before anything has run. All paths are relative
to the run's folder, `results/{run}/`, which rules spell `<results>`.
"""

from dataclasses import dataclass
from functools import cached_property

from pollination.checks import OWN, by_member, listed
from pollination.claims.declared import Claims
from pollination.config import data_files
from pollination.paper import Paper
from pollination.pruning import Pruning
from pollination.report import Report
from pollination.samples import Samples
from pollination.sides import Sides

SPLITS = ("train", "validation", "test", "prompts")
MEMBER_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
EVALUATION_FILES = ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "samples.parquet")


@dataclass(frozen=True)
class Plan(Report, Claims, Paper, Pruning, Samples, Sides):
    """The files of a run. `config` is a resolved config; `results` the run's folder, e.g. 'results/demo'."""

    config: dict
    results: str

    def experiment(self, name: str) -> dict:
        return self.config["experiments"][name]

    def k(self, name: str) -> int:
        """Parents a generation: k with selection, else every slot."""
        experiment = self.experiment(name)
        return experiment["select"]["k"] if self.selects(name) else experiment["population"]

    def selects(self, name: str) -> bool:
        return self.experiment(name)["select"]["task"] != "none"

    @cached_property
    def pool_sizes(self) -> dict[str, int]:
        """Founders of each pool: as many as its largest experiment takes, or one that a pretrained model of the run is."""
        sizes = dict.fromkeys(self.config["founders"], 0)
        for experiment in self.config["experiments"].values():
            sizes[experiment["founders"]] = max(sizes[experiment["founders"]], experiment["population"])
        for name in [name for name, size in sizes.items() if size]:
            for model in listed(self.config["founders"][name]["model"]):
                source = self.config["models"][model]["pretrained"]
                if isinstance(source, dict):
                    sizes[source["founders"]] = max(sizes[source["founders"]], 1)
        return sizes

    def pool(self, place: str) -> dict:
        """The founder pool behind a place: 'founders/{pool}' or '{experiment}/gen{g}'."""
        first, second = place.split("/")
        return self.config["founders"][second if first == "founders" else self.experiment(first)["founders"]]

    def model(self, place: str, member: int) -> str:
        """The model of a member; `place` may be 'base/{model}' too, the untouched pretrained model."""
        return place.split("/")[1] if place.startswith("base/") else by_member(self.pool(place)["model"], member)

    def corpus(self, place: str, member: int) -> str:
        """The corpus whose text a member's founder has read; the untouched model's is that of the first pool it is in."""
        if place.startswith("base/"):
            model = place.split("/")[1]
            place, member = next(
                (f"founders/{name}", listed(pool["model"]).index(model))
                for name, pool in self.used_pools.items()
                if model in listed(pool["model"])
            )
        return by_member(self.pool(place)["corpus"], member)

    @property
    def used_pools(self) -> dict[str, dict]:
        return {name: pool for name, pool in self.config["founders"].items() if self.pool_sizes[name]}

    @cached_property
    def bases(self) -> list[str]:
        """The pretrained models that founders start from: generation -1."""
        named = [by_member(pool["model"], m) for name, pool in self.used_pools.items() for m in range(self.pool_sizes[name])]
        return [model for model in dict.fromkeys(named) if self.config["models"][model]["pretrained"]]

    def kinds(self, name: str) -> list[tuple]:
        """What each member is, by slot: members that share model, corpus and segment of human text are one kind (pollination/ecosystems.py)."""
        place, segments = self.place(name, 0), self.pool(self.place(name, 0))["segments"]
        number = lambda m: {"distinct": m, "same": 0}[segments] if isinstance(segments, str) else segments[m]  # noqa: E731
        return [(self.model(place, m), self.corpus(place, m), number(m)) for m in range(self.experiment(name)["population"])]

    # --- members -----------------------------------------------------------------------------------------------

    def place(self, name: str, generation: int) -> str:
        """Where a generation's members lie; generation 0 is the founder pool itself."""
        return f"founders/{self.experiment(name)['founders']}" if generation == 0 else f"{name}/gen{generation}"

    def member(self, name: str, generation: int, member: int) -> str:
        return f"{self.results}/{self.place(name, generation)}/member{member}"

    def members(self, name: str, generation: int, file: str) -> list[str]:
        """One file of every member of a generation, in slot order."""
        return [f"{self.member(name, generation, m)}/{file}" for m in range(self.experiment(name)["population"])]

    def blueprint(self, place: str, member: int) -> str:
        return f"{self.results}/models/{self.model(place, member)}"

    def model_files(self, place: str, member: int) -> list[str]:
        """The files of a model folder, weights first: a member's, or the untouched pretrained model's."""
        folder = self.blueprint(place, member) if place.startswith("base/") else f"{self.results}/{place}/member{member}"
        return [f"{folder}/{file}" for file in MEMBER_FILES]

    def pretrained_from(self, model: str) -> list[str]:
        """The founder that a model of this run starts from, if it is one."""
        source = self.config["models"][model]["pretrained"]
        return self.model_files(f"founders/{source['founders']}", 0) if isinstance(source, dict) else []

    # --- what each step reads ----------------------------------------------------------------------------------

    def corpus_sources(self, corpus: str) -> list[str]:
        """The files that a corpus is built from; with splits of its own, those of train, then validation, then test."""
        spec = self.config["corpora"][corpus]
        if spec["kind"] == "union":
            return [f"{self.results}/corpora/{part}/{split}.parquet" for part in spec["corpora"] for split in SPLITS]
        if spec["kind"] == "synthetic":
            return self.all_shards(spec["experiment"], spec["generation"])
        if spec["kind"] == "hub":
            return [f"{self.results}/staged/{corpus}.parquet"]
        if spec["kind"] == "files":
            paths = [spec["splits"][split] for split in SPLITS[:3]] if spec["splits"] else [spec["path"]]
            return [file for path in paths for file in data_files(path)]
        return []

    def staged(self) -> list[str]:
        """All that a run takes from the hub (or from folders in its stead): corpora, pretrained models and tokenizers, benchmarks."""
        places = [(f"founders/{name}", m) for name in self.used_pools for m in range(self.pool_sizes[name])]
        corpora = {
            entry["corpus"] for entry in [*self.config["evaluate"]["perplexity"], self.config["evaluate"]["disagreement"]] if entry
        } - {OWN}
        for place, m in places:
            corpora |= {self.corpus(place, m), self.validation(place, m), self.sample_corpus(place, m)}
        corpora |= {self.prompt_corpus(name, m) for name, e in self.config["experiments"].items() for m in range(e["population"])}
        corpora |= {part for name in corpora for part in self.config["corpora"][name].get("corpora", [])}
        models = {name: self.config["models"][name] for name in sorted({self.model(place, m) for place, m in places})}
        fetched = [name for name, model in models.items() if isinstance(model["pretrained"] or model["tokenizer"].get("source"), str)]
        return [
            *(f"{self.results}/staged/{name}.parquet" for name in sorted(corpora) if self.config["corpora"][name]["kind"] == "hub"),
            *(f"{self.results}/models/{name}/config.json" for name in fetched),
            *self.encoder,
            *(f"{self.results}/tasks/{name}/task.json" for name, task in self.config["tasks"].items() if task["kind"] == "lm_eval"),
        ]

    def tokenizer_corpus(self, model: str) -> list[str]:
        """The corpus that a model's tokenizer is made from, if any."""
        if self.config["models"][model]["pretrained"]:
            return []
        tokenizer = self.config["models"][model]["tokenizer"]
        return [f"{self.results}/corpora/{tokenizer['corpus']}/train.parquet"] if "corpus" in tokenizer else []

    def task_sources(self, task: str) -> list[str]:
        spec = self.config["tasks"][task]
        if spec["kind"] == "microworld":
            return [f"{self.results}/corpora/{spec['corpus']}/tasks/{spec['benchmark']}.parquet"]
        return list((spec["data"] or {}).values())

    def packed(self, place: str, member: int, split: str = "train") -> str:
        """The packed tokens of a split by a member's tokenizer: the training text of its corpus, or the validation text that chooses."""
        corpus = self.validation(place, member) if split == "validation" else self.corpus(place, member)
        return f"{self.results}/tokens/{self.model(place, member)}/{corpus}/{split}.bin"

    def validation(self, place: str, member: int) -> str:
        return by_member(self.pool(place)["validation"], member) or self.corpus(place, member)

    def founder_inputs(self, pool: str, member: int) -> dict[str, list[str]]:
        place = f"founders/{pool}"
        inputs = {"blocks": [self.packed(place, member)]}
        if self.pool(place)["train"]["keep"] == "best":
            inputs["validation"] = [self.packed(place, member, "validation")]
        if self.config["models"][self.model(place, member)]["pretrained"]:
            inputs["weights"] = [f"{self.blueprint(place, member)}/model.safetensors"]
        return inputs

    def segment(self, pool: str) -> dict:
        """What says which blocks of its corpus a member's founder reads: keys pool, tokens, segments, of."""
        spec = self.config["founders"][pool]
        return {"pool": pool, "tokens": spec["train"]["tokens"], "segments": spec["segments"], "of": spec["of"]}

    def weights(self, name: str, generation: int, member: int) -> list[str]:
        """The weights that a child starts from (none for a fresh one)."""
        experiment = self.experiment(name)
        source = experiment["weights"]
        if source == "fresh":
            return []
        if source == "base":
            return [f"{self.blueprint(self.place(name, generation), member)}/model.safetensors"]
        if source == "founder":
            return [f"{self.member(name, 0, member)}/model.safetensors"]
        rank = member // self.k(name) if source == "parent" else member
        if source == "parent" or experiment["mutate"]["scale"] > 0:
            return [f"{self.results}/{name}/gen{generation - 1}/parent{rank}/model.safetensors"]
        return [f"{self.member(name, generation - 1, rank)}/model.safetensors"]

    def text(self, name: str, generation: int, member: int) -> list[str]:
        """The synthetic text that a child reads, written by the generation before (or, accumulated, by all before)."""
        source, accumulate = self.experiment(name)["text"], self.experiment(name)["human"]["accumulate"] != "none"
        if source == "human":
            return []
        if accumulate and generation > 1:
            return self.text(name, generation - 1, member) + self.round_text(name, generation, member)
        return self.round_text(name, generation, member)

    def round_text(self, name: str, generation: int, member: int) -> list[str]:
        """The part of a child's text that the generation before has written."""
        source = self.experiment(name)["text"]
        if source == "pool":
            return [f"{self.results}/{name}/gen{generation - 1}/deal{member}/text.parquet"]
        return self.shards(name, generation - 1, member % self.k(name) if source == "parent" else member)

    def shards(self, name: str, generation: int, rank: int) -> list[str]:
        shards = self.experiment(name)["generate"]["shards"]
        return [f"{self.results}/{name}/gen{generation}/synthetic{rank}/shard{s}.parquet" for s in range(shards)]

    def all_shards(self, name: str, generation: int) -> list[str]:
        return [path for rank in range(self.k(name)) for path in self.shards(name, generation, rank)]

    def pooled(self, name: str, generation: int) -> list[str]:
        """What is pooled and dealt out: all that the generation wrote, or that of another experiment (text_of)."""
        return self.all_shards(self.experiment(name)["text_of"] or name, generation)

    def writes(self, name: str, generation: int) -> bool:
        """Whether a generation's parents write: its own next generation reads it, or another experiment or a corpus does."""
        if any((corpus.get("experiment"), corpus.get("generation")) == (name, generation) for corpus in self.config["corpora"].values()):
            return True
        own = self.experiment(name)
        readers = [e for e in self.config["experiments"].values() if e["text_of"] == name]
        readers += [own] if own["text"] != "human" and not own["text_of"] else []
        return any(generation + 1 < reader["generations"] for reader in readers)

    def child_inputs(self, name: str, generation: int, member: int) -> dict[str, list[str]]:
        """Child (i, j) of slot m = i*k + j: weights of parent i, text of parent j (study A, section 3)."""
        inputs = {"weights": self.weights(name, generation, member), "text": self.text(name, generation, member)}
        place, experiment = self.place(name, generation), self.experiment(name)
        if experiment["train"]["keep"] == "best":
            inputs["validation"] = [self.packed(place, member, "validation")]
        if experiment["human"]["fraction"] > 0 or experiment["human"]["accumulate"] != "none" or experiment["text"] == "human":
            inputs["human"] = [self.packed(place, member)]
        return inputs

    def prompt_inputs(self, name: str, generation: int, rank: int) -> dict[str, list[str]]:
        """What a parent continues: held-out documents, or its own segment, of whichever member may hold the rank; one file where all have the same."""
        members = range(self.experiment(name)["population"]) if self.selects(name) else [rank]
        if self.experiment(name)["generate"]["prompt"] == "blocks":
            key, files = "blocks", [self.packed(self.place(name, generation), m) for m in members]
        else:
            key, files = "prompts", [self.prompts(self.prompt_corpus(name, m)) for m in members]
        return {key: files if len(set(files)) > 1 else files[:1]}

    def parent_inputs(self, name: str, generation: int, rank: int) -> dict[str, list[str]]:
        """Who may hold a rank: with selection any member (selection.json says which), else the slot's own."""
        if self.selects(name):
            folder = f"{self.results}/{name}/gen{generation}"
            return {"selection": [f"{folder}/selection.json"], "members": self.members(name, generation, "model.safetensors")}
        return {"members": [f"{self.member(name, generation, rank)}/model.safetensors"]}

    def prompt_corpus(self, name: str, member: int) -> str:
        return self.experiment(name)["generate"]["prompts"] or self.corpus(self.place(name, 0), member)

    def prompts(self, corpus: str) -> str:
        return f"{self.results}/corpora/{corpus}/prompts.parquet"

    def sample_corpus(self, place: str, member: int) -> str:
        return self.config["evaluate"]["samples"]["corpus"] or self.corpus(place, member)

    def measures(self, place: str, member: int) -> dict:
        """`evaluate` as it concerns a member: texts for other generations or founders are left out (the untouched model reads those of
        all founders that start from it), and `own` becomes its corpus; `name` is what the scores call it."""
        kind, name = place.split("/")
        generation = {"base": -1, "founders": 0}.get(kind)
        generation = int(name.removeprefix("gen")) if generation is None else generation
        pools = {name} if kind == "founders" else {p for p, pool in self.used_pools.items() if name in listed(pool["model"])}
        pools = {self.experiment(kind)["founders"]} if generation > 0 else pools
        kept = []
        for entry in self.config["evaluate"]["perplexity"]:
            generations, founders = entry["generations"], entry["founders"]
            if (generations is None or generation in generations) and (founders is None or pools & set(founders)):
                corpus = self.corpus(place, member) if entry["corpus"] == OWN else entry["corpus"]
                rest = {key: entry[key] for key in ("split", "sequences", "max_tokens")}
                kept.append(rest | {"corpus": corpus, "name": entry["corpus"]})
        return {key: self.config["evaluate"][key] for key in ("batch_size", "samples")} | {"perplexity": kept}

    def evaluation_inputs(self, place: str, member: int) -> dict[str, list[str]]:
        """What a member is measured with: staged tasks, held-out text, worlds, prompts, and the check for overlap."""
        text = [self.held_out(self.model(place, member), entry) for entry in self.measures(place, member)["perplexity"]]
        return {
            "tasks": self.staged_tasks(),
            "requests": self.requests(self.model(place, member)),
            "text": text,
            "worlds": [f"{self.results}/corpora/{c}/world.json" for c in self.measured_worlds(place, member)],
            "prompts": [self.prompts(self.sample_corpus(place, member))],
            "overlap": [f"{self.results}/corpora/{self.corpus(place, member)}/overlap.json"],
        }

    def staged_tasks(self) -> list[str]:
        return [f"{self.results}/tasks/{task}/task.json" for task in sorted(self.config["tasks"])]

    def requests(self, model: str) -> list[str]:
        """The benchmarks' requests as a model's tokenizer reads them: one job a model, for all its members."""
        return [f"{self.results}/requests/{model}/{task}.parquet" for task in sorted(self.config["tasks"])]

    def sequences(self, entry: dict) -> str:
        """A microworld is always scored by document: only then is the truth's likelihood of every token known."""
        return "documents" if self.config["corpora"][entry["corpus"]]["kind"] == "microworld" else entry["sequences"]

    def held_out(self, model: str, entry: dict) -> str:
        """The text of an entry of `evaluate` as a model reads it: packed blocks, or documents."""
        if self.sequences(entry) == "blocks":
            return f"{self.results}/tokens/{model}/{entry['corpus']}/{entry['split']}.bin"
        return f"{self.results}/corpora/{entry['corpus']}/{entry['split']}.parquet"

    def disagreement_inputs(self, name: str, generation: int) -> dict[str, list[str]]:
        """Weights, tokenizer and text, each by slot: only members that read the same are compared."""
        files = {"weights": "model.safetensors", "configs": "config.json", "tokenizers": "tokenizer.json"}
        inputs = {key: self.members(name, generation, file) for key, file in files.items()}
        place, entry = self.place(name, generation), self.config["evaluate"]["disagreement"]
        return inputs | {"text": [self.held_out(self.model(place, m), entry) for m in range(self.experiment(name)["population"])]}

    def training(self, place: str) -> dict:
        """The settings that say what the members of a place train on."""
        first, second = place.split("/")
        if first == "founders":
            return {"train": self.config["founders"][second]["train"]}
        return {key: self.experiment(first)[key] for key in ("train", "text", "human", "seed")}

    def quality_entry(self, place: str, member: int) -> dict:
        """The held-out text on which a training's effect is measured: the first entry of `evaluate.perplexity` on its corpus."""
        entries = [entry for entry in self.config["evaluate"]["perplexity"] if entry["corpus"] in (OWN, self.corpus(place, member))]
        return entries[0] | {"corpus": self.corpus(place, member)}

    def quality_inputs(self, place: str, member: int) -> dict[str, list[str]]:
        """What a training read and started from, held-out text, and the truth: a grammar, or (a proxy) human text."""
        first, second = place.split("/")
        model, corpus = self.model(place, member), self.corpus(place, member)
        inputs = (
            self.founder_inputs(second, member)
            if first == "founders"
            else self.child_inputs(first, int(second.removeprefix("gen")), member)
        )
        inputs = {key: paths for key, paths in inputs.items() if key != "validation"}
        inputs["held_out"] = [self.held_out(model, self.quality_entry(place, member))]
        if self.config["corpora"][corpus]["kind"] == "microworld":
            return inputs | {"world": [f"{self.results}/corpora/{corpus}/world.json"]}
        human = {"train": [self.packed(place, member)], "reference": [self.packed(place, member, "test")]}
        return inputs | human | {"prompts": [self.prompts(corpus)]}

    @property
    def disagreement_sequences(self) -> str | None:
        entry = self.config["evaluate"]["disagreement"]
        return self.sequences(entry) if entry else None

    def measured_worlds(self, place: str, member: int) -> list[str]:
        named = dict.fromkeys(entry["corpus"] for entry in self.measures(place, member)["perplexity"])
        return [name for name in named if self.config["corpora"][name]["kind"] == "microworld"]

    # --- what a run makes --------------------------------------------------------------------------------------

    def trained(self) -> list[str]:
        """The folder of every member of every generation of every experiment; shared founders once."""
        experiments = self.config["experiments"].items()
        places = [(name, g, m) for name, e in experiments for g in range(e["generations"]) for m in range(e["population"])]
        return list(dict.fromkeys(self.member(*place) for place in places))

    def evaluations(self, file: str, folders: list[str] | None = None) -> list[str]:
        """One evaluation file of every member (of `folders`, where given), and of every untouched pretrained model."""
        untouched = [f"{self.results}/base/{model}/member0" for model in self.bases]
        return [f"{folder}/{file}" for folder in folders or self.trained() + untouched]

    def selections(self) -> list[str]:
        """The selections of all generations, the last one too: it names the champion."""
        return [
            f"{self.results}/{name}/gen{generation}/selection.json"
            for name, experiment in self.config["experiments"].items()
            if self.selects(name)
            for generation in range(experiment["generations"])
        ]

    def disagreements(self) -> list[str]:
        """Where it is asked for: one a generation of every experiment with members that can disagree."""
        return [
            f"{self.results}/{name}/gen{generation}/disagreement.json"
            for name, experiment in self.config["experiments"].items()
            if self.config["evaluate"]["disagreement"] and experiment["population"] > 1
            for generation in range(experiment["generations"])
        ]

    def measured_beside(self) -> list[str]:
        """All that is measured beside each member's scores."""
        return self.disagreements() + (self.evaluations("quality.json", self.trained()) if self.config["evaluate"]["quality"] else [])

    def generation_files(self, name: str, generation: int) -> list[str]:
        """All that one generation consists of: the members, their scores, the choice, and what they hand on."""
        files = [path for file in MEMBER_FILES + EVALUATION_FILES for path in self.members(name, generation, file)]
        files += [path for path in self.disagreements() if path.startswith(f"{self.results}/{name}/gen{generation}/")]
        if self.config["evaluate"]["quality"]:
            files += self.members(name, generation, "quality.json")
        if self.selects(name):
            files.append(f"{self.results}/{name}/gen{generation}/selection.json")
        if self.writes(name, generation):
            files += self.all_shards(name, generation)
        if generation + 1 < self.experiment(name)["generations"]:
            n = self.experiment(name)["population"]
            handed = [path for m in range(n) for path in self.weights(name, generation + 1, m) if f"/gen{generation}/parent" in path]
            files += dict.fromkeys(handed)
        return files
