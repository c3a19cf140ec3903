"""Small made runs of both presets: raw artifacts, written and read without the project's functions.

Every value of a figure or claim is recomputed from these artifacts. The presets are the project's
own, with fewer rounds and members, so each figure has its role.
"""

import hashlib
import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pollination.analysis.run import Run
from pollination.figures import drawing
from pollination.plan.config.resolve import resolve
from pollination.plan.config.targets import TARGETS
from pollination.plan.plan import Plan
from tests.conftest import ROOT

EXACT = 1e-9  # the same arithmetic in another order
CSV = 1e-5  # a CSV holds six digits
FP32 = 1e-5  # the models compute in float32
QUADRATURE = 1e-6  # another numerical integration
RESAMPLED = 0.1  # ends of resampled intervals, as a share of the interval's width
DENSITY = 0.02  # a density from counts in cells, as a share of its highest value
SAMPLED = 0.01  # the smallest p-value of a test that compares two simulations

ROUNDS, LONG = 3, 4  # rounds of study B; of its experiments with 20 rounds
GENERATIONS, QUESTIONS = 3, 40
WORDS = ["anna", "lives", "in", "a", "small", "house", "and", "works", "as", "baker", "near"]
WORDS += ["the", "old", "river"]


def preset(name: str) -> dict:
    return yaml.safe_load((ROOT / f"config/paper/{name}.yaml").read_text(encoding="utf-8"))


def folder(plan: Plan, name: str, generation: int, member: int) -> Path:
    """A member's folder: founders lie in their pool, children in their experiment."""
    pool = plan.config["experiments"][name]["founders"]
    place = f"{name}/gen{generation}" if generation else f"founders/{pool}"
    return Path(plan.results, place, f"member{member}")


def places(plan: Plan):
    for name, settings in plan.config["experiments"].items():
        for g, m in product(range(settings["generations"]), range(settings["population"])):
            yield name, g, m, folder(plan, name, g, m)


def draw(plan: Plan, target: str) -> pd.DataFrame:
    """The CSV of a figure or table of a paper, with cells as pandas reads them."""
    out, one = Path(plan.results, "paper", target), TARGETS[target]
    drawing(one.draws).draw(run(plan.results, plan), out, target, one.panels)
    return pd.read_csv(f"{out}.csv")


class Once(dict):
    """A cache of values by key."""

    def of(self, key, make):
        if key not in self:
            self[key] = make()
        return self[key]


RUNS, TABLES = Once(), Once()


def run(results: str, plan: Plan) -> Run:
    """One reader for all drawings of a run, because it reads each artifact once."""
    return RUNS.of(results, lambda: Run(plan))


def table(path: Path) -> pd.DataFrame:
    return TABLES.of(path, lambda: pd.read_parquet(path))


# --- study B


def study_b(results: Path) -> Plan:
    """Losses of blocks: D = 1 decays fastest, larger models faster, twins like single ones."""
    raw = preset("epistemic_diversity")
    late = [name for name in raw["corpora"] if re.fullmatch(r"wrote_m\d+_\d", name)]
    late = [name for name in late if int(name[-1]) >= LONG]
    raw["corpora"] = {name: spec for name, spec in raw["corpora"].items() if name not in late}
    raw["evaluate"]["perplexity"] = [
        entry for entry in raw["evaluate"]["perplexity"] if entry["corpus"] not in late
    ]
    raw["defaults"]["generations"] = ROUNDS
    for settings in raw["experiments"].values():
        settings |= {"generations": LONG} if settings.get("generations") else {}
    plan = Plan(resolve(raw), str(results))
    for name, t, m, path in places(plan):
        if not (path / "sequences.parquet").exists():
            write_losses(plan, name, t, m, path)
    for model in plan.config["models"]:
        written = [entry for entry in plan.config["corpora"] if entry.startswith("wrote")]
        texts = [("own", "test", 3.2)]
        texts += [(corpus, "train", 1.0 + 0.3 * int(corpus[-1])) for corpus in written]
        rng = np.random.default_rng(len(model))
        rows = [sequences(rng, corpus, split, nats, 20) for corpus, split, nats in texts]
        write(plan.results, f"base/{model}/member0/sequences.parquet", pa.concat_tables(rows))
        sizes = {"hidden_size": 32 * (1 + (model in ("opt350m", "gpt2medium")))}
        write_json(plan.results, f"models/{model}/config.json", sizes | {"num_hidden_layers": 2})
    return plan


