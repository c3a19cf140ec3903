"""Which figures a run's report has, and which artifacts each reads: the part of the plan that makes no result of its own."""

from pollination.checks import listed

FIGURES = {  # what the report shows: category and title
    "difference": ("1 Outcome", "Final generation against generation 0, population against line"),
    "diversity": ("1 Outcome", "The diversity that is best, by number of rounds"),
    "aggregates": ("1 Outcome", "Aggregated perplexity by diversity"),
    "trajectories": ("1 Outcome", "Perplexity over rounds, by diversity"),
    "comparisons": ("1 Outcome", "Ecosystems beside each other"),
    "distributions": ("1 Outcome", "Perplexities of all members' blocks, first and last round"),
    "budget": ("4 Run", "Tokens trained on by all members of an ecosystem together"),
    "disagreement": ("1 Outcome", "How much members disagree"),
    "semantics": ("2 Text", "Map of what members say to the same prompts"),
    "semantic_diversity": ("2 Text", "How diverse it is"),
    "degeneration": ("2 Text", "Degenerate text over generations"),
    "quality": ("2 Text", "Effective data quality against what training did"),
    "accuracy": ("1 Outcome", "Accuracy over generations"),
    "perplexity": ("1 Outcome", "Perplexity over generations"),
    "truth": ("1 Outcome", "True facts over generations, by popularity"),
    "selection": ("3 Selection", "How sure the choice of parents is"),
    "training": ("4 Run", "Training loss"),
    "cost": ("4 Run", "What it cost"),
}
ECOSYSTEM_FIGURES = ("diversity", "aggregates", "trajectories", "distributions", "budget")  # where the role `ecosystems` is given
OPTIONAL = (
    *ECOSYSTEM_FIGURES,
    "comparisons",
    "disagreement",
    "quality",
    "semantics",
    "semantic_diversity",
)  # made only where there is something to show
PAGES = {  # drawn as HTML
    "claims": ("1 Outcome", "The claims of both studies, tested on this run"),
    "continuations": ("2 Text", "The same prompts continued by every generation"),
    "lineage": ("3 Selection", "Who descends from whom"),
    "settings": ("4 Run", "Settings beside study A's, and choices that the papers leave open"),
}
FIGURE_FILES = {  # the files of members and generations that each reads
    "difference": ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "selection.json"),
    **dict.fromkeys((*ECOSYSTEM_FIGURES, "comparisons"), ("sequences.parquet",)),
    "budget": ("train.jsonl",),
    "disagreement": ("disagreement.json", "sequences.parquet"),
    "quality": ("quality.json",),
    "semantics": (),
    "semantic_diversity": (),
    "degeneration": ("samples.parquet",),
    "accuracy": ("scores.json", "answers.parquet", "selection.json"),
    "perplexity": ("scores.json", "selection.json"),
    "truth": ("scores.json",),
    "continuations": ("scores.json", "samples.parquet", "selection.json"),
    "lineage": ("scores.json", "samples.parquet", "selection.json"),
    "selection": ("selection.json",),
    "training": ("train.jsonl",),
    "cost": ("scores.json",),  # to come after all jobs whose benchmark files it reads
    "settings": ("scores.json", "config.json", "model.safetensors"),
    "claims": (),  # pollination/claims/declared.py says which
}


