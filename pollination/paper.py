"""A target for every figure and table of the two studies: `snakemake figure_a6`, `snakemake table_b1`.

A is *Data Pollination*, B *Epistemic diversity* (arXiv 2512.15011v2). `figures.paper` in a config says who plays in a figure; some have a
default. A target whose role nobody plays says in one line which preset has it.
"""

from dataclasses import dataclass

POPULATIONS, ECOSYSTEMS, DEPLOYED, THEORY = (
    f"config/paper/{name}.yaml" for name in ("data_pollination", "epistemic_diversity", "deployed", "theory")
)


@dataclass(frozen=True)
class Target:
    """One figure or table of a study. `draws`: the module of pollination/figures that draws it, or the figure of the report that it is."""

    title: str
    draws: str
    needs: str | None
    """What its role holds: populations, ecosystems, prompts or a survey; None: it takes no role."""
    preset: str
    panels: tuple[str, ...] = ()
    """For figures of study B, their panels (pollination/figures/paper_ecosystems.py)."""

    @property
    def takes(self) -> str:
        """In words, what `figures.paper` may say of it."""
        return {
            "populations": "{label: experiment, ...}",
            "ecosystems": "[entry of figures.ecosystems or figures.comparisons, ...] or {title: [experiments] or {label: experiment}, ...}",
            "prompts": "[prompt_id, ...]",
            "survey": "the name of a survey of `fingerprint`",
        }[self.needs]

    @property
    def is_page(self) -> bool:
        return self.draws in ("paper_texts", "paper_tables")


def _a(title: str, draws: str, needs: str | None = "populations", preset: str = POPULATIONS) -> Target:
    return Target(title, draws, needs, preset)


def _b(title: str, *panels: str) -> Target:
    return Target(title, "paper_ecosystems", "ecosystems", ECOSYSTEMS, panels)


SIZES = ("optima", "aggregates", "lowest", "highest")
TARGETS = {
    "figure_a3": _a("Similarity of deployed models, within and between families", "fingerprint_similarity", "survey", DEPLOYED),
    "figure_a4": _a("Similarity of families", "fingerprint_families", "survey", DEPLOYED),
    "figure_a5": _a("Directed influence against release lag", "fingerprint_influence", "survey", DEPLOYED),
    "figure_a6": _a("Accuracy over generations, a population for each benchmark", "paper_populations"),
    "figure_a7": _a("One prompt continued by every generation", "paper_texts", "prompts"),
    "figure_a8": _a("Gaussian theory: mean and standard deviation over generations", "theory_trajectory", None, THEORY),
    "figure_a9": _a("Accuracy by size of the population", "paper_populations"),
    "figure_a10": _a("Completions of every model in semantic space", "paper_semantics"),
    "figure_a11": _a("Gaussian theory: independent runs", "theory_runs", None, THEORY),
    "figure_a12": _a("Full inheritance, data only, single line", "paper_populations"),
    "table_a1": _a("Architecture and training beside study A's", "paper_tables", None),
    "table_a2": _a("Evolution, evaluation, seeds and software beside study A's", "paper_tables", None),
    "table_a3": _a("A second prompt continued by every generation", "paper_texts", "prompts"),
    "table_a4": _a("A third prompt, the first three generations", "paper_texts", "prompts"),
    "table_a5": _a("The same prompt, the generations after", "paper_texts", "prompts"),
    "figure_b3": _b("Optimal diversity by number of rounds", "optimum"),
    "figure_b4": _b("Perplexity over rounds; aggregated by diversity", "trajectories", "aggregates"),
    "figure_b5": _b("Model size and amount of text", *SIZES),
    "figure_b6": _b("A tenth of human text", "optima", "levels"),
    "figure_b7": _b("Sampling temperature", "optima", "lowest", "highest"),
    "figure_b8": _b("Perplexity from the untouched model on", "from_base"),
    "figure_b9": _b("Independent runs of one model", "runs"),
    "figure_b10": _b("Twenty rounds", "optimum", "trajectories"),
    "figure_b13": _b("Perplexities of all members' blocks, first and last round", "distributions"),
    "figure_b14": _b("Model size and amount of text, the other family", *SIZES),
    "figure_b15": _b("Aggregated perplexity, more diversity against less", "compared"),
    "figure_b16": _b("Two families", "trajectories"),
    "figure_b17": _b("Communities and expansion", "trajectories"),
    "figure_b18": _b("Each round's text: the base trained on it, and measured on it", "trajectories", "base_on_text"),
    "figure_b19": _b("Less text: human text again, and own text", "trajectories"),
    "figure_b20": _b("Identical twins", "trajectories"),
    "figure_b21": _b("Own text against human text again, on test and training text", "trajectories", "trajectories_on_training"),
    "table_b1": Target("Generation settings beside study B's", "paper_tables", None, ECOSYSTEMS),
}
ALL_ECOSYSTEMS = (
    "figure_b3",
    "figure_b4",
    "figure_b5",
    "figure_b8",
    "figure_b10",
    "figure_b13",
    "figure_b14",
)  # shown where none are named
TEXTS = {"figure_a7": 0, "table_a3": 1, "table_a4": 2, "table_a5": 2}  # which prompt is shown where none is named
TWO_TABLES = {"table_a4": (0, 0.6), "table_a5": (0.6, 1)}  # one table on two pages: which share of the generations each has (of 5: 3 and 2)
FILES = {
    "paper_populations": ("scores.json", "answers.parquet", "selection.json"),
    "paper_texts": ("scores.json", "samples.parquet", "selection.json"),
    "paper_tables": ("scores.json", "config.json", "model.safetensors", "run.json"),
    "paper_ecosystems": ("sequences.parquet",),
}


