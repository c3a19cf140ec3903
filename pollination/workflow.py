"""Which files an experiment consists of, and which of them each step reads: the static DAG, as functions of the config.

Slots and ranks (docs/design.md): members are slots 0..N-1, parents are ranks 0..k-1; who holds a rank is written in
`selection.json` and read when a job runs, so the whole plan is known before anything has run. All paths are relative
to the run's folder, `results/{run}/`, which rules spell `<results>`.
"""

from dataclasses import dataclass
from functools import cached_property

from pollination.config import data_files
from pollination.fingerprint.catalogue import read_catalogue, slug

SPLITS = ("train", "validation", "test", "prompts")
MEMBER_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
EVALUATION_FILES = ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "samples.parquet")
FIGURES = {  # what the report shows: category and title
    "difference": ("1 Outcome", "Final generation against generation 0, population against line"),
    "accuracy": ("1 Outcome", "Accuracy over generations"),
    "perplexity": ("1 Outcome", "Perplexity over generations"),
    "truth": ("1 Outcome", "True facts over generations, by popularity"),
    "lineage": ("3 Selection", "Ancestors of the final champion"),
    "selection": ("3 Selection", "How sure the choice of parents is"),
    "training": ("4 Run", "Training loss"),
    "cost": ("4 Run", "What it cost"),
}
PAGES = {  # drawn as HTML
    "continuations": ("2 Text", "The same prompts continued by every generation"),
    "settings": ("4 Run", "Settings beside study A's, and choices that the papers leave open"),
}
FIGURE_FILES = {  # the files of members and generations that each reads
    "difference": ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "selection.json"),
    "accuracy": ("scores.json", "answers.parquet", "selection.json"),
    "perplexity": ("scores.json", "selection.json"),
    "truth": ("scores.json",),
    "continuations": ("scores.json", "samples.parquet", "selection.json"),
    "lineage": ("scores.json", "selection.json"),
    "selection": ("selection.json",),
    "training": ("train.jsonl",),
    "cost": ("scores.json",),  # to come after all jobs whose benchmark files it reads
    "settings": ("scores.json", "config.json", "model.safetensors"),
}

THEORY_FIGURES = {  # title, and the table that each reads
    "theory_trajectory": ("Mean and standard deviation over generations (figure 8)", "recursion"),
    "theory_runs": ("Independent runs: mean, standard deviation, W2 (figure 11)", "recursion"),
    "theory_sensitivity": ("Sensitivity to samples n and estimators K", "sensitivity"),
    "theory_noise": ("How much noise selection bears; dimensions", "sensitivity"),
    "theory_bound": ("The printed tail bound beside the exact probability", "bound"),
}
FINGERPRINT_FIGURES = {
    "fingerprint_similarity": "Similarity within and between families (figure 3)",
    "fingerprint_families": "Similarity of families (figure 4)",
    "fingerprint_influence": "Directed influence against release lag (figure 5)",
    "fingerprint_tree": "Tree of the models",
    "fingerprint_inheritance": "Whose fingerprint a child carries, the parents known",
}


