"""Declare the claims that are tested on a run, and the artifacts that the tests read.

Rules import this module, so it must not import numpy.
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

# The largest loss without collapse. The standard error of 1,000 questions is 1.4 points.
HOLDS_POINTS = 2.0
OVL_MARGIN, DELTA_MARGIN = 0.075, 0.1255  # half the width of study A's interval
DOUBLINGS = 1.0  # a little change of D_opt: one doubling, the smallest step of D
LITTLE = 0.0953  # log(1.1): 10 % of perplexity
STEP = 0.05  # doublings: D_opt changes in larger steps, so a larger difference is a change
TENFOLD = 1.0  # log10: ratio of squared W2, last quarter to second quarter


@dataclass(frozen=True)
class Claim:
    """One claim. Its statistic is signed so that the claim holds above, or near, `null`."""

    id: str
    target: str
    """The figure or table of the study; its role names the experiments of the test."""
    sentence: str
    test: str
    """The function that tests it: module.function of pollination/analysis/claims/."""
    statistic: str
    unit: str
    null: float = 0.0
    margin: float | None = None
    """For claims of little change (equivalence): the largest allowed distance from `null`."""
    paper: float | None = None
    """The study's value of the statistic, if it gives one."""
    only: tuple[str, ...] = ()
    """Benchmarks (templates) that the claim is about; empty: all."""

    @property
    def study(self) -> str:
        return {"a": "A", "b": "B"}[self.target.split("_")[1][0]]