def write_losses(plan: Plan, name: str, t: int, m: int, path: Path) -> None:
    settings = plan.config["experiments"][name]
    pool = plan.config["founders"][settings["founders"]]
    model = pool["model"] if isinstance(pool["model"], str) else pool["model"][m]
    large = model in ("opt350m", "gpt2medium")
    size = settings["population"]
    rng = np.random.default_rng([t, m, *name.encode()])
    nats = 1 + 0.06 * np.log2(size) + t * (0.5 + 0.4 * large) / size + 0.05 * rng.standard_normal()
    rows = []
    for column, corpus in texts(plan, name, m):
        blocks = 20 if model.startswith("gpt2") else 24  # another tokenizer cuts other blocks
        blocks, more = (8, 0.4) if corpus == "treebank" else (blocks, 0.0)
        rows.append(sequences(rng, column, "test", nats + more, blocks))
    if settings["founders"].split(".")[0] in ("opt1", "gpt2_1") or t in (0, ROUNDS - 1):
        rows.append(sequences(rng, "own", "segment", nats - 0.2, 27))
    write(path, "sequences.parquet", pa.concat_tables(rows))


def texts(plan: Plan, name: str, m: int) -> list[tuple[str, str]]:
    """(its name in the table, corpus) of each test text of a member: a union has several."""
    corpus = plan.config["founders"][plan.config["experiments"][name]["founders"]]["corpus"]
    corpus = corpus if isinstance(corpus, str) else corpus[m]
    if plan.config["corpora"][corpus]["kind"] == "union":
        return [(part, part) for part in plan.config["corpora"][corpus]["corpora"]]
    return [("own", corpus)]


def sequences(rng, corpus: str, split: str, nats: float, blocks: int) -> pa.Table:
    tokens = 10 + np.arange(blocks) % 7
    nll = tokens * np.maximum(nats + 0.1 * rng.standard_normal(blocks), 0.05)
    columns = {"sequence": np.arange(blocks), "tokens": tokens, "nll": nll}
    columns |= {"corpus": [corpus] * blocks, "split": [split] * blocks}
    return pa.table(columns | {"truth_nll": np.full(blocks, np.nan)})


def losses(plan: Plan, name: str, t: int, split: str = "test") -> list[tuple[str, pd.DataFrame]]:
    """(corpus, rows of its blocks) per test text of an experiment's members (or `name:member`)."""
    name, _, one = name.partition(":")
    members = [int(one)] if one else range(plan.config["experiments"][name]["population"])
    found = []
    for m in members:
        rows = table(folder(plan, name, t, m) / "sequences.parquet")
        for column, corpus in texts(plan, name, m):
            found.append((corpus, rows[(rows.corpus == column) & (rows.split == split)]))
    return found


def perplexities(plan: Plan, name: str, t: int, split: str = "test") -> list[np.ndarray]:
    """Per test text of each member: the perplexity of each block."""
    every = losses(plan, name, t, split)
    return [np.exp(rows.nll.to_numpy() / rows.tokens.to_numpy()) for _, rows in every]


def equally(plan: Plan, name: str, values: list) -> float:
    """The mean of a value per test text: over the members of a corpus, then over corpora."""
    corpora = [corpus for corpus, _ in losses(plan, name, 0)]
    return float(pd.Series(values).groupby(corpora).mean().mean())


def mu(plan: Plan, name: str, rounds: int, split: str = "test") -> np.ndarray:
    """mu_t (study B, equation 3): the mean over blocks, then over models, then over corpora."""
    every = [perplexities(plan, name, t, split) for t in range(rounds)]
    return np.array([equally(plan, name, [p.mean() for p in found]) for found in every])


# --- study A


