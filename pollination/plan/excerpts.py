"""Select the part of the config that figures need; other changes do not redraw them."""

from pollination.core.settings import schema
from pollination.plan.config.values import listed
from pollination.plan.corpora import joined_corpora
from pollination.plan.operators import text_of, weights_of
from pollination.plan.plan import Plan
from pollination.plan.splits import splits


def whole_config(plan: Plan) -> dict:
    """Return the config with the defaults of keys that no figure reads."""
    keys = schema()["properties"]
    unread = ("device", "local_disk", "downloads", "reuse")
    return plan.config | {key: keys[key]["default"] for key in unread}


def part_config(plan: Plan, names: list[str]) -> dict:
    """Return the part of the config that figures of these experiments need."""
    keys = (
        "population",
        "generations",
        "founders",
        "select",
        "weights",
        "text",
        "text_of",
        "mutate",
        "human",
    )
    experiments = {
        name: {key: plan.experiment(name)[key] for key in (*keys, *_drawn(plan.experiment(name)))}
        | {"generate": {"shards": plan.experiment(name)["generate"]["shards"]}}
        for name in names
    }
    given = {e["founders"]: plan.config["founders"][e["founders"]] for e in experiments.values()}
    pools = {
        name: {key: pool[key] for key in ("model", "corpus", "segments")}
        | ({} if pool["train"]["epochs"] else {"train": {"epochs": 0}})
        for name, pool in given.items()
    }
    models = {
        name: {"pretrained": plan.config["models"][name]["pretrained"]}
        for p in pools.values()
        for name in listed(p["model"])
    }
    corpora = plan.config["corpora"]
    unions = {
        name: {"kind": corpora[name]["kind"], "corpora": parts}
        for pool in pools.values()
        for name in listed(pool["corpus"])
        if (parts := joined_corpora(corpora, name))
    }
    divided = splits(plan)
    seeded = {"splits": divided, "evaluation_seed": plan.config["evaluation_seed"]}
    return (
        (seeded if divided else {})
        | {
            "tasks": list(plan.config["tasks"]),
            "experiments": experiments,
            "founders": pools,
            "models": models,
        }
        | ({"corpora": unions} if unions else {})
    )


def _drawn(experiment: dict) -> list[str]:
    """Return the keys of an experiment that decide its graphs (plan/graph.py)."""
    keys = [
        *(["graph"] if text_of(experiment).is_graph else []),
        *(["soup"] if weights_of(experiment).is_soup else []),
    ]
    return [*keys, "seed"] if keys else []
