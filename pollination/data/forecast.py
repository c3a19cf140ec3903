"""Count the documents and questions that a config will give, where local files can tell."""

from pollination.core.seeds import derive_seed
from pollination.data.corpora import forecast
from pollination.data.microworld import World
from pollination.plan.jobs import held_out_splits
from pollination.plan.plan import Plan


def expected(plan: Plan) -> dict[tuple[str, str, str], int]:
    """Count what the run will read by (section, name, kind), as plan/sizes.py's `found`.

    Text from the hub or from an experiment is not known yet, so it is left out. So are questions of
    other benchmarks than microworlds, unless `tasks.*.questions` bounds them.
    ValueError: local text is unreadable, or too little.
    """
    corpora, seed = plan.config["corpora"], plan.config["data_seed"]
    used = held_out_splits(plan)
    counts = {
        ("corpora", name, split): documents[split]
        for name in dict.fromkeys(name for name, _ in used)
        if (documents := forecast(plan, name))
        for corpus, split in used
        if corpus == name
    }
    worlds: dict[str, dict] = {}
    for name, task in plan.config["tasks"].items():
        count = task["questions"] or float("inf")
        if task["kind"] == "microworld":
            corpus = task["corpus"]
            if corpus not in worlds:
                world = World.create(corpora[corpus], derive_seed(seed, "world"))
                worlds[corpus] = world.benchmarks()
            questions = worlds[corpus][task["benchmark"]]
            count = min(count, sum(question["split"] == "test" for question in questions))
        if count < float("inf"):
            counts["tasks", name, "questions"] = int(count)
    return counts
