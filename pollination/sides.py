"""The part of the plan that can run alone, without the loop: the Gaussian theory, and surveys of fingerprints."""

from pollination.config import data_files
from pollination.fingerprint.catalogue import read_catalogue, slug

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


class Sides:
    """What `Plan` knows of theory and fingerprints."""

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