class Report:
    """What `Plan` knows of the report; it has the files that figures are drawn from."""

    def shown(self, figure: str) -> list[str]:
        """The experiments that a figure shows; an optional figure that shows none is not made."""
        roles, evaluate = self.config["figures"], self.config.get("evaluate", {})
        both = roles["population"] + roles["line"]
        several = {
            role: [name.split(":")[0] for entry in roles[role].values() for names in entry.values() for name in names]
            for role in ("ecosystems", "comparisons")
        }
        special = dict.fromkeys(ECOSYSTEM_FIGURES, several["ecosystems"])
        special |= {
            "comparisons": several["comparisons"],
            "selection": roles["population"],
            "lineage": roles["population"][:1] + roles["line"][:1],
        }
        special["disagreement"] = several["ecosystems"] if evaluate.get("disagreement") else []
        special["quality"] = (several["ecosystems"] or both) if evaluate.get("quality") else []
        special |= dict.fromkeys(("semantics", "semantic_diversity"), self.embedded())
        return list(dict.fromkeys(special.get(figure, both)))

    def figures(self) -> list[str]:
        """The figures and pages of this run's report."""
        if not self.config["experiments"]:
            return ["claims"] if self.config["theory"] or self.config["fingerprint"] else []
        return [figure for figure in (*FIGURES, *PAGES) if figure not in OPTIONAL or self.shown(figure)]

    def figure_inputs(self, figure: str) -> dict[str, list[str]]:
        """The artifacts that a figure reads, by kind: only of the experiments that play a role in the report."""
        if figure == "claims":
            return self.claim_inputs()
        roles, shown = self.config["figures"], self.shown(figure)
        last = min((self.experiment(name)["generations"] for name in shown), default=1) - 1
        places = [(name, g) for name in shown for g in range(self.experiment(name)["generations"])]
        if figure == "difference":
            places = [(name, g) for name in shown for g in dict.fromkeys((0, last))]
        if figure == "settings":
            places = [(names[0], 0) for names in (roles["population"], roles["line"]) if names]
        inputs = {}
        for file in FIGURE_FILES[figure]:
            if file == "selection.json":
                paths = [f"{self.results}/{name}/gen{g}/{file}" for name, g in places if self.selects(name)]
            elif file == "disagreement.json":
                paths = [f"{self.results}/{name}/gen{g}/{file}" for name, g in places if self.experiment(name)["population"] > 1]
            elif figure == "settings" or file == "answers.parquet" and figure == "accuracy":  # one model speaks for all
                paths = [self.members(name, g, file)[0] for name, g in (places if figure == "settings" else places[:1])]
            else:
                paths = [path for name, g in places for path in self.members(name, g, file)]
            inputs[file.split(".")[0]] = list(dict.fromkeys(paths))
        if figure in ("continuations", "degeneration"):
            inputs["vocabulary"] = self.vocabularies(shown)
        inputs |= {"semantics": {"embeddings": [self.embeddings]}, "semantic_diversity": {"diversity": [self.diversity]}}.get(figure, {})
        return inputs

    def figure_config(self, figure: str) -> dict:
        """What a figure needs of the config: a change of anything else does not redraw it."""
        if figure in ("settings", "cost"):  # what it should have cost follows from all of it
            return self.config
        if figure == "claims":
            return self.claim_config()
        roles = self.config["figures"]
        found = self.part_config(self.shown(figure) if figure in OPTIONAL else roles["population"] + roles["line"])
        embedded = figure in ("semantics", "semantic_diversity")
        found |= {"evaluate": {"semantics": self.semantics}} if embedded else {}
        mapped = {target: role for target, role in roles["paper"].items() if embedded and target == "figure_a10"}
        return found | {"figures": roles | {"paper": mapped}}

    def part_config(self, names: list[str]) -> dict:
        """What figures need of the config about some experiments."""
        keys = ("population", "generations", "founders", "select", "weights", "text", "text_of", "mutate", "human")
        experiments = {
            name: {key: self.experiment(name)[key] for key in keys} | {"generate": {"shards": self.experiment(name)["generate"]["shards"]}}
            for name in names
        }
        pools = {
            e["founders"]: {key: self.config["founders"][e["founders"]][key] for key in ("model", "corpus", "segments")}
            for e in experiments.values()
        }
        models = {name: {"pretrained": self.config["models"][name]["pretrained"]} for p in pools.values() for name in listed(p["model"])}
        return {"tasks": list(self.config["tasks"]), "experiments": experiments, "founders": pools, "models": models}

    def report_files(self) -> list[str]:
        """The figures of the loop; where the config has no experiments, the claims about theory and fingerprints."""
        ends = lambda figure: ("html", "csv") if figure in PAGES else ("svg", "png", "csv")  # noqa: E731
        return [f"{self.results}/report/{figure}.{end}" for figure in self.figures() for end in ends(figure)]
