"""Which claims are tested, and the part of the plan that says what each reads.

Imported when rules are read: no numpy here.
"""

from dataclasses import dataclass

from pollination.plan import layout
from pollination.plan.benchmark_folder import built_in_template
from pollination.plan.config.targets import DEPLOYED, TARGETS
from pollination.plan.decoding import DECODINGS
from pollination.plan.excerpts import part_config
from pollination.plan.layout import member_files, place_of, pool_of
from pollination.plan.paper import players_of, role_of, why_missing
from pollination.plan.plan import Plan
from pollination.plan.standalone import survey_of

# A population that loses no more has not collapsed: the standard error of 1,000 questions.
HOLDS_POINTS = 2.0
OVL_MARGIN, DELTA_MARGIN = 0.075, 0.1255  # half the width of the interval that study A prints
DOUBLINGS = 1.0  # "little change" of D_opt: one doubling, the ladder's smallest step
LITTLE = 0.0953  # log(1.1): a tenth of perplexity
STEP = 0.05  # doublings: D_opt moves in larger steps, so more than this is a move
TENFOLD = 1.0  # log10: squared W2 in the last quarter against the second


@dataclass(frozen=True)
class Claim:
    """One claim. Its statistic is signed so that the claim holds above `null`, or near it."""

    id: str
    target: str
    """The figure or table of the study that shows it, whose role the claim is tested on."""
    sentence: str
    test: str
    """The function that tests it: module.function of this package."""
    statistic: str
    unit: str
    null: float = 0.0
    margin: float | None = None
    """For claims of little change (equivalence): the largest distance from `null`."""
    paper: float | None = None
    """The study's value of the statistic, where it prints one."""
    only: tuple[str, ...] = ()
    """Benchmarks (templates) that the claim is about; empty: all."""

    @property
    def study(self) -> str:
        return {"a": "A", "b": "B"}[self.target.split("_")[1][0]]


