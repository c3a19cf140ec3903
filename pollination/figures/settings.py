"""Write the page of this run's settings beside study A's (its tables 1 and 2).

The page also lists the questions per benchmark, and the choices that the papers leave open.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.run import ROLES, Run
from pollination.core import artifacts
from pollination.figures import page, style
from pollination.figures.paper.study_a import FIXED, PAPER
from pollination.plan import layout
from pollination.plan.benchmark_folder import built_in_template
from pollination.plan.config.values import by_member

COLUMNS = ("section", "setting", "population", "line", "paper")


def draw(run: Run, out: Path) -> None:
    every = rows(run)
    style.write_csv(pd.DataFrame(every).reindex(columns=list(COLUMNS)).map(plain), out)
    page.save("Settings of this run compared with study A", tables(run, every, "study A"), out)


def rows(run: Run) -> list[dict]:
    """Return a row per setting: section, setting, population, line, paper."""
    config = run.plan.config
    listed = [
        {"section": section, "setting": name, "paper": paper}
        | {role: value(run, role, where, key) for role in ROLES}
        for section, settings in PAPER.items()
        for name, (where, key, paper) in settings.items()
    ]
    listed += [
        {
            "section": list(PAPER)[-1],
            "setting": name,
            "population": ours,
            "line": ours,
            "paper": paper,
        }
        for name, (ours, paper) in FIXED.items()
    ]
    seeds = {"data seed": ("data_seed", "100"), "evaluation seed": ("evaluation_seed", "1234")}
    listed += [
        {
            "section": "Evaluation",
            "setting": n,
            "population": str(config[k]),
            "line": str(config[k]),
            "paper": p,
        }
        for n, (k, p) in seeds.items()
    ]
    return listed + [
        {
            "section": "Evaluation",
            "setting": f"task {task}",
            "population": said,
            "line": said,
            "paper": paper,
        }
        for task, said, paper in questions(run)
    ]


def tables(run: Run, every: list[dict], study: str) -> list[str]:
    """Return the parts of a page: a table per section, with the study's value last."""
    roles = [role for role in ROLES if run.roles[role]]
    parts = [
        (
            f"<p>Run {page.text(run.plan.config['run'])}. Bold: the value differs from {study}'s. "
            f"Replicates: {page.text(replicates(run))}.</p>\n"
        )
    ]
    for section in dict.fromkeys(row["section"] for row in every):
        cells = [
            [
                page.text(row["setting"]),
                *(cell(row, role) for role in roles),
                page.text(shown(row["paper"])),
            ]
            for row in every
            if row["section"] == section
        ]
        parts.append(
            f"<h2>{page.text(section)}</h2>"
            + page.table(["setting", *(style.NAME[role] for role in roles), study], cells)
        )
    return parts


def replicates(run: Run) -> str:
    return "; ".join(
        f"{style.NAME[role]}: {', '.join(run.roles[role])}" for role in ROLES if run.roles[role]
    )


def value(run: Run, role: str, where: str, key):
    """Return a setting of a role's first replicate; None if no experiment has the role.

    `key` is dotted; for a built model it is a tuple of spellings.
    """
    if not run.roles[role]:
        return None
    name = run.roles[role][0]
    experiment, config = run.plan.experiment(name), run.plan.config
    pool = config["founders"][experiment["founders"]]
    model = config["models"][by_member(pool["model"], 0)]
    if where == "built":
        return built(layout.member_folder(run.plan, name, 0, 0), key)
    if key == "architecture" and model["pretrained"]:
        return f"pretrained: {model['pretrained']}"
    node = {"model": model, "founders": pool, "experiment": experiment}[where]
    for part in key.split("."):
        node = node[part]
    return node


def built(folder: str, spellings: tuple[str, ...]):
    """Return a key of a model's config.json, under any of its spellings.

    The header of the weights gives the number of `parameters`.
    """
    if spellings == ("parameters",):
        with open(f"{folder}/model.safetensors", "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        return sum(
            int(np.prod(tensor["shape"]))
            for name, tensor in header.items()
            if name != "__metadata__"
        )
    settings = artifacts.read_json(f"{folder}/config.json")
    heads = next(
        (settings[key] for key in ("num_attention_heads", "n_head") if key in settings), None
    )
    if heads and not settings.get("head_dim"):
        settings["head_dim"] = (settings.get("hidden_size") or settings["n_embd"]) // heads
    learned = {"gpt2": "learned", "opt": "learned"}.get(settings.get("model_type"), "not known")
    settings["positions"] = (
        "rotary" if settings.get("rope_parameters") or settings.get("rope_theta") else learned
    )
    return next((settings[key] for key in spellings if settings.get(key) is not None), None)


def questions(run: Run) -> list[tuple[str, str, str]]:
    """Return (task, questions and shots of this run, shots of study A)."""
    role = next(role for role in ROLES if run.roles[role])
    paper = {
        "mmlu": "5 shots",
        "winogrande": "5 shots",
        "mathqa": "0 shots",
        "social_iqa": "0 shots",
    }
    founder = layout.member_folder(run.plan, run.roles[role][0], 0, 0)
    rows = []
    for task, scores in run.scores(founder)["tasks"].items():
        available = scores.get("questions_available", scores["questions"])
        said = (
            f"{scores['questions']:,} of {available:,} questions, {scores['shots']} shots, "
            f"{scores['method']}{', half of them select' if task in run.splits else ''}"
        )
        template = built_in_template(run.plan.config["tasks"][task])
        rows.append((task, said, paper.get(str(template), "not used")))
    return rows


def shown(value) -> str:
    """Return a value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return "none" if value is None else str(value)


def plain(value) -> str | int | float:
    """Return a value as a CSV holds it: numbers unformatted."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number else shown(value)


def cell(row: dict, role: str) -> str:
    """Return this run's value, bold if it is the population's and differs from the paper's."""
    ours, paper = shown(row[role]), row["paper"]
    named = not isinstance(paper, str) or paper in (
        "llama",
        "rotary",
        "cosine",
        "nucleus",
        "beam",
        "blocks",
        "parent",
        "100",
        "1234",
    )
    differs = role == "population" and named and ours != shown(paper)
    return f'<span class="other">{page.text(ours)}</span>' if differs else page.text(ours)
