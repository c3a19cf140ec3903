"""List the files that each step reads: the static DAG, as functions of a plan."""

import os

from pollination.core import userfile
from pollination.core.settings import definition, lean
from pollination.plan import layout
from pollination.plan.benchmark_folder import benchmark_files
from pollination.plan.config.paths import data_files
from pollination.plan.config.resolve import own_functions
from pollination.plan.config.userfiles import code_digests
from pollination.plan.config.values import OWN, by_member
from pollination.plan.corpora import joined_corpora, kind_of
from pollination.plan.graph import graph_of
from pollination.plan.layout import (
    corpus_of,
    member_files,
    model_of,
    place_of,
    pool_of,
    segment_file,
)
from pollination.plan.operators import (
    Start,
    hands_on_weights,
    reads_segment,
    takes_best,
    weights_of,
)
from pollination.plan.plan import SPLITS, Plan
from pollination.plan.semantics import encoder_files
from pollination.plan.splits import rule_splits
from pollination.plan.synthetic import all_shards, synthetic_text


def corpus_sources(plan: Plan, corpus: str) -> list[str]:
    """Return the source files of a corpus; with `splits`, those of train, validation and test."""
    spec, kind = plan.config["corpora"][corpus], kind_of(plan, corpus)
    if kind.joined:
        return [
            f"{plan.results}/corpora/{part}/{split}.parquet"
            for part in spec["corpora"]
            for split in SPLITS
        ]
    if kind.written:
        return all_shards(plan, spec["experiment"], spec["generation"])
    if kind.stager:
        return [f"{plan.results}/staged/{corpus}.parquet"]
    if kind.local:
        paths = (
            [spec["splits"][split] for split in SPLITS[:3]] if spec["splits"] else [spec["path"]]
        )
        return [file for path in paths for file in data_files(path, kind.endings)]
    return []


def _founders(plan: Plan) -> list[tuple[str, int]]:
    """Return (place, member) of every founder."""
    return [
        (f"founders/{name}", m) for name in plan.used_pools for m in range(plan.pool_sizes[name])
    ]


def read_by_run(plan: Plan) -> set[str]:
    """Return the corpora that models and their tokenizers read, are measured on or prompted by.

    A union counts with the corpora that it joins.
    """
    corpora = {
        entry["corpus"]
        for entry in [
            *plan.config["evaluate"]["perplexity"],
            plan.config["evaluate"]["disagreement"],
        ]
        if entry
    } - {OWN}
    for place, m in _founders(plan):
        corpora |= {
            corpus_of(plan, place, m),
            validation(plan, place, m),
            sample_corpus(plan, place, m),
            *(path.split("/")[-2] for path in tokenizer_corpus(plan, model_of(plan, place, m))),
        }
    corpora |= {
        prompt_corpus(plan, name, m)
        for name, e in plan.config["experiments"].items()
        for m in range(e["population"])
    }
    return corpora | {
        part for name in corpora for part in joined_corpora(plan.config["corpora"], name)
    }


def staged_files(plan: Plan) -> list[str]:
    """Return the files that a run takes from the hub, or from a folder instead.

    These are corpora, pretrained models, tokenizers, encoders and benchmarks.
    """
    places = _founders(plan)
    corpora = read_by_run(plan)
    models = {
        name: plan.config["models"][name]
        for name in sorted({model_of(plan, place, m) for place, m in places})
    }
    fetched = [
        name
        for name, model in models.items()
        if isinstance(model["pretrained"] or model["tokenizer"].get("source"), str)
    ]
    return [
        *(
            f"{plan.results}/staged/{name}.parquet"
            for name in sorted(corpora)
            if kind_of(plan, name).stager
        ),
        *(f"{plan.results}/models/{name}/config.json" for name in fetched),
        *encoder_files(plan),
        *(
            f"{plan.results}/tasks/{name}/task.json"
            for name, task in plan.config["tasks"].items()
            if task["kind"] == "lm_eval"
        ),
    ]


def tokenizer_corpus(plan: Plan, model: str) -> list[str]:
    """Return the corpus that a model's tokenizer is trained on, if any."""
    if plan.config["models"][model]["pretrained"]:
        return []
    tokenizer = plan.config["models"][model]["tokenizer"]
    return (
        [f"{plan.results}/corpora/{tokenizer['corpus']}/train.parquet"]
        if "corpus" in tokenizer
        else []
    )


def model_settings(plan: Plan, model: str) -> dict:
    """Return an entry of `models`, with `bos` resolved as far as the config determines it."""
    return lean(plan.config["models"][model] | {"bos": bos_of(plan, model)}, definition("model"))