POINTS, LOG, DOUBLED = "percentage points", "log perplexity", "doublings of D"
CHANGE = "final minus first accuracy"
MU = "log of aggregated perplexity, lowest diversity minus highest"
CLAIMS = (
    Claim(
        "line_collapses",
        "figure_a6",
        "A single line that trains on its own text loses accuracy.",
        "populations.line_falls",
        f"{CHANGE} of the line, sign turned",
        POINTS,
    ),
    Claim(
        "population_holds",
        "figure_a6",
        "A population does not collapse: its members' mean accuracy falls by no more than two "
        "points.",
        "populations.population_changes",
        f"{CHANGE} of the population",
        POINTS,
        null=-HOLDS_POINTS,
    ),
    Claim(
        "population_rises",
        "figure_a6",
        "On MMLU and MathQA the population even improves.",
        "populations.population_changes",
        f"{CHANGE} of the population",
        POINTS,
        only=("mmlu", "mathqa"),
    ),
    Claim(
        "population_over_line",
        "figure_a6",
        "A population ends above a single line.",
        "populations.population_over_line",
        "accuracy of the last generation, population minus line",
        POINTS,
    ),
    Claim(
        "larger_over_smaller",
        "figure_a9",
        "A larger population ends above a smaller one.",
        "populations.larger_over_smaller",
        "accuracy of the last generation, larger minus smaller population",
        POINTS,
    ),
    Claim(
        "full_over_data_only",
        "figure_a12",
        "Populations that inherit weights and text end above those that inherit text alone.",
        "populations.full_over_data_only",
        "accuracy of the last generation, full inheritance minus text alone",
        POINTS,
    ),
    Claim(
        "data_only_over_line",
        "figure_a12",
        "Populations that inherit text alone still end above a single line.",
        "populations.data_only_over_line",
        "accuracy of the last generation, text alone minus line",
        POINTS,
    ),
    Claim(
        "w2_bounded",
        "figure_a11",
        "Gaussian theory: the population's squared W2 stays bounded (within a factor of ten).",
        "standalone.w2_bounded",
        "log10 of mean squared W2, last quarter over second quarter of the generations",
        "powers of ten",
        margin=TENFOLD,
    ),
    Claim(
        "w2_line_grows",
        "figure_a11",
        "Gaussian theory: a single estimator's squared W2 grows.",
        "standalone.w2_line_grows",
        "log10 of mean squared W2, last quarter over first twentieth of the generations",
        "powers of ten",
    ),
    Claim(
        "w2_below_line",
        "figure_a8",
        "Gaussian theory: the population stays nearer to the truth than a single estimator.",
        "standalone.w2_below_line",
        "log10 of squared W2 in the last quarter, single estimator minus population",
        "powers of ten",
    ),
    Claim(
        "bound_holds",
        "figure_a11",
        "Gaussian theory: the printed tail bound holds.",
        "standalone.bound_holds",
        "least log10 of the bound over the exact probability",
        "powers of ten",
    ),
    Claim(
        "ovl",
        "figure_a3",
        "Similarities within and between families overlap as much as printed.",
        "standalone.ovl",
        "overlap coefficient minus the printed 0.313",
        "",
        margin=OVL_MARGIN,
        paper=0.0,
    ),
    Claim(
        "delta",
        "figure_a3",
        "Pairs between families are less alike than pairs within one.",
        "standalone.delta_below_zero",
        "Cliff's delta, sign turned",
        "",
        paper=0.572,
    ),
    Claim(
        "delta_moderate",
        "figure_a3",
        "They are less alike by as much as printed.",
        "standalone.delta",
        "Cliff's delta minus the printed -0.572",
        "",
        margin=DELTA_MARGIN,
        paper=0.0,
    ),
    Claim(
        "lag_asymmetry",
        "figure_a5",
        "Older models are found in newer ones of other families more than the reverse.",
        "standalone.lag_raw",
        "influence on newer minus on older models",
        "share of salience",
    ),
    Claim(
        "lag_excess",
        "figure_a5",
        "The asymmetry is more than sizes and popularity of fingerprints alone make.",
        "standalone.lag_excess",
        "the same, less its expectation",
        "share of salience",
    ),
    Claim(
        "single_collapses",
        "figure_b9",
        "A single model that trains on its own text collapses.",
        "rounds.single_collapses",
        "log perplexity, last round minus first",
        LOG,
    ),
    Claim(
        "single_best_at_first",
        "figure_b3",
        "In the short term (one round) a single model is best.",
        "rounds.single_best_at_first",
        "least lead of the lowest diversity in round 1",
        LOG,
    ),
    Claim(
        "single_not_best_later",
        "figure_b3",
        "Over all rounds a more diverse ecosystem is better than the least diverse one.",
        "rounds.single_not_best_later",
        "greatest lead over the lowest diversity, all rounds",
        LOG,
    ),
    Claim(
        "optimum_grows",
        "figure_b3",
        "The best diversity is larger after all rounds than after the first.",
        "rounds.optimum_grows",
        "log2 of D_opt of all rounds over D_opt of the first",
        DOUBLED,
        null=STEP,
        paper=2.0,
    ),
    Claim(
        "optimum_monotone",
        "figure_b3",
        "The best diversity never falls with the number of rounds.",
        "rounds.optimum_monotone",
        "largest fall of log2 D_opt, sign turned",
        DOUBLED,
        null=-STEP,
    ),
    Claim(
        "optimum_still_grows",
        "figure_b10",
        "It still grows in the second half of the rounds.",
        "rounds.optimum_still_grows",
        "log2 of D_opt of all rounds over D_opt of half of them",
        DOUBLED,
        null=STEP,
    ),
    Claim(
        "larger_models_raise",
        "figure_b5",
        "Larger models raise the best diversity.",
        "rounds.larger_models_raise",
        "log2 D_opt of the larger model minus that of the smaller",
        DOUBLED,
        null=STEP,
        paper=2.0,
    ),
    Claim(
        "larger_models_collapse",
        "figure_b5",
        "At the lowest diversity larger models collapse harder.",
        "rounds.larger_models_collapse",
        "rise of log perplexity, larger model minus smaller",
        LOG,
    ),
    Claim(
        "larger_models_raise_other",
        "figure_b14",
        "The same for the other family: larger models raise the best diversity.",
        "rounds.larger_models_raise",
        "log2 D_opt of the larger model minus that of the smaller",
        DOUBLED,
        null=STEP,
    ),
    Claim(
        "human_text_little",
        "figure_b6",
        "A tenth of human text changes the best diversity little (at most one doubling).",
        "rounds.human_text_little",
        "log2 D_opt with human text minus without",
        DOUBLED,
        margin=DOUBLINGS,
    ),
    Claim(
        "human_text_helps",
        "figure_b6",
        "At the lowest diversity a tenth of human text mitigates collapse.",
        "rounds.human_text_helps",
        "log of aggregated perplexity, without minus with human text",
        LOG,
    ),
    Claim(
        "temperature_little",
        "figure_b7",
        "Sampling temperature changes the best diversity little (at most one doubling).",
        "rounds.temperature_little",
        "log2 D_opt at the temperature minus at the lowest",
        DOUBLED,
        margin=DOUBLINGS,
    ),
    Claim(
        "two_families",
        "figure_b16",
        "A model does better beside one of another family than beside its own twin.",
        "rounds.diverse_better",
        MU,
        LOG,
    ),
    Claim(
        "communities_expansion",
        "figure_b17",
        "Communities, and models on more text, do better over all rounds.",
        "rounds.diverse_better",
        MU,
        LOG,
    ),
    Claim(
        "communities_from_start",
        "figure_b17",
        "Communities, and models on more text, are better from the human round on.",
        "rounds.diverse_from_start",
        "log of perplexity in the human round, lowest diversity minus highest",
        LOG,
    ),
    Claim(
        "twins_no_help",
        "figure_b20",
        "An identical twin changes collapse little (by a tenth of perplexity at most).",
        "rounds.twins_no_help",
        "log of aggregated perplexity, one model minus two twins",
        LOG,
        margin=LITTLE,
    ),
    Claim(
        "own_text_collapses",
        "figure_b21",
        "It is the own text that harms: training again on human text does not.",
        "rounds.own_text_collapses",
        "log of last perplexity, own text minus human text again",
        LOG,
    ),
)
CLAIM_TARGETS = tuple(dict.fromkeys(claim.target for claim in CLAIMS))
TABLES = {"figure_a8": ("recursion",), "figure_a11": ("recursion", "bound")}


