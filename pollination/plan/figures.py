"""List every figure and page: its section of the report, what it reads, and its module.

A new figure is an entry here, a module in pollination/figures/, and a caption in workflow/report/.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure or page. Its CSV contains the numbers."""

    title: str
    module: str
    """The module of pollination/figures/ that draws it; `draw(...)` writes all its files."""
    category: str = ""
    """The section of the report, for the entries of REPORT."""
    reads: tuple[str, ...] = ()
    """What it reads: files of the members that it shows, or keys of READS (plan/reads.py)."""
    shows: str = "both"
    """Which experiments it shows: a key of SHOWS in pollination/plan/report.py."""
    generations: str = "all"
    """Which generations it reads: all, ends (the first, and the last that all have), own ends (the
    first, and each experiment's last), or start."""
    optional: bool = False
    """Whether it is drawn only if it shows an experiment."""
    page: bool = False
    """Whether it is an HTML page instead of a picture."""
    config: str = "shown"
    """Which part of the config it needs: shown (that of its experiments), whole, or claims."""
    families: bool = False
    """For fingerprints: whether it needs surveyed models with known parents."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Return the endings of its files."""
        return ("html", "csv") if self.page else ("svg", "png", "csv")


OUTCOME, TEXT, SELECTION, RUN = "1 Outcome", "2 Text", "3 Selection", "4 Run"
SEQUENCES = ("sequences.parquet",)
SETTINGS = ("scores.json", "config.json", "model.safetensors")


def _ecosystems(
    title: str,
    module: str,
    reads: tuple[str, ...] = SEQUENCES,
    shows: str = "ecosystems",
    category: str = OUTCOME,
) -> Figure:
    return Figure(title, module, category, reads, shows, optional=True)


def _study(title: str, module: str, reads: tuple[str, ...], page: bool = False) -> Figure:
    return Figure(title, f"paper.{module}", reads=reads, page=page)


