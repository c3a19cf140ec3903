"""The part of the plan that reads what members said: their samples, embedded and compared, and the words that human text has."""

from pollination.checks import listed

ENCODER_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
TFIDF = "tfidf"


class Samples:
    """What `Plan` knows of the semantics of samples (docs/semantics.md)."""

    @property
    def semantics(self) -> dict | None:
        return self.config.get("evaluate", {}).get("semantics")

    @property
    def encoder(self) -> list[str]:
        """The staged encoder's files, weights first; none where none is needed."""
        needed = self.semantics and self.semantics["encoder"] != TFIDF
        return [f"{self.results}/semantics/encoder/{file}" for file in ENCODER_FILES] if needed else []

    @property
    def embeddings(self) -> str:
        return f"{self.results}/semantics/{'encoder' if self.encoder else TFIDF}.embeddings.parquet"

    @property
    def diversity(self) -> str:
        return f"{self.results}/semantics/diversity.parquet"

    def embedded(self) -> list[str]:
        """The experiments whose samples are embedded: those that are named, else those with a role in the report; and those of study A's figure 10."""
        if self.semantics is None:
            return []
        roles = self.config["figures"]
        ecosystems = [name for entry in roles["ecosystems"].values() for names in entry.values() for name in names]
        mapped = self.players("figure_a10") if roles["paper"].get("figure_a10") else []
        return list(dict.fromkeys([*(self.semantics["experiments"] or ecosystems or roles["population"] + roles["line"]), *mapped]))

    def embedded_places(self) -> list[tuple[str, int, int, str]]:
        """(experiment, generation, member, model), the model by its folder within the run."""
        return [
            (name, g, m, f"{self.place(name, g)}/member{m}")
            for name in self.embedded()
            for g in range(self.experiment(name)["generations"])
            for m in range(self.experiment(name)["population"])
        ]

    def embedded_models(self) -> list[str]:
        return list(dict.fromkeys(model for *_, model in self.embedded_places()))

    def embedded_groups(self) -> list[dict]:
        """Replicates together: {group, experiments, population}."""
        groups: dict[str, list[str]] = {}
        for name in self.embedded():
            groups.setdefault(name.split(".")[0], []).append(name)
        return [
            {"group": group, "experiments": names, "population": self.experiment(names[0])["population"]} for group, names in groups.items()
        ]

    def vocabularies(self, experiments: list[str]) -> list[str]:
        """The words of the human text that the founders of these experiments read."""
        corpora = {corpus for name in experiments for corpus in listed(self.pool(self.place(name, 0))["corpus"])}
        return [f"{self.results}/corpora/{corpus}/vocabulary.parquet" for corpus in sorted(corpora)]
