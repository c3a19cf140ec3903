"""Every figure and page that the system draws: where it stands in the report, what it reads, and
which module draws it.

A new figure is an entry here, a module in pollination/figures/, and a caption in workflow/report/.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure or page. Its CSV holds the numbers."""

    title: str
    module: str
    """The module of pollination/figures/ that draws it; `draw(...)` writes all its files."""
    category: str = ""
    """The section of the report, for the entries of REPORT."""
    reads: tuple[str, ...] = ()
    """Files of the members and generations that it shows, by name; and what
    pollination/plan/report.py has under READS.
    """
    shows: str = "both"
    """Which experiments it shows: a key of SHOWS in pollination/plan/report.py."""
    generations: str = "all"
    """Which generations it reads: all, ends (first and last), or start."""
    optional: bool = False
    """Drawn only where it shows an experiment."""
    page: bool = False
    """An HTML page instead of a picture."""
    config: str = "shown"
    """Which part of the config it needs: of the experiments it shows, the whole, or that of the
    claims.
    """
    families: bool = False
    """Fingerprints: only where the parents of the surveyed models are known."""

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of the files that it consists of."""
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
    "difference": Figure(
        "Final generation against generation 0, population against line",
        "difference",
        OUTCOME,
        ("scores.json", "answers.parquet", "sequences.parquet", "facts.parquet", "selection.json"),
        generations="ends",
    ),
    "diversity": _ecosystems("The diversity that is best, by number of rounds", "diversity"),
    "aggregates": _ecosystems("Aggregated perplexity by diversity", "aggregates"),
    "trajectories": _ecosystems("Perplexity over rounds, by diversity", "trajectories"),
    "comparisons": _ecosystems("Ecosystems beside each other", "comparisons", shows="comparisons"),
    "distributions": _ecosystems(
        "Perplexities of all members' blocks, first and last round", "distributions"
    ),
    "budget": _ecosystems(
        "Tokens trained on by all members of an ecosystem together",
        "budget",
        ("train.jsonl",),
        category=RUN,
    ),
    "disagreement": _ecosystems(
        "How much members disagree",
        "disagreement",
        ("disagreement.json", *SEQUENCES),
        "disagreement",
    ),
    "semantics": _ecosystems(
        "Map of what members say to the same prompts",
        "semantics",
        ("embeddings",),
        "embedded",
        TEXT,
    ),
    "semantic_diversity": _ecosystems(
        "How diverse it is", "semantic_diversity", ("diversity",), "embedded", TEXT
    ),
    "degeneration": Figure(
        "Degenerate text over generations", "degeneration", TEXT, ("samples.parquet", "vocabulary")
    ),
    "quality": _ecosystems(
        "Effective data quality against what training did",
        "quality",
        ("quality.json",),
        "quality",
        TEXT,
    ),
    "accuracy": Figure(
        "Accuracy over generations",
        "accuracy",
        OUTCOME,
        ("scores.json", "questions", "selection.json"),
    ),
    "perplexity": Figure(
        "Perplexity over generations", "perplexity", OUTCOME, ("scores.json", "selection.json")
    ),
    "truth": Figure(
        "True facts over generations, by popularity", "truth", OUTCOME, ("scores.json",)
    ),
    "selection": Figure(
        "How sure the choice of parents is",
        "selection",
        SELECTION,
        ("selection.json",),
        "population",
    ),
    "training": Figure("Training loss", "training", RUN, ("train.jsonl",)),
    # It reads scores to come after the jobs whose benchmark files it reads, and the whole config
    # for the forecast.
    "cost": Figure("What it cost", "cost", RUN, ("scores.json",), config="whole"),
    "claims": Figure(
        "The claims of both studies, tested on this run",
        "claims",
        OUTCOME,
        page=True,
        config="claims",
    ),
    "continuations": Figure(
        "The same prompts continued by every generation",
        "continuations",
        TEXT,
        ("scores.json", "samples.parquet", "selection.json", "vocabulary"),
        page=True,
    ),
    "lineage": Figure(
        "Who descends from whom",
        "lineage",
        SELECTION,
        ("scores.json", "samples.parquet", "selection.json"),
        "first of each",
        page=True,
    ),
    "settings": Figure(
        "Settings beside study A's, and choices that the papers leave open",
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
        "How much noise selection bears; dimensions", "theory.noise", reads=("sensitivity",)
    ),
    "theory_bound": Figure(
        "The printed tail bound beside the exact probability", "theory.bound", reads=("bound",)
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
        "Whose fingerprint a child carries, the parents known",
        "fingerprint.inheritance",
        families=True,
    ),
}
PAPER = {  # what several targets of the studies share (pollination/plan/config/targets.py)
    "paper_populations": _study(
        "Accuracy of populations", "populations", ("scores.json", "questions", "selection.json")
    ),
    "paper_texts": _study(
        "Prompts and their continuations",
        "texts",
        ("scores.json", "samples.parquet", "selection.json", "vocabulary"),
        page=True,
    ),
    "paper_tables": _study(
        "Settings beside a study's", "tables", (*SETTINGS, "run.json"), page=True
    ),
    "paper_semantics": _study("Completions in semantic space", "semantics", ("embeddings",)),
    "paper_ecosystems": _study("Panels of ecosystems", "ecosystems", SEQUENCES),
}
FIGURES = REPORT | THEORY | FINGERPRINT | PAPER