def claim_lacks(plan: Plan) -> dict[str, str | None]:
    """Target -> one line on what it lacks in this config."""
    lacks = {target: why_missing(plan, target) for target in CLAIM_TARGETS}
    for target in ("figure_a3", "figure_a5"):
        if not lacks[target] and survey_of(plan, role_of(plan, target))["kind"] == "population":
            why = (
                f"the survey {role_of(plan, target)} is of this run's own members, not of deployed "
                "models"
            )
            lacks[target] = f"{target} ({TARGETS[target].title}): {why}; {DEPLOYED} has it"
    return lacks


def claim_players(plan: Plan) -> dict[str, list[str]]:
    """Target -> the experiments that its claims compare."""
    has = [
        target
        for target, why in claim_lacks(plan).items()
        if not why and TARGETS[target].needs in ("populations", "ecosystems")
    ]
    return {target: players_of(plan, target) for target in has}


def claim_inputs(plan: Plan) -> dict[str, list[str]]:
    """The artifacts that the claims are tested on, by kind: no more than a run makes anyway."""
    found: dict[str, list[str]] = {
        kind: [] for kind in ("answers", "sequences", "blueprints", "tables", "survey")
    }
    for target, names in claim_players(plan).items():
        for name in names:
            every = range(plan.experiment(name)["generations"])
            if TARGETS[target].needs == "populations":
                found["answers"] += [
                    path for g in every for path in member_files(plan, name, g, "answers.parquet")
                ]
            else:
                found["sequences"] += [
                    path for g in every for path in member_files(plan, name, g, "sequences.parquet")
                ]
            if target in ("figure_b5", "figure_b14"):
                found["blueprints"] += [
                    f"{layout.blueprint(plan, place_of(plan, name, 0), 0)}/config.json"
                ]
    for target, why in claim_lacks(plan).items():
        if not why and target in TABLES:
            found["tables"] += [
                f"{plan.results}/theory/{table}.parquet" for table in TABLES[target]
            ]
        if not why and TARGETS[target].needs == "survey":
            folder = f"{plan.results}/fingerprint/{role_of(plan, target)}"
            found["survey"] += [f"{folder}/statistics.json", f"{folder}/pairs.parquet"]
    return {kind: list(dict.fromkeys(paths)) for kind, paths in found.items()}


def claim_config(plan: Plan) -> dict:
    """What the claims need of the config: a change of anything else does not test them again."""
    lacks, names = (
        claim_lacks(plan),
        list(dict.fromkeys(name for players in claim_players(plan).values() for name in players)),
    )
    settings = {}
    for name in names:
        experiment, pool = plan.experiment(name), pool_of(plan, place_of(plan, name, 0))
        generate = experiment["generate"]
        settings[name] = {
            "founder_tokens": pool["train"]["tokens"],
            "temperature": float(generate["temperature"])
            if DECODINGS[generate["decoding"]].temperature
            else 0.0,
        }
    claims = {
        "lacks": lacks,
        "roles": {
            target: role_of(plan, target)
            for target, why in lacks.items()
            if not why and TARGETS[target].needs
        },
        "settings": settings,
        "templates": {task: built_in_template(spec) for task, spec in plan.config["tasks"].items()},
    }
    figures = {key: value for key, value in plan.config["figures"].items() if key != "paper"}
    return part_config(plan, names) | {
        "figures": figures,
        "claims": claims,
        "run": plan.config["run"],
    }