def study_a(results: Path) -> Plan:
    """Answers and scores: populations of 4, 9 and 16 hold, lines decay, each run its own way."""
    raw = preset("data_pollination")
    raw["defaults"]["generations"] = GENERATIONS
    for name, settings in raw["experiments"].items():
        if "population" not in settings and name != "mmlu":
            settings["population"] = 4
    raw["evaluate"]["semantics"] = {"encoder": "tfidf"}
    plan = Plan(resolve(raw), str(results))
    tasks = list(plan.config["tasks"])
    for name, g, m, path in places(plan):
        if (path / "scores.json").exists():
            continue
        alone = plan.config["experiments"][name]["population"] == 1
        rng = np.random.default_rng([g, m, *path.as_posix()[len(str(results)) :].encode()])
        level = 0.6 - (0.08 if alone else -0.03) * g
        choices = {"mmlu": 4, "winogrande": 2, "mathqa": 5, "social_iqa": 3}
        correct = {task: rng.random(QUESTIONS) < level + 0.05 * rng.normal() for task in tasks}
        answers = [
            {"task": task, "doc_id": i, "correct": bool(c), "score": c, "chance": 1 / choices[task]}
            for task in tasks
            for i, c in enumerate(correct[task])
        ]
        write(path, "answers.parquet", pd.DataFrame(answers))
        scores = {
            task: {
                "accuracy": float(values.mean()),
                "stderr": float(values.std(ddof=1) / QUESTIONS**0.5),
                "questions": QUESTIONS,
                "questions_available": 2 * QUESTIONS,
                "shots": 5 if task in ("mmlu", "winogrande") else 0,
                "method": "loglikelihood",
            }
            for task, values in correct.items()
        }
        rows = sequences(rng, "fineweb", "test", 2.0 + 0.2 * g * alone, 12)
        rate = float(np.sum(rows["nll"]) / np.sum(rows["tokens"]))
        text = {"perplexity": float(np.exp(rate)), "nll_per_token": rate}
        summary = {"tasks": scores, "perplexity": {"fineweb/test": text}, "truth": {}}
        write_json(path, "scores.json", summary)
        write(path, "sequences.parquet", rows)
        write(path, "facts.parquet", pd.DataFrame({"corpus": [""], "known": [True]})[:0])
        write(path, "samples.parquet", pd.DataFrame(samples(rng)))
        write_json(path, "config.json", LLAMA)
        write_json(path, "run.json", RECORD)
        weights(path / "model.safetensors", [[32_000, 768], [768, 768]])
    for name, settings in plan.config["experiments"].items():
        if settings["population"] > 1:
            for g in range(settings["generations"]):
                rank(plan, name, g)
    words = pd.DataFrame({"word": WORDS, "count": 1})
    write(plan.results, "corpora/fineweb/vocabulary.parquet", words)
    write(plan.results, "semantics/tfidf.embeddings.parquet", embeddings(plan))
    theory(plan.results)
    return plan


def embeddings(plan: Plan) -> pd.DataFrame:
    """Vectors of the models' completions: about the prompt, and the model's own part."""
    rows = []
    for name, g, m, path in places(plan):
        if name not in ("winogrande", "mmlu", "line.s42", "line.s123", "line.s456"):
            continue
        model = path.relative_to(plan.results).as_posix()
        rng = np.random.default_rng([*model.encode()])
        for number, row in enumerate(samples(rng)[:3]):
            about = {"experiment": name, "generation": g, "member": m, "model": model}
            vector = 3 * np.eye(6)[number] + rng.normal(0, 0.4 + 0.1 * g, 6)
            rows.append(about | {"embedding": vector, **row})
    return pd.DataFrame(rows).drop(columns=["prompt", "seed"])


def theory(results: str, generations: int = 80, runs: int = 10, shown: int = 4) -> None:
    """Tables of the theory as random walks; a population's stays near the truth.

    `every_run.parquet`, which the project does not read, has the runs that are not shown, too.
    """
    rng, rows = np.random.default_rng(7), []
    for role, step in (("evolution", 0.0), ("baseline", 0.03)):
        for run in range(runs):
            mean = 0.02 * rng.standard_normal(generations + 1)
            mean += np.cumsum(step * rng.standard_normal(generations + 1))
            sd = 1 + 0.02 * rng.standard_normal(generations + 1)
            mean[0], sd[0] = 0.0, 1.0
            path = pd.DataFrame({"role": role, "run": run, "generation": range(generations + 1)})
            rows.append(path.assign(mean=mean, sd=sd, w2=mean**2 + (sd - 1) ** 2))
    every = pd.concat(rows, ignore_index=True)
    write(results, "theory/every_run.parquet", every)
    write(results, "theory/recursion.parquet", every[every.run < shown])
    write(results, "theory/windows.parquet", windows(every))
    bound = pd.DataFrame(product((2, 50), (1, 4), (1.0, 8.0)), columns=["n", "k", "x"])
    bound["printed"] = (2 * np.exp(0.5 - bound.x / 4)) ** bound.k
    bound["exact"] = bound.printed * rng.uniform(0.2, 1.1, len(bound))
    write(results, "theory/bound.parquet", bound)


