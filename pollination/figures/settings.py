"""This run's settings beside study A's (its tables 1 and 2), the questions asked, and the choices that the papers leave open."""

import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd

from pollination import artifacts
from pollination.figures import page, style
from pollination.figures.data import ROLES, Run

COLUMNS = ("section", "setting", "population", "line", "paper")
# setting -> (where it stands: models / founders / experiment and the key, study A's value)
PAPER = {
    "Model": {
        "architecture": ("model", "architecture", "llama"),
        "layers": ("built", ("num_hidden_layers", "n_layer"), 12),
        "hidden dimension": ("built", ("hidden_size", "n_embd"), 768),
        "attention heads": ("built", ("num_attention_heads", "n_head"), 12),
        "feed-forward dimension": ("built", ("intermediate_size", "ffn_dim", "n_inner"), 3072),
        "vocabulary": ("built", ("vocab_size",), 32_000),
        "parameters": ("built", ("parameters",), "about 100 million"),
        "context, tokens": ("model", "context_tokens", 1024),
    },
    "Training, generation 0": {
        "learning rate": ("founders", "train.learning_rate", 1e-3),
        "batch, sequences": ("founders", "train.batch_sequences", 128),
        "tokens a model": ("founders", "train.tokens", 1_000_000_000),
        "epochs": ("founders", "train.epochs", 1),
        "warm-up steps": ("founders", "train.warmup_steps", 1000),
        "weight decay": ("founders", "train.weight_decay", 0.01),
    },
    "Training, later generations": {
        "learning rate": ("experiment", "train.learning_rate", 2e-4),
        "batch, sequences": ("experiment", "train.batch_sequences", 64),
        "tokens a model (none: all that its parent wrote)": ("experiment", "train.tokens", 1_000_000_000),
        "epochs": ("experiment", "train.epochs", 1),
        "warm-up steps": ("experiment", "train.warmup_steps", 1000),
        "schedule": ("experiment", "train.schedule", "cosine"),
        "AdamW betas": ("experiment", "train.betas", [0.9, 0.95]),
        "AdamW epsilon": ("experiment", "train.epsilon", 1e-8),
        "weight decay": ("experiment", "train.weight_decay", 0.01),
        "largest gradient norm": ("experiment", "train.clip_norm", 1.0),
    },
    "Evolution": {
        "population N": ("experiment", "population", 16),
        "generations": ("experiment", "generations", 5),
        "selected by": ("experiment", "select.task", "one of four benchmarks"),
        "parents k": ("experiment", "select.k", 4),
        "mutation scale": ("experiment", "mutate.scale", 0.01),
        "weights of a child": ("experiment", "weights", "parent"),
        "text of a child": ("experiment", "text", "parent"),
        "human text mixed in": ("experiment", "human.fraction", 0.0),
        "decoding": ("experiment", "generate.decoding", "nucleus"),
        "top-p": ("experiment", "generate.top_p", 0.9),
        "temperature": ("experiment", "generate.temperature", 0.7),
        "longest prompt, sentences": ("experiment", "generate.max_sentences", 8),
        "shortest completion, tokens": ("experiment", "generate.min_tokens", 10),
        "synthetic tokens a parent": ("experiment", "generate.tokens", 1_000_000_000),
        "training seed": ("experiment", "seed", "42; line 42, 123, 456"),
    },
    "Choices that the papers leave open": {
        "founders' slices of text": ("founders", "slices", "not stated"),
        "mutation: standard deviation of each": ("experiment", "mutate.per", "not stated (tensor or model)"),
        "child trains on the prompt too": ("experiment", "train.include_prompt", "prompt-completion pairs"),
        "weights kept of a training": ("experiment", "train.keep", "not stated (last or best)"),
        "token budget counts": ("experiment", "generate.budget_counts", "not stated (completion or text)"),
        "longest prompt, tokens (none: half the context)": ("experiment", "generate.max_prompt_tokens", "not stated"),
        "repetition penalty": ("experiment", "generate.repetition_penalty", "not stated"),
    },
}
FIXED = {  # choices that are not keys
    "a parent may mate with itself (pair i = i)": ("yes: all k*k ordered pairs", "all possible ordered pairs"),
    "completions that are too short": ("dropped and replaced", "truncated"),
    "ties in the ranking": ("the lower slot first", "not stated"),
    "perplexity": ("exp of the mean over tokens; the mean over sequences beside it in scores.json", "not used"),
    "synthetic text as a child reads it": ("the token ids that were sampled", "not stated"),
    "prompts from public benchmarks": ("never: held-out documents only", "partly"),
}