def bos_of(plan: Plan, model: str) -> str:
    """Return a model's `bos`: auto only where the tokenizer comes from outside the run.

    Tokenizers that the run trains add no token. A model that starts from a founder takes its bos.
    """
    spec = plan.config["models"][model]
    source = spec["pretrained"]
    if spec["bos"] != "auto":
        return spec["bos"]
    if isinstance(source, dict):
        return bos_of(plan, by_member(plan.config["founders"][source["founders"]]["model"], 0))
    return "auto" if source or spec["tokenizer"]["kind"] == "pretrained" else "none"


def checked_tasks(plan: Plan) -> list[str]:
    """Return the questions to search a corpus for: all benchmarks except microworlds."""
    tasks = sorted(plan.config["tasks"].items())
    return [
        f"{plan.results}/tasks/{task}/questions.parquet"
        for task, spec in tasks
        if spec["kind"] != "microworld"
    ]


def removed_questions(plan: Plan, corpus: str) -> list[str]:
    """Return the questions whose documents a corpus drops; none unless `on_overlap` is remove."""
    removes = plan.config["corpora"][corpus]["on_overlap"] == "remove"
    return checked_tasks(plan) if removes else []


def corpus_settings(plan: Plan, corpus: str, is_download: bool = False) -> dict:
    """Return an entry of `corpora` without later keys that the job does not read.

    A download reads neither of `passages` and `on_overlap`, no kind that cuts no document reads
    `passages`, and only a microworld reads the keys of its grammar. Keys that earlier versions
    recorded, and that the job does not read, keep their recorded value.
    """
    kind, node = kind_of(plan, corpus), definition("corpus")
    unread = ["passages"] if is_download or kind.joined or kind.world else []
    unread += ["on_overlap"] if is_download else []
    recorded = {"max_overlap": node["properties"]["max_overlap"]["default"]}
    if not kind.world:
        unread += ["numbers", "objects", "roles", "exceptions", "shares"]
        recorded["people"] = 48
    spec = plan.config["corpora"][corpus]
    return lean({key: value for key, value in spec.items() if key not in unread} | recorded, node)


def read_corpora(plan: Plan, place: str, member: int) -> list[str]:
    """Return the corpora whose text reaches a member, to search them for benchmark questions.

    These are the text that its founder trains on, the text that chooses its checkpoint, the prompts
    that are in a child's training text, and those of the pool that made its pretrained model.
    """
    first = place.split("/")[0]
    corpora = [corpus_of(plan, place, member)]
    if first == "founders":
        if pool_of(plan, place)["train"]["checkpoint"] == "best":
            corpora.append(validation(plan, place, member))
    elif first != "base":
        experiment = plan.experiment(first)
        if experiment["train"]["checkpoint"] == "best":
            corpora.append(validation(plan, place, member))
        if experiment["generate"]["prompt"] != "blocks":
            corpora.append(prompt_corpus(plan, first, member))
    source = plan.config["models"][model_of(plan, place, member)]["pretrained"]
    if isinstance(source, dict):
        corpora += read_corpora(plan, f"founders/{source['founders']}", 0)
    return list(dict.fromkeys(corpora))


def task_sources(plan: Plan, task: str) -> list[str]:
    spec = plan.config["tasks"][task]
    if spec["kind"] == "microworld":
        return [f"{plan.results}/corpora/{spec['corpus']}/tasks/{spec['benchmark']}.parquet"]
    own = benchmark_files(spec) if spec["include_path"] else []
    return [*own, *(spec["data"] or {}).values()]


def own_code(plan: Plan) -> dict[str, str]:
    """Return the digest of each file of the user's that the plan itself reads.

    These are own functions, the YAML and code of own benchmarks, and catalogues of models.
    """
    paths = [userfile.split(text)[0] for text in own_functions(plan.config)]
    for task in plan.config["tasks"].values():
        paths += benchmark_code(task) if task.get("include_path") else []
    surveys = plan.config["fingerprint"].values()
    paths += [os.path.expanduser(survey["models"]) for survey in surveys if "models" in survey]
    return code_digests(dict.fromkeys(paths))


def benchmark_code(task: dict) -> list[str]:
    """Return the YAML and code of the own benchmark of an entry of `tasks`."""
    return [path for path in benchmark_files(task) if path.endswith((".yaml", ".py"))]


def task_settings(plan: Plan, task: str) -> dict:
    """Return an entry of `tasks`, with digests of the YAML and code of a user's benchmark.

    All questions are staged, whatever the `split`.
    """
    spec = plan.config["tasks"][task]
    settings = lean(spec | {"split": "none"}, definition("task"))
    if spec["include_path"]:
        settings |= {"code": code_digests(benchmark_code(spec))}
    return settings