def windows(paths: pd.DataFrame) -> pd.DataFrame:
    """Mean squared W2 of each run in the first twentieth, the second and the last quarter."""
    last, rows = paths.generation.max(), []
    parts = {"early": (0, 1 / 20), "middle": (1 / 4, 1 / 2), "late": (3 / 4, 1)}
    for (role, run), path in paths.groupby(["role", "run"]):
        row = {"role": role, "run": run, "generations": last}
        for name, (first, end) in parts.items():
            inside = (path.generation > first * last) & (path.generation <= end * last)
            row[name] = path.w2[inside].mean()
        rows.append(row)
    return pd.DataFrame(rows)


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 32_000,
    "rope_theta": 10_000.0,
}
RECORD = {
    "versions": {"pollination": "9.9", "python": "3.12", "torch": "2.13.0", "cuda": "12.4"},
    "hardware": {"device": "NVIDIA H200"},
}
PROMPTS = ("p0", "p1", "p2", "fantasy", "spring", "mathematics")
LOOP = "old river old river old river old river"
NONSENSE = "brilligwumple"


def samples(rng) -> list[dict]:
    rows = []
    for number, prompt in enumerate(PROMPTS):
        text = " ".join(rng.choice(WORDS, 12, replace=False))
        text += f". {LOOP} {NONSENSE} end" if number % 2 else "."
        rows.append({"prompt_id": prompt, "prompt": f"anna {prompt}", "completion": text})
    return [row | {"seed": number} for number, row in enumerate(rows)]


def weights(path: Path, shapes: list[list[int]]) -> None:
    """A safetensors file with a header alone, which states the shapes."""
    about = {"dtype": "F32", "data_offsets": [0, 0]}
    head = json.dumps({str(i): about | {"shape": shape} for i, shape in enumerate(shapes)})
    path.write_bytes(len(head).to_bytes(8, "little") + head.encode())


def selecting(plan: Plan, task: str) -> np.ndarray:
    """(questions,): whether a question selects; a permutation seeded by the hash of its parts."""
    parts = json.dumps([plan.config["evaluation_seed"], "split", task], separators=(",", ":"))
    seed = int(hashlib.sha256(parts.encode()).hexdigest()[:16], 16) // 2
    return np.random.default_rng(seed).permutation(QUESTIONS).argsort() < QUESTIONS // 2


def correct(plan: Plan, name: str, g: int, task: str, half: str = "all") -> np.ndarray:
    """(members, questions): 1 for a correct answer, in the order of questions."""
    found = []
    for m in range(plan.config["experiments"][name]["population"]):
        rows = table(folder(plan, name, g, m) / "answers.parquet")
        found.append(rows[rows.task == task].sort_values("doc_id").correct.to_numpy(float))
    chosen = selecting(plan, task)
    kept = {"all": chosen | True, "selecting": chosen, "reporting": ~chosen}[half]
    return np.array(found)[:, kept]


def scored(values: np.ndarray) -> dict:
    """Accuracies (members,) and standard errors of answers (members, questions)."""
    errors = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
    levels = {"accuracies": values.mean(axis=1).tolist(), "standard_errors": errors.tolist()}
    return levels | {"questions": values.shape[1]}


def rank(plan: Plan, name: str, g: int) -> None:
    """Write selection.json: members by falling accuracy, the lower slot first (appendix C).

    The selecting half ranks. The winner's curse is the lead of the parents over all members there,
    minus their lead on the reporting half.
    """
    settings = plan.config["experiments"][name]["select"]
    task, k = settings["task"], settings["k"]
    halves = {
        half: correct(plan, name, g, task, half) for half in ("selecting", "reporting", "all")
    }
    accuracy = halves["selecting"].mean(axis=1)
    ranking = sorted(range(len(accuracy)), key=lambda m: (-accuracy[m], m))
    chosen = {"task": task, "k": k, "ranking": ranking, "parents": ranking[:k]}
    chosen |= scored(halves["selecting"]) | {"ties": None, "confidence": None, "split": "half"}
    chosen |= {"reported": scored(halves["reporting"]), "all": scored(halves["all"])}
    leads = [
        halves[half][ranking[:k]].mean(axis=0) - halves[half].mean(axis=0)
        for half in ("selecting", "reporting")
    ]
    stderr = sum(lead.var(ddof=1) / len(lead) for lead in leads) ** 0.5
    chosen |= {"winners_curse": {"gap": leads[0].mean() - leads[1].mean(), "stderr": stderr}}
    write_json(plan.results, f"{name}/gen{g}/selection.json", chosen)


def write(where, name: str, table: pd.DataFrame | pa.Table) -> None:
    path = Path(where, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(table, path)


def write_json(where, name: str, value: dict) -> None:
    path = Path(where, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