CONTROLLED = "figure_a6"  # the target whose claims compare the population with its controls
POINTS, LOG, DOUBLED = "percentage points", "log perplexity", "doublings of D"
CHANGE = "final minus first accuracy"
MU = "log of aggregated perplexity, lowest diversity minus highest"
CLAIMS = (
    Claim(
        "line_collapses",
        "figure_a6",
        "A single line that trains on its own text loses accuracy.",
        "populations.line_falls",
        f"{CHANGE} of the single line, sign reversed",
        POINTS,
    ),
    Claim(
        "population_holds",
        "figure_a6",
        "A population does not collapse: the mean accuracy of its members falls by at most two "
        "percentage points.",
        "populations.population_changes",
        f"{CHANGE} of the population",
        POINTS,
        null=-HOLDS_POINTS,
    ),
    Claim(
        "population_rises",
        "figure_a6",
        "The accuracy of a population on MMLU and MathQA increases.",
        "populations.population_changes",
        f"{CHANGE} of the population",
        POINTS,
        only=("mmlu", "mathqa"),
    ),
    Claim(
        "population_over_line",
        "figure_a6",
        "A population ends with a higher accuracy than a single line.",
        "populations.population_over_line",
        "accuracy of the last generation, population minus single line",
        POINTS,
    ),
    Claim(
        "population_over_control",
        "figure_a6",
        "A population ends with a higher accuracy than its control.",
        "populations.population_over_control",
        "accuracy of the last generation, population minus control",
        POINTS,
    ),
    Claim(
        "control_over_line",
        "figure_a6",
        "A control ends with a higher accuracy than a single line.",
        "populations.control_over_line",
        "accuracy of the last generation, control minus single line",
        POINTS,
    ),
    Claim(
        "larger_over_smaller",
        "figure_a9",
        "A larger population ends with a higher accuracy than a smaller one.",
        "populations.larger_over_smaller",
        "accuracy of the last generation, larger minus smaller population",
        POINTS,
    ),
    Claim(
        "full_over_data_only",
        "figure_a12",
        "Populations that inherit weights and text end with a higher accuracy than populations "
        "that inherit only text.",
        "populations.full_over_data_only",
        "accuracy of the last generation, full inheritance minus text only",
        POINTS,
    ),
    Claim(
        "data_only_over_line",
        "figure_a12",
        "Populations that inherit only text still end with a higher accuracy than a single line.",
        "populations.data_only_over_line",
        "accuracy of the last generation, text only minus single line",
        POINTS,
    ),
    Claim(
        "w2_bounded",
        "figure_a11",
        "Gaussian theory: the squared Wasserstein-2 distance (W2) of a population stays bounded, "
        "within a factor of ten.",
        "standalone.w2_bounded",
        "log10 of the ratio of mean squared W2, last quarter to second quarter of generations",
        "powers of ten",
        margin=TENFOLD,
    ),
    Claim(
        "w2_line_grows",
        "figure_a11",
        "Gaussian theory: the squared W2 of a single estimator grows.",
        "standalone.w2_line_grows",
        "log10 of the ratio of mean squared W2, last quarter to first twentieth of generations",
        "powers of ten",
    ),
    Claim(
        "w2_below_line",
        "figure_a8",
        "Gaussian theory: a population stays closer to the truth than a single estimator.",
        "standalone.w2_below_line",
        "log10 of squared W2 in the last quarter, single estimator minus population",
        "powers of ten",
    ),
    Claim(
        "bound_holds",
        "figure_a11",
        "Gaussian theory: the tail bound of study A holds.",
        "standalone.bound_holds",
        "smallest log10 of the ratio of the bound to the exact probability",
        "powers of ten",
    ),
    Claim(
        "ovl",
        "figure_a3",
        "Similarities within and between families overlap as much as study A reports.",
        "standalone.ovl",
        "overlap coefficient minus study A's 0.313",
        "",
        margin=OVL_MARGIN,
        paper=0.0,
    ),
    Claim(
        "delta",
        "figure_a3",
        "Models of different families are less similar than models of one family.",
        "standalone.delta_below_zero",
        "Cliff's delta, sign reversed",
        "",
        paper=0.572,
    ),
    Claim(
        "delta_moderate",
        "figure_a3",
        "The difference in similarity is as large as study A reports.",
        "standalone.delta",
        "Cliff's delta minus study A's -0.572",
        "",
        margin=DELTA_MARGIN,
        paper=0.0,
    ),
    Claim(
        "lag_asymmetry",
        "figure_a5",
        "Older models influence newer models of other families more than the reverse.",
        "standalone.lag_raw",
        "influence on newer models minus influence on older models",
        "share of salience",
    ),
    Claim(
        "lag_excess",
        "figure_a5",
        "This asymmetry exceeds what the sizes and popularity of fingerprints alone explain.",
        "standalone.lag_excess",
        "the same difference minus its expectation",
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
        "After one round, a single model has the lowest perplexity.",
        "rounds.single_best_at_first",
        "smallest lead of the lowest diversity in round 1",
        LOG,
    ),
    Claim(
        "single_not_best_later",
        "figure_b3",
        "Over all rounds, a more diverse ecosystem has a lower perplexity than the least diverse "
        "one.",
        "rounds.single_not_best_later",
        "largest lead over the lowest diversity, all rounds",
        LOG,
    ),
    Claim(
        "optimum_grows",
        "figure_b3",
        "The optimal diversity (D_opt) is larger after all rounds than after the first.",
        "rounds.optimum_grows",
        "log2 of the ratio of D_opt, all rounds to the first round",
        DOUBLED,
        null=STEP,
        paper=2.0,
    ),
    Claim(
        "optimum_monotone",
        "figure_b3",
        "The optimal diversity never falls as the number of rounds grows.",
        "rounds.optimum_monotone",
        "largest fall of log2 D_opt, sign reversed",
        DOUBLED,
        null=-STEP,
    ),
    Claim(
        "optimum_still_grows",
        "figure_b10",
        "The optimal diversity still grows in the second half of the rounds.",
        "rounds.optimum_still_grows",
        "log2 of the ratio of D_opt, all rounds to half of them",
        DOUBLED,
        null=STEP,
    ),
    Claim(
        "larger_models_raise",
        "figure_b5",
        "The optimal diversity is larger for larger models.",
        "rounds.larger_models_raise",
        "log2 D_opt of the larger model minus that of the smaller",
        DOUBLED,
        null=STEP,
        paper=2.0,
    ),
    Claim(
        "larger_models_collapse",
        "figure_b5",
        "At the lowest diversity, larger models collapse more.",
        "rounds.larger_models_collapse",
        "increase of log perplexity, larger model minus smaller",
        LOG,
    ),
    Claim(
        "larger_models_raise_other",
        "figure_b14",
        "In the other family, too, the optimal diversity is larger for larger models.",
        "rounds.larger_models_raise",
        "log2 D_opt of the larger model minus that of the smaller",
        DOUBLED,
        null=STEP,
    ),
    Claim(
        "human_text_little",
        "figure_b6",
        "Mixing in 10 % human text changes the optimal diversity little: at most one doubling.",
        "rounds.human_text_little",
        "log2 D_opt with human text minus without",
        DOUBLED,
        margin=DOUBLINGS,
    ),
    Claim(
        "human_text_helps",
        "figure_b6",
        "At the lowest diversity, mixing in 10 % human text reduces collapse.",
        "rounds.human_text_helps",
        "log of aggregated perplexity, without minus with human text",
        LOG,
    ),
    Claim(
        "temperature_little",
        "figure_b7",
        "The sampling temperature changes the optimal diversity little: at most one doubling.",
        "rounds.temperature_little",
        "log2 D_opt at this temperature minus at the lowest temperature",
        DOUBLED,
        margin=DOUBLINGS,
    ),
    Claim(
        "second_better",
        "figure_b15",
        "Over all rounds, the second ecosystem of a comparison has a lower perplexity than the "
        "first.",
        "rounds.second_better",
        "log of aggregated perplexity, first minus second",
        LOG,
    ),
    Claim(
        "two_families",
        "figure_b16",
        "A model has a lower perplexity beside a model of another family than beside its twin.",
        "rounds.diverse_better",
        MU,
        LOG,
    ),
    Claim(
        "communities_expansion",
        "figure_b17",
        "Over all rounds, communities and models on more text have a lower perplexity.",
        "rounds.diverse_better",
        MU,
        LOG,
    ),
    Claim(
        "communities_from_start",
        "figure_b17",
        "Communities and models on more text have a lower perplexity from the human round on.",
        "rounds.diverse_from_start",
        "log of perplexity in the human round, lowest diversity minus highest",
        LOG,
    ),
    Claim(
        "twins_no_help",
        "figure_b20",
        "An identical twin changes collapse little: perplexity changes by at most 10 %.",
        "rounds.twins_no_help",
        "log of aggregated perplexity, one model minus two twins",
        LOG,
        margin=LITTLE,
    ),
    Claim(
        "own_text_collapses",
        "figure_b21",
        "Repeated training on own text causes collapse; repeated training on human text does not.",
        "rounds.own_text_collapses",
        "log of last perplexity, own text minus human text again",
        LOG,
    ),
)
CLAIM_TARGETS = tuple(dict.fromkeys(claim.target for claim in CLAIMS))
TABLES = {"figure_a8": ("windows",), "figure_a11": ("windows", "bound")}