def packed(plan: Plan, place: str, member: int, split: str = "train") -> str:
    """Return the packed tokens of a split of a member's corpus.

    `validation` is the split of the text that chooses the best epoch, which may be another corpus.
    """
    corpus = (
        validation(plan, place, member) if split == "validation" else corpus_of(plan, place, member)
    )
    return f"{plan.results}/tokens/{model_of(plan, place, member)}/{corpus}/{split}.bin"


def validation(plan: Plan, place: str, member: int) -> str:
    return by_member(pool_of(plan, place)["validation"], member) or corpus_of(plan, place, member)


def founder_inputs(plan: Plan, pool: str, member: int) -> dict[str, list[str]]:
    place = f"founders/{pool}"
    inputs = {"segment": [segment_file(plan, place, member)]}
    if pool_of(plan, place)["train"]["checkpoint"] == "best":
        inputs["validation"] = [packed(plan, place, member, "validation")]
    if plan.config["models"][model_of(plan, place, member)]["pretrained"]:
        inputs["weights"] = [f"{layout.blueprint(plan, place, member)}/model.safetensors"]
    return inputs


def segment_source(plan: Plan, pool: str, member: int) -> str:
    """Return the packed corpus that a founder's human segment is cut from."""
    return packed(plan, f"founders/{pool}", member)


def segment(plan: Plan, pool: str) -> dict:
    """Return the settings of the human segments of a founder pool (data/mixture.py)."""
    spec = plan.config["founders"][pool]
    return {"pool": pool, "tokens": spec["train"]["tokens"]} | {
        key: spec[key] for key in ("segments", "num_segments")
    }


def starting_weights(plan: Plan, name: str, generation: int, member: int) -> list[str]:
    """Return the weights that a child starts from; none for new weights."""
    experiment = plan.experiment(name)
    weights = weights_of(experiment)
    if weights.start is Start.NEW:
        return []
    if weights.start is Start.MODEL:
        return [
            f"{layout.blueprint(plan, place_of(plan, name, generation), member)}/model.safetensors"
        ]
    if weights.start is Start.FOUNDER:
        return [f"{layout.member_folder(plan, name, 0, member)}/model.safetensors"]
    if weights.is_soup:
        return _soup(plan, name, generation, member)
    origin = weights.origin(member, layout.k(plan, name))
    if hands_on_weights(experiment):
        return [f"{plan.results}/{name}/gen{generation - 1}/parent{origin}/model.safetensors"]
    return [f"{layout.member_folder(plan, name, generation - 1, origin)}/model.safetensors"]


def _soup(plan: Plan, name: str, generation: int, member: int) -> list[str]:
    """Return a child's average of weights, which children with equal shares have in common.

    A single model whose slot is known is read directly.
    """
    graph = graph_of(plan, name, generation, "soup")
    shares = graph.of(member)
    if len(shares) == 1 and not layout.selects(plan, name):
        return [f"{layout.member_folder(plan, name, generation - 1, *shares)}/model.safetensors"]
    number = graph.rows.index(shares)
    return [f"{plan.results}/{name}/gen{generation - 1}/soup{number}/model.safetensors"]


def soup_shares(plan: Plan, name: str, generation: int, number: int) -> list[tuple[int, float]]:
    """Return (rank, share) of the models in one average for the children after a generation."""
    return list(graph_of(plan, name, generation + 1, "soup").rows[number].items())


def soup_inputs(plan: Plan, name: str, generation: int, number: int) -> dict[str, list[str]]:
    """Return the members that may hold the ranks of an average, as `parent_inputs`."""
    ranks = [rank for rank, _ in soup_shares(plan, name, generation, number)]
    if layout.selects(plan, name):
        return parent_inputs(plan, name, generation, ranks[0])
    return {
        "members": [
            f"{layout.member_folder(plan, name, generation, rank)}/model.safetensors"
            for rank in ranks
        ]
    }


def parent_weights(plan: Plan, name: str, generation: int) -> list[str]:
    """Return the parent weights that a job writes for children; none in the last generation."""
    experiment = plan.experiment(name)
    if generation + 1 == experiment["generations"]:
        return []
    slots = range(experiment["population"])
    paths = [path for m in slots for path in starting_weights(plan, name, generation + 1, m)]
    written = (f"/gen{generation}/parent", f"/gen{generation}/soup")
    return list(dict.fromkeys(path for path in paths if any(part in path for part in written)))


def written_corpora(plan: Plan, name: str, generation: int) -> list[str]:
    """Return the corpora that the run builds from the text of a generation."""
    found = [
        corpus
        for corpus, spec in plan.config["corpora"].items()
        if (spec.get("experiment"), spec.get("generation")) == (name, generation)
    ]
    used = read_by_run(plan) if found else set()
    return [corpus for corpus in found if corpus in used]


