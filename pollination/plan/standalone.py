"""List the files of the parts that run without the loop: theory and fingerprint surveys."""

from pollination.plan import layout
from pollination.plan.config.catalogue import read_catalogue, slug
from pollination.plan.config.paths import SURVEY_ENDINGS, data_files, find_data
from pollination.plan.figures import FINGERPRINT, THEORY
from pollination.plan.graph import graph_of, shares
from pollination.plan.operators import text_of, weights_of
from pollination.plan.plan import Plan


def drawn_files(plan: Plan, figures: dict | list) -> list[str]:
    return [
        f"{plan.results}/report/{figure}.{end}"
        for figure in figures
        for end in ("svg", "png", "csv")
    ]


def theory_files(plan: Plan) -> list[str]:
    """Return the theory's tables and figures; none without theory in the config."""
    tables = [
        f"{plan.results}/theory/{table}.parquet"
        for table in ("recursion", "summary", "windows", "sensitivity", "bound")
    ]
    return tables + drawn_files(plan, THEORY) if plan.config["theory"] else []


def survey_of(plan: Plan, name: str) -> dict:
    return plan.config["fingerprint"][name]


def surveyed(plan: Plan, name: str) -> dict[str, dict]:
    """Return {model: family, month and release} of a population survey.

    A model is named by its folder; its generation stands for the release. Founders are a family of
    their own, because all members descend from them.
    """
    models = {}
    for experiment in survey_of(plan, name)["experiments"]:
        for generation in range(plan.experiment(experiment)["generations"]):
            for member in range(plan.experiment(experiment)["population"]):
                folder = layout.member_folder(plan, experiment, generation, member)
                founders = f"founders {plan.experiment(experiment)['founders']}"
                family = experiment if generation else founders
                models[folder.removeprefix(f"{plan.results}/")] = {
                    "family": family,
                    "month": generation,
                    "release": f"generation {generation}",
                }
    return models


def sampled_models(plan: Plan, name: str) -> dict[str, dict]:
    """Return `surveyed` for a population survey; other surveys list their models in models.csv."""
    return surveyed(plan, name) if survey_of(plan, name)["kind"] == "population" else {}


def served(plan: Plan, name: str, part: str) -> dict[str, str]:
    """Return where a model is served. The job itself reads keys and prices, which are no params."""
    row = next(
        row
        for model, row in read_catalogue(survey_of(plan, name)["models"], served=True).items()
        if slug(model) == part
    )
    return {key: row[key] for key in ("model", "base_url", "name")} | {
        "catalogue": survey_of(plan, name)["models"]
    }


def survey_parts(plan: Plan, name: str) -> dict[str, list[str]]:
    """Return {part: files that one job counts}: an entry of `path`, a model or a population."""
    survey = survey_of(plan, name)
    if survey["kind"] == "population":
        return {
            "members": [f"{plan.results}/{model}/samples.parquet" for model in surveyed(plan, name)]
        }
    if survey["kind"] == "collect":
        models = map(slug, read_catalogue(survey["models"]))
        return {
            model: [f"{plan.results}/fingerprint/{name}/outputs/{model}.parquet"]
            for model in models
        }
    entries = [survey["path"]] if isinstance(survey["path"], str) else survey["path"]
    ends = SURVEY_ENDINGS[survey["kind"]]
    if survey["kind"] == "results":
        entries = data_files(entries, ends)
    return {f"part{number}": data_files(entry, ends) for number, entry in enumerate(entries)}


def passed_over(survey: dict) -> str:
    """Return what the folders and globs of a survey's `path` pass over; "" if nothing."""
    ends = SURVEY_ENDINGS.get(survey["kind"])
    return find_data(survey["path"], ends).summary() if ends else ""


def part_sources(plan: Plan, name: str, part: str) -> list[str]:
    return survey_parts(plan, name)[part]


def part_files(plan: Plan, name: str) -> list[str]:
    """Return the files that the counting jobs of a survey write."""
    return [
        f"{plan.results}/fingerprint/{name}/parts/{part}.json" for part in survey_parts(plan, name)
    ]


def catalogue_file(plan: Plan, name: str) -> str | list[str]:
    """Return the models.csv of a survey; a population survey has none."""
    return survey_of(plan, name).get("models", [])


def collect_prompts(plan: Plan, name: str) -> str | list[str]:
    return survey_of(plan, name)["collect"]["prompts"] or []


def stopword_files(plan: Plan, name: str) -> list[str]:
    """Return the file of stop words: staged from NLTK, the user's own, or none (built in)."""
    source = survey_of(plan, name)["count"]["stopwords"]
    return {"snowball": [], "nltk": [f"{plan.results}/staged/stopwords.txt"]}.get(source, [source])


def families(plan: Plan, name: str) -> list[dict]:
    """Return each child of a population survey, the members before it, and its selection."""
    experiments = survey_of(plan, name)["experiments"]
    places = [
        (e, g, m)
        for e in experiments
        for g in range(1, plan.experiment(e)["generations"])
        for m in range(plan.experiment(e)["population"])
    ]

    def short(name: str, generation: int, member: int) -> str:
        return f"{layout.place_of(plan, name, generation)}/member{member}"

    children = []
    for e, g, m in places:
        before = [short(e, g - 1, slot) for slot in range(plan.experiment(e)["population"])]
        operators = {
            "k": layout.k(plan, e),
            "weights": plan.experiment(e)["weights"],
            "text": plan.experiment(e)["text"],
        }
        if text_of(plan.experiment(e)).is_graph:
            operators["writers"] = list(shares(plan, e, g, m))
        if weights_of(plan.experiment(e)).is_soup:
            operators["givers"] = list(graph_of(plan, e, g, "soup").of(m))
        selection = (
            f"{plan.results}/{e}/gen{g - 1}/selection.json" if layout.selects(plan, e) else None
        )
        children.append(
            {
                "experiment": e,
                "generation": g,
                "slot": m,
                "child": short(e, g, m),
                "before": before,
                "selection": selection,
            }
            | operators
        )
    return children


def survey_selections(plan: Plan, name: str) -> list[str]:
    return list(
        dict.fromkeys(child["selection"] for child in families(plan, name) if child["selection"])
    )


def fingerprint_files(plan: Plan) -> list[str]:
    """Return the figures of all surveys; those about parents only for population surveys."""
    files = []
    for name, survey in plan.config["fingerprint"].items():
        figures = [
            figure
            for figure, entry in FINGERPRINT.items()
            if not entry.families or survey["kind"] == "population"
        ]
        files += drawn_files(plan, [f"{figure}.{name}" for figure in figures])
    return files