REPORT = {
    "answer": Figure(
        "The answer of this run",
        "answer",
        OUTCOME,
        ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "selection.json"),
        "compared",
        generations="ends",
    ),
    "difference": Figure(
        "Change from the first to the last generation, population and single line",
        "difference",
        OUTCOME,
        ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "selection.json"),
        generations="ends",
    ),
    "sweep": Figure(
        "Measures of the last generation against the swept key: {figure}",
        "sweep",
        OUTCOME,
        ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet"),
        "swept",
        generations="own ends",
        optional=True,
    ),
    "diversity": _ecosystems("Optimal diversity by number of rounds", "diversity"),
    "aggregates": _ecosystems("Aggregated perplexity by diversity", "aggregates"),
    "trajectories": _ecosystems("Perplexity over rounds, by diversity", "trajectories"),
    "comparisons": _ecosystems("Comparison of ecosystems", "comparisons", shows="comparisons"),
    "distributions": _ecosystems(
        "Perplexity of all members' blocks, first and last round", "distributions"
    ),
    "budget": _ecosystems(
        "Training tokens of all members of an ecosystem",
        "budget",
        ("train.jsonl",),
        category=RUN,
    ),
    "disagreement": _ecosystems(
        "Disagreement between members",
        "disagreement",
        ("disagreement.json", *SEQUENCES),
        "disagreement",
    ),
    "semantics": _ecosystems(
        "Map of the members' completions of the same prompts",
        "semantics",
        ("embeddings",),
        "embedded",
        TEXT,
    ),
    "semantic_diversity": _ecosystems(
        "Semantic diversity of the completions",
        "semantic_diversity",
        ("diversity",),
        "embedded",
        TEXT,
    ),
    "degeneration": Figure(
        "Degenerate text over generations", "degeneration", TEXT, ("samples.parquet", "vocabulary")
    ),
    "quality": _ecosystems(
        "Effective data quality and the effect of training",
        "quality",
        ("quality.json",),
        "quality",
        TEXT,
    ),
    "accuracy": Figure(
        "Accuracy over generations",
        "accuracy",
        OUTCOME,
        ("scores.json", "answers.parquet", "selection.json"),
    ),
    "perplexity": Figure(
        "Perplexity over generations", "perplexity", OUTCOME, ("scores.json", "selection.json")
    ),
    "truth": Figure(
        "True facts over generations, by popularity", "truth", OUTCOME, ("scores.json",)
    ),
    "selection": Figure(
        "Confidence in the selection of parents",
        "selection",
        SELECTION,
        ("selection.json",),
        "population",
    ),
    "training": Figure("Training loss", "training", RUN, ("train.jsonl",)),
    # It reads scores so that it waits for the jobs whose benchmark files it reads, and the whole
    # config for the forecast.
    "cost": Figure("Cost of the run", "cost", RUN, ("scores.json",), config="whole"),
    "claims": Figure(
        "The claims of both studies, tested on this run",
        "claims",
        OUTCOME,
        page=True,
        config="claims",
    ),
    "continuations": Figure(
        "Continuations of the same prompts by every generation",
        "continuations",
        TEXT,
        ("scores.json", "answers.parquet", "samples.parquet", "selection.json", "vocabulary"),
        page=True,
    ),
    "interaction_graph": _ecosystems(
        "Interaction graph: who reads whom",
        "interaction_graph",
        ("selection.json",),
        "graphs",
        TEXT,
    ),
    "lineage": Figure(
        "Lineage of the members",
        "lineage",
        SELECTION,
        ("scores.json", "answers.parquet", "samples.parquet", "selection.json"),
        "first of each",
        page=True,
    ),
    "settings": Figure(
        "Settings compared with study A, and choices that the papers leave open",
        "settings",
        RUN,
        SETTINGS,
        "first of each",
        "start",
        page=True,
        config="whole",
    ),
}
THEORY = {
    "theory_trajectory": Figure(
        "Mean and standard deviation over generations (figure 8)",
        "theory.trajectory",
        reads=("recursion", "summary"),
    ),
    "theory_runs": Figure(
        "Independent runs: mean, standard deviation, W2 (figure 11)",
        "theory.runs",
        reads=("recursion", "summary"),
    ),
    "theory_sensitivity": Figure(
        "Sensitivity to samples n and estimators K", "theory.sensitivity", reads=("sensitivity",)
    ),
    "theory_noise": Figure(
        "Tolerance of selection to noise; dimensions", "theory.noise", reads=("sensitivity",)
    ),
    "theory_bound": Figure(
        "Tail bound of study A and exact probability", "theory.bound", reads=("bound",)
    ),
}
FINGERPRINT = {
    "fingerprint_similarity": Figure(
        "Similarity within and between families (figure 3)", "fingerprint.similarity"
    ),
    "fingerprint_families": Figure("Similarity of families (figure 4)", "fingerprint.families"),
    "fingerprint_influence": Figure(
        "Directed influence against release lag (figure 5)", "fingerprint.influence"
    ),
    "fingerprint_tree": Figure("Tree of the models", "fingerprint.tree"),
    "fingerprint_inheritance": Figure(
        "Inheritance of fingerprints from known parents",
        "fingerprint.inheritance",
        families=True,
    ),
}
PAPER = {  # shared by several targets of the studies (pollination/plan/config/targets.py)
    "paper_populations": _study(
        "Accuracy of populations",
        "populations",
        ("scores.json", "answers.parquet", "selection.json"),
    ),
    "paper_texts": _study(
        "Prompts and their continuations",
        "texts",
        ("scores.json", "answers.parquet", "samples.parquet", "selection.json", "vocabulary"),
        page=True,
    ),
    "paper_tables": _study(
        "Settings compared with a study", "tables", (*SETTINGS, "run.json"), page=True
    ),
    "paper_semantics": _study("Completions in semantic space", "semantics", ("embeddings",)),
    "paper_ecosystems": _study("Panels of ecosystems", "ecosystems", SEQUENCES),
}
FIGURES = REPORT | THEORY | FINGERPRINT | PAPER


def entry_of(figure: str) -> Figure:
    """Return the entry of a figure of the report; `sweep_NAME` is the `sweep` of an experiment."""
    return FIGURES["sweep" if figure.startswith("sweep_") else figure]