def child_inputs(plan: Plan, name: str, generation: int, member: int) -> dict[str, list[str]]:
    """Return the inputs of a child's training.

    Child (i, j) has the slot m = i*k + j, weights of parent i and text of parent j (study A, 3).
    """
    inputs = {
        "weights": starting_weights(plan, name, generation, member),
        "text": synthetic_text(plan, name, generation, member),
    }
    place, experiment = place_of(plan, name, generation), plan.experiment(name)
    if experiment["train"]["checkpoint"] == "best":
        inputs["validation"] = [packed(plan, place, member, "validation")]
    if reads_segment(experiment):
        inputs["segment"] = [segment_file(plan, place, member)]
    if experiment["human"]["fraction"] > 0:
        inputs["human"] = [packed(plan, place, member)]
    return inputs


def prompt_inputs(plan: Plan, name: str, generation: int, rank: int) -> dict[str, list[str]]:
    """Return the text that a parent continues: held-out documents, or its own human segment.

    With selection, any member may hold the rank. Members that share one file get it once.
    """
    members = range(plan.experiment(name)["population"]) if layout.selects(plan, name) else [rank]
    if plan.experiment(name)["generate"]["prompt"] == "blocks":
        place = place_of(plan, name, generation)
        return {
            key: [segment_file(plan, place, m, end) for m in members]
            for key, end in (("blocks", "bin"), ("numbers", "parquet"))
        }
    files = [prompts(plan, prompt_corpus(plan, name, m)) for m in members]
    return {"prompts": files if len(set(files)) > 1 else files[:1]}


def parent_inputs(plan: Plan, name: str, generation: int, rank: int) -> dict[str, list[str]]:
    """Return the members that may hold a rank: with selection all, else the slot's own.

    selection.json says which member holds it.
    """
    if layout.selects(plan, name):
        folder = f"{plan.results}/{name}/gen{generation}"
        return {
            "selection": [f"{folder}/selection.json"],
            "members": member_files(plan, name, generation, "model.safetensors"),
        }
    return {"members": [f"{layout.member_folder(plan, name, generation, rank)}/model.safetensors"]}


def selection_inputs(plan: Plan, name: str, generation: int) -> dict[str, list[str]]:
    """Return the inputs of a selection: scores, answers, and the file of a user's own rule."""
    inputs = {
        file.split(".")[0]: member_files(plan, name, generation, file)
        for file in ("scores.json", "answers.parquet")
    }
    rule = plan.experiment(name)["select"]["rule"]
    return inputs | ({"rule": [userfile.split(rule)[0]]} if userfile.is_own(rule) else {})


def selection_settings(plan: Plan, name: str) -> dict:
    """Return `select` of an experiment, with the splits of the tasks that its rule sees.

    If the rule may draw random numbers, its seed is included.
    """
    experiment = plan.experiment(name)
    settings = lean(experiment["select"], definition("select"))
    if read := rule_splits(plan, name):
        settings |= {"splits": read}
    if takes_best(experiment["select"]["rule"]):
        return settings
    settings |= {"seed": experiment["seed"]}
    rule = experiment["select"]["rule"]
    if userfile.is_own(rule):
        settings |= {"code": code_digests([userfile.split(rule)[0]])}
    return settings


def prompt_corpus(plan: Plan, name: str, member: int) -> str:
    return plan.experiment(name)["generate"]["prompt_corpus"] or corpus_of(
        plan, place_of(plan, name, 0), member
    )


def prompts(plan: Plan, corpus: str) -> str:
    return f"{plan.results}/corpora/{corpus}/prompts.parquet"


def training(plan: Plan, place: str) -> dict:
    """Return the training settings of the members of a place."""
    first, second = place.split("/")
    if first == "founders":
        settings = {"train": plan.config["founders"][second]["train"]}
    else:
        settings = {key: plan.experiment(first)[key] for key in ("train", "text", "human", "seed")}
    return lean(settings, definition("experiment"))


def train_gpus(plan: Plan, place: str) -> int:
    """Return the number of GPUs that train a member of a place."""
    return training(plan, place)["train"].get("gpus", 1)


def writing_environment(plan: Plan, name: str) -> str:
    """Return the conda environment of the jobs that write an experiment's text."""
    engine = plan.experiment(name)["generate"]["engine"]
    return f"../envs/{'vllm' if engine == 'vllm' else 'pollination'}.yaml"


def sample_corpus(plan: Plan, place: str, member: int) -> str:
    return plan.config["evaluate"]["samples"]["corpus"] or corpus_of(plan, place, member)
