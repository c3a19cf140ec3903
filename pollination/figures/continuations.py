"""The same prompts continued by every generation: the population's best beside the single line (study A, figure 7)."""

from pathlib import Path

import pandas as pd

from pollination.figures import page, style
from pollination.figures.data import Run

COLUMNS = ("prompt_id", "prompt", "generation", "role", "experiment", "member", "completion")
TITLE = {"population": "population's champion", "line": "single line"}


def draw(run: Run, out: Path) -> None:
    rows = []
    for role in ("population", "line"):
        for name in run.roles[role][:1]:
            for g in range(run.plan.experiment(name)["generations"]):
                member = run.champion(name, g)
                samples = run.table(run.plan.member(name, g, member), "samples.parquet", ["prompt_id", "prompt", "completion"])
                samples = samples.assign(generation=g, role=role, experiment=name, member=member)
                rows += samples.reindex(columns=list(COLUMNS)).to_dict("records")
    style.write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), out)
    roles = [role for role in ("population", "line") if run.roles[role]]
    shown = {(row["prompt_id"], row["generation"], row["role"]): row for row in rows}
    parts = [f"<p>Each generation continues the same prompts with the same seeds. {introduction(run)}</p>\n"]
    headings = ["generation"] + [f'<span class="{role}">{TITLE[role]}</span>' for role in roles]
    for prompt_id, prompt in {row["prompt_id"]: row["prompt"] for row in rows}.items():
        parts.append(f'<h2>Prompt {page.text(prompt_id)}</h2><div class="prompt">{page.text(prompt)}</div>\n')
        generations = sorted({g for p, g, _ in shown if p == prompt_id})
        cells = [[str(g)] + [cell(shown.get((prompt_id, g, role)), role) for role in roles] for g in generations]
        parts.append(page.table(headings, cells, ["number"] + ["text"] * len(roles)))
    page.save("The same prompts, generation by generation", parts, out)


def introduction(run: Run) -> str:
    sides = []
    if run.roles["population"]:
        sides.append(
            f"Of the population ({page.text(run.roles['population'][0])}) each generation's champion writes, the member of {page.text(run.champion_rule())}."
        )
    if run.roles["line"]:
        sides.append(f"The single line is {page.text(run.roles['line'][0])}.")
    return " ".join(sides)


def cell(row: dict | None, role: str) -> str:
    if row is None:
        return ""
    member = f"<small>member {row['member']}</small>\n" if role == "population" else ""
    return member + page.text(row["completion"])