def draw(run: Run, out: Path) -> None:
    config = run.plan.config
    rows = [
        {"section": section, "setting": name, "paper": paper} | {role: value(run, role, where, key) for role in ROLES}
        for section, settings in PAPER.items()
        for name, (where, key, paper) in settings.items()
    ]
    rows += [{"section": list(PAPER)[-1], "setting": name, "population": ours, "line": ours, "paper": paper} for name, (ours, paper) in FIXED.items()]
    seeds = {"data seed": ("data_seed", 100), "evaluation seed": ("evaluation_seed", 1234)}
    rows += [{"section": "Evaluation", "setting": n, "population": config[k], "line": config[k], "paper": p} for n, (k, p) in seeds.items()]
    rows += [{"section": "Evaluation", "setting": f"task {task}", "population": said, "line": said, "paper": paper} for task, said, paper in questions(run)]
    style.write_csv(pd.DataFrame(rows).reindex(columns=list(COLUMNS)).map(shown), out)
    roles = [role for role in ROLES if run.roles[role]]
    parts = [f"<p>Run {page.text(config['run'])}. Values in bold differ from study A's. Replicates: {page.text(replicates(run))}.</p>\n"]
    for section in dict.fromkeys(row["section"] for row in rows):
        cells = [
            [page.text(row["setting"]), *(mark(row[role], row["paper"]) for role in roles), page.text(shown(row["paper"]))]
            for row in rows
            if row["section"] == section
        ]
        parts.append(f"<h2>{page.text(section)}</h2>" + page.table(["setting", *(style.NAME[role] for role in roles), "study A"], cells))
    page.save("Settings of this run, and study A's", parts, out)


def replicates(run: Run) -> str:
    return "; ".join(f"{style.NAME[role]}: {', '.join(run.roles[role])}" for role in ROLES if run.roles[role])


def value(run: Run, role: str, where: str, key):
    """A setting of the first replicate in a role; None where nobody plays it. `key` is dotted; of a built model, its spellings."""
    if not run.roles[role]:
        return None
    name = run.roles[role][0]
    experiment, config = run.plan.experiment(name), run.plan.config
    pool = config["founders"][experiment["founders"]]
    model = config["models"][pool["model"]]
    if where == "built":
        return built(run.plan.member(name, 0, 0), key)
    if key == "architecture" and model["pretrained"]:
        return f"pretrained: {model['pretrained']}"
    node = {"model": model, "founders": pool, "experiment": experiment}[where]
    for part in key.split("."):
        node = node[part]
    return node


def built(folder: str, spellings: tuple[str, ...]):
    """A key of a model's config.json, under any of its spellings; its parameters are counted in the weights' header."""
    if spellings == ("parameters",):
        with open(f"{folder}/model.safetensors", "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        return sum(int(np.prod(tensor["shape"])) for name, tensor in header.items() if name != "__metadata__")
    settings = artifacts.read_json(f"{folder}/config.json")
    return next((settings[key] for key in spellings if settings.get(key) is not None), None)


def questions(run: Run) -> list[tuple[str, str, str]]:
    """(task, how it was asked, how study A asked it)."""
    role = next(role for role in ROLES if run.roles[role])
    paper = {"mmlu": "5 shots", "winogrande": "5 shots", "mathqa": "0 shots", "social_iqa": "0 shots"}
    rows = []
    for task, scores in run.scores(run.plan.member(run.roles[role][0], 0, 0))["tasks"].items():
        available = scores.get("questions_available", scores["questions"])
        said = f"{scores['questions']:,} of {available:,} questions, {scores['shots']} shots, {scores['method']}"
        rows.append((task, said, paper.get(run.plan.config["tasks"][task].get("template"), "not used")))
    return rows


def shown(value) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return "none" if value is None else str(value)


def mark(ours, paper) -> str:
    """Our value, bold where the paper has a number or name for it and it is another one."""
    same = shown(ours) == shown(paper) or (isinstance(paper, str) and paper not in ("llama", "cosine", "nucleus", "parent"))
    return page.text(shown(ours)) if same else f'<span class="other">{page.text(shown(ours))}</span>'