def claim_lacks(plan: Plan) -> dict[str, str | None]:
    """Return {target: one line on what the config lacks for it, or None}."""
    lacks = {target: why_missing(plan, target) for target in CLAIM_TARGETS}
    for target in ("figure_a3", "figure_a5"):
        if not lacks[target] and survey_of(plan, role_of(plan, target))["kind"] == "population":
            why = (
                f"the survey {role_of(plan, target)} covers this run's own members, not deployed "
                "models"
            )
            lacks[target] = (
                f"{target} ({TARGETS[target].title}): {why}; the preset {DEPLOYED} has it"
            )
    return lacks


def claim_players(plan: Plan) -> dict[str, list[str]]:
    """Return {target: the experiments that its claims compare}."""
    has = [
        target
        for target, why in claim_lacks(plan).items()
        if not why and TARGETS[target].needs in ("populations", "ecosystems")
    ]
    players = {target: players_of(plan, target) for target in has}
    if CONTROLLED in players:
        controls = [name for names in plan.config["figures"]["controls"].values() for name in names]
        players[CONTROLLED] = list(dict.fromkeys(players[CONTROLLED] + controls))
    return players


def claim_inputs(plan: Plan) -> dict[str, list[str]]:
    """Return the artifacts that the claims are tested on, by kind. A run makes them anyway."""
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
    """Return the part of the config that the claims need; other changes do not rerun the tests."""
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