class Paper:
    """What `Plan` knows of the studies' figures and tables."""

    def role(self, target: str):
        """Who plays in a target: populations {label: replicates}, ecosystems {title: {label: replicates}}, prompts, or a survey's name."""
        roles, needs = self.config["figures"], TARGETS[target].needs
        if roles["paper"].get(target):
            given = roles["paper"][target]
            return {title: names for one in given.values() for title, names in one.items()} if needs == "populations" else given
        if needs == "survey":
            return next(iter(self.config["fingerprint"]), None)
        if needs == "prompts":
            return [] if roles["population"] + roles["line"] else None
        if target == "figure_a6" and roles["population"] and self.config["tasks"]:
            return {self.experiment(roles["population"][0])["select"]["task"]: roles["population"]}
        if target == "figure_a10" and roles["population"]:
            return {roles["population"][0]: roles["population"]}
        return roles["ecosystems"] or None if target in ALL_ECOSYSTEMS else None

    def missing(self, target: str) -> str | None:
        """One line on what a target lacks in this config, or None."""
        one, role = TARGETS[target], self.role(target)
        lacks = None
        if one.draws.startswith("theory_"):
            lacks = None if self.config["theory"] else "the section `theory` is empty"
        elif not self.config["experiments"] and one.needs != "survey":
            lacks = "there are no experiments"
        elif one.needs == "survey":
            lacks = None if role else "the section `fingerprint` is empty"
        elif one.needs and role is None:
            lacks = f"figures.paper.{target} is not given; allowed: {one.takes}"
        elif one.draws == "paper_populations" and not self.config["tasks"]:
            lacks = "the section `tasks` is empty"
        elif one.draws == "paper_semantics" and not self.config["evaluate"].get("semantics"):
            lacks = "evaluate.semantics is not given"
        elif "from_base" in one.panels and not self.models_of(target) <= set(self.bases):
            lacks = f"it shows models that are not pretrained ({', '.join(sorted(self.models_of(target) - set(self.bases)))})"
        elif "base_on_text" in one.panels and not self.base_texts(target):
            lacks = "no corpus of kind synthetic is measured on the untouched model (evaluate.perplexity, generations: [-1])"
        return f"{target} ({one.title}): {lacks}; {one.preset} has it" if lacks else None

    def target_files(self, target: str) -> list[str]:
        """What a target makes; ValueError with one line where this config lacks its role."""
        if why := self.missing(target):
            raise ValueError(why)
        one = TARGETS[target]
        if one.needs == "survey":
            return self.drawn([f"{one.draws}.{self.role(target)}"])
        if one.draws.startswith("theory_"):
            return self.drawn([one.draws])
        return [f"{self.results}/paper/{target}.{end}" for end in (("html", "csv") if one.is_page else ("svg", "png", "csv"))]

    def paper_targets(self) -> list[str]:
        """The targets of this config: those whose roles are named, and the tables that need none beside them."""
        named = list(self.config["figures"]["paper"])
        studies = {name[name.index("_") + 1] for name in named}
        free = [name for name, one in TARGETS.items() if one.needs is None and name[name.index("_") + 1] in studies]
        return [name for name in TARGETS if name in named + free and not self.missing(name)]

    def paper_files(self) -> list[str]:
        return [path for target in self.paper_targets() for path in self.target_files(target)]

    def players(self, target: str) -> list[str]:
        """The experiments that a target shows."""
        needs, role, roles = TARGETS[target].needs, self.role(target), self.config["figures"]
        line = roles["line"] if target != "figure_a10" else []
        if needs == "populations":
            return list(dict.fromkeys([name for names in role.values() for name in names] + line))
        if needs == "ecosystems":
            return list(dict.fromkeys(name.split(":")[0] for entry in role.values() for names in entry.values() for name in names))
        return roles["population"][:1] + roles["line"][:1]

    def base_texts(self, target: str) -> dict[str, dict[int, str]]:
        """Experiment whose text a player of the target reads -> {round: the corpus of what it wrote then}, if the untouched model is measured on it."""
        sources = list(dict.fromkeys(filter(None, (self.experiment(name)["text_of"] for name in self.players(target)))))
        measured = {e["corpus"] for e in self.config["evaluate"]["perplexity"] if e["generations"] is None or -1 in e["generations"]}
        found = {}
        for corpus, spec in self.config["corpora"].items():
            if spec["kind"] == "synthetic" and spec["experiment"] in sources and corpus in measured:
                found.setdefault(spec["experiment"], {})[spec["generation"]] = corpus
        return {name: dict(sorted(rounds.items())) for name, rounds in found.items()}

    def models_of(self, target: str) -> set[str]:
        """The models that a target's players are made of."""
        return {self.model(self.place(name, 0), m) for name in self.players(target) for m in range(self.experiment(name)["population"])}

    def target_inputs(self, target: str) -> dict[str, list[str]]:
        """The artifacts that a target is drawn from, by kind."""
        one, players = TARGETS[target], self.players(target)
        places = [(name, g) for name in players for g in range(self.experiment(name)["generations"])]
        if one.draws == "paper_semantics":
            return {"embeddings": [self.embeddings]}
        inputs = {"vocabulary": self.vocabularies(players)} if one.draws == "paper_texts" else {}
        for file in FILES[one.draws]:
            if file == "selection.json":
                paths = [f"{self.results}/{name}/gen{g}/{file}" for name, g in places if self.selects(name)]
            elif one.draws == "paper_tables" or file == "answers.parquet":  # one model speaks for all
                paths = [self.members(name, g, file)[0] for name, g in places if g == 0]
            else:
                paths = [path for name, g in places for path in self.members(name, g, file)]
            inputs[file.split(".")[0]] = list(dict.fromkeys(paths))
        if {"from_base", "base_on_text"} & set(one.panels):
            untouched = sorted(self.models_of(target) & set(self.bases))
            inputs["base"] = [f"{self.results}/base/{model}/member0/sequences.parquet" for model in untouched]
        return inputs

    def target_config(self, target: str) -> dict:
        """What a target needs of the config: a change of anything else does not redraw it."""
        one = TARGETS[target]
        if one.draws == "paper_tables":
            return self.config
        found = self.part_config(self.players(target))
        role = {target: self.config["figures"]["paper"][target]} if target in self.config["figures"]["paper"] else {}
        if one.draws == "paper_semantics":
            found["evaluate"] = {"semantics": self.semantics}
        if "base_on_text" in one.panels:
            found["corpora"] = {
                name: {key: self.config["corpora"][name][key] for key in ("kind", "experiment", "generation")}
                for rounds in self.base_texts(target).values()
                for name in rounds.values()
            }
            found["evaluate"] = {"perplexity": [{"corpus": name, "generations": [-1]} for name in found["corpora"]]}
        return found | {"figures": self.config["figures"] | {"paper": role}}
