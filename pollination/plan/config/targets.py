"""List every figure and table of the two studies: title, module, role and preset.

A is *Data Pollination*, B is *Epistemic diversity* (arXiv 2512.15011v2).
"""

from dataclasses import dataclass

POPULATIONS, ECOSYSTEMS, DEPLOYED, THEORY = (
    f"config/paper/{name}.yaml"
    for name in ("data_pollination", "epistemic_diversity", "deployed", "theory")
)


@dataclass(frozen=True)
class Target:
    """One figure or table of a study.

    `draws`: its entry in plan/figures.py, which names the module that draws it.
    """

    title: str
    draws: str
    needs: str | None
    """What its role names: populations, ecosystems, prompts or a survey; None: it has no role."""
    preset: str
    panels: tuple[str, ...] = ()
    """The panels of a figure of study B (pollination/figures/paper/ecosystems.py)."""

    @property
    def takes(self) -> str:
        """Return, in words, the values that `figures.paper` takes for it."""
        return {
            "populations": "{label: experiment, ...}",
            "ecosystems": (
                "[entry of figures.ecosystems or figures.comparisons, ...] or {title: "
                "[experiments] or {label: experiment}, ...}"
            ),
            "prompts": "[prompt_id, ...]",
            "survey": "the name of a survey in `fingerprint`",
        }[str(self.needs)]


def _a(
    title: str, draws: str, needs: str | None = "populations", preset: str = POPULATIONS
) -> Target:
    return Target(title, draws, needs, preset)


def _b(title: str, *panels: str) -> Target:
    return Target(title, "paper_ecosystems", "ecosystems", ECOSYSTEMS, panels)


SIZES = ("optima", "aggregates", "lowest", "highest")


TARGETS = {
    "figure_a3": _a(
        "Similarity of deployed models, within and between families",
        "fingerprint_similarity",
        "survey",
        DEPLOYED,
    ),
    "figure_a4": _a("Similarity between families", "fingerprint_families", "survey", DEPLOYED),
    "figure_a5": _a(
        "Directed influence against release lag", "fingerprint_influence", "survey", DEPLOYED
    ),
    "figure_a6": _a("Accuracy over generations, one population per benchmark", "paper_populations"),
    "figure_a7": _a("One prompt continued by every generation", "paper_texts", "prompts"),
    "figure_a8": _a(
        "Gaussian theory: mean and standard deviation over generations",
        "theory_trajectory",
        None,
        THEORY,
    ),
    "figure_a9": _a("Accuracy by population size", "paper_populations"),
    "figure_a10": _a("Completions of every model in semantic space", "paper_semantics"),
    "figure_a11": _a("Gaussian theory: independent runs", "theory_runs", None, THEORY),
    "figure_a12": _a("Full inheritance, data only, single line", "paper_populations"),
    "appendix_a2": _a(
        "Gaussian theory: sensitivity to samples n and estimators K",
        "theory_sensitivity",
        None,
        THEORY,
    ),
    "table_a1": _a("Architecture and training compared with study A", "paper_tables", None),
    "table_a2": _a(
        "Evolution, evaluation, seeds and software compared with study A", "paper_tables", None
    ),
    "table_a3": _a("A second prompt continued by every generation", "paper_texts", "prompts"),
    "table_a4": _a("A third prompt, the first three generations", "paper_texts", "prompts"),
    "table_a5": _a("The same prompt, the later generations", "paper_texts", "prompts"),
    "figure_b3": _b("Optimal diversity by number of rounds", "optimum"),
    "figure_b4": _b(
        "Perplexity over rounds; aggregated perplexity by diversity", "trajectories", "aggregates"
    ),
    "figure_b5": _b("Model size and amount of text", *SIZES),
    "figure_b6": _b("10 % human text", "optima", "levels"),
    "figure_b7": _b("Sampling temperature", "optima", "lowest", "highest"),
    "figure_b8": _b("Perplexity over rounds, beginning with the pretrained model", "from_base"),
    "figure_b9": _b("Independent runs of one model", "runs"),
    "figure_b10": _b("Twenty rounds", "optimum", "trajectories"),
    "figure_b13": _b("Perplexity of all members' blocks, first and last round", "distributions"),
    "figure_b14": _b("Model size and amount of text, the other family", *SIZES),
    "figure_b15": _b("Aggregated perplexity, higher and lower diversity", "compared"),
    "figure_b16": _b("Two families", "trajectories"),
    "figure_b17": _b("Communities and expansion", "trajectories"),
    "figure_b18": _b(
        "The text of each round: the base model trained on it, and evaluated on it",
        "trajectories_on_text",
        "base_on_text",
    ),
    "figure_b19": _b("Less text: repeated human text, and own text", "trajectories"),
    "figure_b20": _b("Identical twins", "trajectories"),
    "figure_b21": _b(
        "Own text and repeated human text, on test and training text",
        "trajectories",
        "trajectories_on_training",
    ),
    "table_b1": Target(
        "Generation settings compared with study B", "paper_tables", None, ECOSYSTEMS
    ),
}


ALL_ECOSYSTEMS = (
    "figure_b3",
    "figure_b4",
    "figure_b5",
    "figure_b8",
    "figure_b10",
    "figure_b13",
    "figure_b14",
)  # they show figures.ecosystems if the config assigns no role


TEXTS = {
    "figure_a7": 0,
    "table_a3": 1,
    "table_a4": 2,
    "table_a5": 2,
}  # the prompt that is shown if the config names none


TWO_TABLES = {
    "table_a4": (0, 0.6),
    "table_a5": (0.6, 1),
}  # one table on two pages: the share of generations on each (of 5: 3 and 2)