@dataclass(frozen=True)
class Plan:
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
        """Founders of each pool: as many as its largest experiment takes."""
        sizes = dict.fromkeys(self.config["founders"], 0)
        for experiment in self.config["experiments"].values():
            sizes[experiment["founders"]] = max(sizes[experiment["founders"]], experiment["population"])
        return sizes

    def pool(self, place: str) -> dict:
        """The founder pool behind a place: 'founders/{pool}' or '{experiment}/gen{g}'."""
        first, second = place.split("/")
        return self.config["founders"][second if first == "founders" else self.experiment(first)["founders"]]

    # --- members -----------------------------------------------------------------------------------------------

    def place(self, name: str, generation: int) -> str:
        """Where a generation's members lie; generation 0 is the founder pool itself."""
        return f"founders/{self.experiment(name)['founders']}" if generation == 0 else f"{name}/gen{generation}"

    def member(self, name: str, generation: int, member: int) -> str:
        return f"{self.results}/{self.place(name, generation)}/member{member}"

    def members(self, name: str, generation: int, file: str) -> list[str]:
        """One file of every member of a generation, in slot order."""
        return [f"{self.member(name, generation, m)}/{file}" for m in range(self.experiment(name)["population"])]

    def blueprint(self, place: str) -> str:
        return f"{self.results}/models/{self.pool(place)['model']}"

    def context_tokens(self, place: str) -> int:
        return self.config["models"][self.pool(place)["model"]]["context_tokens"]

    # --- what each step reads ----------------------------------------------------------------------------------

    def corpus_sources(self, corpus: str) -> list[str]:
        spec = self.config["corpora"][corpus]
        if spec["kind"] == "hub":
            return [f"{self.results}/staged/{corpus}.parquet"]
        return data_files(spec["path"]) if spec["kind"] == "files" else []

    def tokenizer_corpus(self, model: str) -> list[str]:
        """The corpus that a model's tokenizer is made from, if any."""
        tokenizer = self.config["models"][model]["tokenizer"]
        return [f"{self.results}/corpora/{tokenizer['corpus']}/train.parquet"] if "corpus" in tokenizer else []

    def task_sources(self, task: str) -> list[str]:
        spec = self.config["tasks"][task]
        if spec["kind"] == "microworld":
            return [f"{self.results}/corpora/{spec['corpus']}/tasks/{spec['benchmark']}.parquet"]
        return list((spec["data"] or {}).values())

    def packed(self, place: str, split: str) -> str:
        """The packed tokens of a pool's corpus by its model's tokenizer."""
        pool = self.pool(place)
        return f"{self.results}/tokens/{pool['model']}/{pool['corpus']}/{split}.bin"

    def founder_inputs(self, pool: str) -> dict[str, list[str]]:
        place = f"founders/{pool}"
        inputs = {"blocks": [self.packed(place, "train")]}
        if self.pool(place)["train"]["keep"] == "best":
            inputs["validation"] = [self.packed(place, "validation")]
        if self.config["models"][self.pool(place)["model"]]["pretrained"]:
            inputs["weights"] = [f"{self.blueprint(place)}/model.safetensors"]
        return inputs

    def weights(self, name: str, generation: int, member: int) -> list[str]:
        """The weights that a child starts from (none for a fresh one)."""
        experiment = self.experiment(name)
        source = experiment["weights"]
        if source == "fresh":
            return []
        if source == "founder":
            return [f"{self.member(name, 0, member)}/model.safetensors"]
        rank = member // self.k(name) if source == "parent" else member
        if source == "parent" or experiment["mutate"]["scale"] > 0:
            return [f"{self.results}/{name}/gen{generation - 1}/parent{rank}/model.safetensors"]
        return [f"{self.member(name, generation - 1, rank)}/model.safetensors"]

    def text(self, name: str, generation: int, member: int) -> list[str]:
        """The synthetic text that a child reads, written by the generation before."""
        before = f"{self.results}/{name}/gen{generation - 1}"
        source = self.experiment(name)["text"]
        if source == "pool":
            return [f"{before}/deal{member}/text.parquet"]
        return self.shards(name, generation - 1, member % self.k(name) if source == "parent" else member)

    def shards(self, name: str, generation: int, rank: int) -> list[str]:
        shards = self.experiment(name)["generate"]["shards"]
        return [f"{self.results}/{name}/gen{generation}/synthetic{rank}/shard{s}.parquet" for s in range(shards)]

    def all_shards(self, name: str, generation: int) -> list[str]:
        return [path for rank in range(self.k(name)) for path in self.shards(name, generation, rank)]

    def child_inputs(self, name: str, generation: int, member: int) -> dict[str, list[str]]:
        """Child (i, j) of slot m = i*k + j: weights of parent i, text of parent j (study A, section 3)."""
        inputs = {"weights": self.weights(name, generation, member), "text": self.text(name, generation, member)}
        place = self.place(name, generation)
        if self.experiment(name)["train"]["keep"] == "best":
            inputs["validation"] = [self.packed(place, "validation")]
        if self.experiment(name)["human"]["fraction"] > 0:
            inputs["human"] = [self.packed(place, "train")]
        return inputs

    def parent_inputs(self, name: str, generation: int, rank: int) -> dict[str, list[str]]:
        """Who may hold a rank: with selection any member (selection.json says which), else the slot's own."""
        if self.selects(name):
            folder = f"{self.results}/{name}/gen{generation}"
            return {"selection": [f"{folder}/selection.json"], "members": self.members(name, generation, "model.safetensors")}
        return {"members": [f"{self.member(name, generation, rank)}/model.safetensors"]}

    def prompt_corpus(self, name: str) -> str:
        experiment = self.experiment(name)
        return experiment["generate"]["prompts"] or self.config["founders"][experiment["founders"]]["corpus"]

    def prompts(self, corpus: str) -> str:
        return f"{self.results}/corpora/{corpus}/prompts.parquet"

    def sample_corpus(self, place: str) -> str:
        return self.config["evaluate"]["samples"]["corpus"] or self.pool(place)["corpus"]

    def evaluation_inputs(self, place: str) -> dict[str, list[str]]:
        """What a member is measured with: staged tasks, held-out text, worlds, prompts, and the check for overlap."""
        model, entries = self.pool(place)["model"], self.config["evaluate"]["perplexity"]
        text = [
            f"{self.results}/tokens/{model}/{entry['corpus']}/{entry['split']}.bin"
            if self.sequences(entry) == "blocks"
            else f"{self.results}/corpora/{entry['corpus']}/{entry['split']}.parquet"
            for entry in entries
        ]
        worlds = [f"{self.results}/corpora/{c}/world.json" for c in self.measured_worlds]
        return {
            "tasks": [f"{self.results}/tasks/{task}/task.json" for task in sorted(self.config["tasks"])],
            "text": text,
            "worlds": worlds,
            "prompts": [self.prompts(self.sample_corpus(place))],
            "overlap": [f"{self.results}/corpora/{self.pool(place)['corpus']}/overlap.json"],
        }

    def sequences(self, entry: dict) -> str:
        """A microworld is always scored by document: only then is the truth's likelihood of every token known."""
        return "documents" if self.config["corpora"][entry["corpus"]]["kind"] == "microworld" else entry["sequences"]

    @cached_property
    def measured_worlds(self) -> list[str]:
        named = dict.fromkeys(entry["corpus"] for entry in self.config["evaluate"]["perplexity"])
        return [name for name in named if self.config["corpora"][name]["kind"] == "microworld"]

    # --- what a run makes --------------------------------------------------------------------------------------

    def evaluations(self, file: str) -> list[str]:
        """One evaluation file of every member of every generation of every experiment; shared founders once."""
        paths = [
            path
            for name, experiment in self.config["experiments"].items()
            for generation in range(experiment["generations"])
            for path in self.members(name, generation, file)
        ]
        return list(dict.fromkeys(paths))

    def selections(self) -> list[str]:
        """The selections of all generations, the last one too: it names the champion."""
        return [
            f"{self.results}/{name}/gen{generation}/selection.json"
            for name, experiment in self.config["experiments"].items()
            if self.selects(name)
            for generation in range(experiment["generations"])
        ]

    def generation_files(self, name: str, generation: int) -> list[str]:
        """All that one generation consists of: the members, their scores, the choice, and what they hand on."""
        files = [path for file in MEMBER_FILES + EVALUATION_FILES for path in self.members(name, generation, file)]
        if self.selects(name):
            files.append(f"{self.results}/{name}/gen{generation}/selection.json")
        if generation + 1 < self.experiment(name)["generations"]:
            files += self.all_shards(name, generation)
            n = self.experiment(name)["population"]
            handed = [path for m in range(n) for path in self.weights(name, generation + 1, m) if f"/gen{generation}/parent" in path]
            files += dict.fromkeys(handed)
        return files

    def figure_inputs(self, figure: str) -> dict[str, list[str]]:
        """The artifacts that a figure reads, by kind: only of the experiments that play a role in the report."""
        roles = self.config["figures"]
        shown = {"selection": roles["population"]}.get(figure, roles["population"] + roles["line"])
        if figure == "lineage":
            shown = shown[:1]
        last = min((self.experiment(name)["generations"] for name in shown), default=1) - 1
        places = [(name, g) for name in shown for g in range(self.experiment(name)["generations"])]
        if figure == "difference":
            places = [(name, g) for name in shown for g in dict.fromkeys((0, last))]
        if figure == "settings":
            places = [(names[0], 0) for names in roles.values() if names]
        inputs = {}
        for file in FIGURE_FILES[figure]:
            if file == "selection.json":
                paths = [f"{self.results}/{name}/gen{g}/{file}" for name, g in places if self.selects(name)]
            elif figure == "settings" or file == "answers.parquet" and figure == "accuracy":  # one model speaks for all
                paths = [self.members(name, g, file)[0] for name, g in (places if figure == "settings" else places[:1])]
            else:
                paths = [path for name, g in places for path in self.members(name, g, file)]
            inputs[file.split(".")[0]] = list(dict.fromkeys(paths))
        return inputs

    def figure_config(self, figure: str) -> dict:
        """What a figure needs of the config: a change of anything else does not redraw it."""
        if figure == "settings":
            return self.config
        keys = ("population", "generations", "founders", "select", "weights", "text", "mutate", "human")
        experiments = {
            name: {key: self.experiment(name)[key] for key in keys} | {"generate": {"shards": self.experiment(name)["generate"]["shards"]}}
            for names in self.config["figures"].values()
            for name in names
        }
        pools = {
            e["founders"]: {key: self.config["founders"][e["founders"]][key] for key in ("model", "corpus")} for e in experiments.values()
        }
        return {"figures": self.config["figures"], "experiments": experiments, "founders": pools, "tasks": list(self.config["tasks"])}

    def drawn(self, figures: dict | list) -> list[str]:
        return [f"{self.results}/report/{figure}.{end}" for figure in figures for end in ("svg", "png", "csv")]

    def theory_files(self) -> list[str]:
        """The theory's tables and figures; none where the config has no theory."""
        tables = [f"{self.results}/theory/{table}.parquet" for table in ("recursion", "summary", "sensitivity", "bound")]
        return tables + self.drawn(THEORY_FIGURES) if self.config["theory"] else []

    # --- surveys of fingerprints --------------------------------------------------------------------------------

    def survey(self, name: str) -> dict:
        return self.config["fingerprint"][name]

    def surveyed(self, name: str) -> dict[str, dict]:
        """Population surveys: model -> folder, family and generation (its 'release'). Founders are a family of their own: all descend from them."""
        found = {}
        for experiment in self.survey(name)["experiments"]:
            for generation in range(self.experiment(experiment)["generations"]):
                for member in range(self.experiment(experiment)["population"]):
                    folder = self.member(experiment, generation, member)
                    family = experiment if generation else f"founders {self.experiment(experiment)['founders']}"
                    found[folder.removeprefix(f"{self.results}/")] = {
                        "family": family,
                        "month": generation,
                        "release": f"generation {generation}",
                    }
        return found

    def sampled_models(self, name: str) -> dict[str, dict]:
        """As `surveyed`, for a population; a survey of other models has them in its models.csv."""
        return self.surveyed(name) if self.survey(name)["kind"] == "population" else {}

    def served(self, name: str, part: str) -> dict[str, str]:
        """Where a collected model is served; keys and prices are read when the job runs, because they change no output."""
        row = next(row for model, row in read_catalogue(self.survey(name)["models"], served=True).items() if slug(model) == part)
        return {key: row[key] for key in ("model", "base_url", "name")} | {"catalogue": self.survey(name)["models"]}

    def survey_parts(self, name: str) -> dict[str, list[str]]:
        """Part -> the files that one job counts: an entry of `path`, one collected model, or all samples of a population."""
        survey = self.survey(name)
        if survey["kind"] == "population":
            return {"members": [f"{self.results}/{model}/samples.parquet" for model in self.surveyed(name)]}
        if survey["kind"] == "collect":
            models = map(slug, read_catalogue(survey["models"]))
            return {model: [f"{self.results}/fingerprint/{name}/outputs/{model}.parquet"] for model in models}
        entries = [survey["path"]] if isinstance(survey["path"], str) else survey["path"]
        if survey["kind"] == "results":
            entries = [file for entry in entries for file in data_files(entry)]
        return {f"part{number}": data_files(entry) for number, entry in enumerate(entries)}

    def families(self, name: str) -> list[dict]:
        """Population surveys: what is known of each child before anything has run: itself, the generation before, and who holds which rank."""
        experiments = self.survey(name)["experiments"]
        places = [
            (e, g, m)
            for e in experiments
            for g in range(1, self.experiment(e)["generations"])
            for m in range(self.experiment(e)["population"])
        ]
        short = lambda *place: self.member(*place).removeprefix(f"{self.results}/")  # noqa: E731
        found = []
        for e, g, m in places:
            before = [short(e, g - 1, other) for other in range(self.experiment(e)["population"])]
            operators = {"k": self.k(e), "weights": self.experiment(e)["weights"], "text": self.experiment(e)["text"]}
            selection = f"{self.results}/{e}/gen{g - 1}/selection.json" if self.selects(e) else None
            found.append(
                {"experiment": e, "generation": g, "slot": m, "child": short(e, g, m), "before": before, "selection": selection} | operators
            )
        return found

    def survey_selections(self, name: str) -> list[str]:
        return list(dict.fromkeys(child["selection"] for child in self.families(name) if child["selection"]))

    def fingerprint_files(self) -> list[str]:
        """The figures of all surveys; those of descent for populations only."""
        found = []
        for name, survey in self.config["fingerprint"].items():
            figures = [figure for figure in FINGERPRINT_FIGURES if figure != "fingerprint_inheritance" or survey["kind"] == "population"]
            found += self.drawn([f"{figure}.{name}" for figure in figures])
        return found

    def report_files(self) -> list[str]:
        """The figures of the loop; none where the config has no experiments."""
        if not self.config["experiments"]:
            return []
        return self.drawn(FIGURES) + [f"{self.results}/report/{page}.{end}" for page in PAGES for end in ("html", "csv")]
