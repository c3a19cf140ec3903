"""Write the page of continuations: every generation continues the same prompts.

It shows the champion beside the single line (study A: figure 7, tables 3 to 5).
"""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from pollination.analysis.degeneration import find, shares
from pollination.analysis.run import Run
from pollination.figures import page, style
from pollination.plan import layout

SHARES = ("url", "repetition", "enumeration", "unknown", "any")
COLUMNS = (
    "prompt_id",
    "prompt",
    "generation",
    "role",
    "experiment",
    "member",
    "completion",
    *SHARES,
)
TITLE = {"population": "champion of the population", "line": "single line"}


def draw(run: Run, out: Path) -> None:
    sides = {role: run.roles[role][0] for role in ("population", "line") if run.roles[role]}
    introduction = (
        f"<p>Each generation continues the same prompts with the same seeds. {introduce(run)}</p>\n"
    )
    write(
        read(run, sides), "Continuations of the same prompts by every generation", introduction, out
    )


def read(
    run: Run,
    sides: dict[str, str],
    prompt_ids: Collection[str] | None = None,
    generations: Collection[int] | None = None,
) -> list[dict]:
    """Return the text of each generation's champion: rows of COLUMNS, and degenerate `spans`.

    `sides`: role -> experiment; `prompt_ids`: these prompts in this order, else all.
    ValueError: the samples lack a prompt.
    """
    vocabulary, rows = run.vocabulary(list(sides.values())), []
    for role, name in sides.items():
        for g in range(run.plan.experiment(name)["generations"]):
            if generations is not None and g not in generations:
                continue
            member = run.champion(name, g)
            samples = run.table(
                layout.member_folder(run.plan, name, g, member),
                "samples.parquet",
                ["prompt_id", "prompt", "completion"],
            )
            if prompt_ids is not None:
                absent = [prompt for prompt in prompt_ids if prompt not in set(samples.prompt_id)]
                if absent:
                    raise ValueError(
                        f"evaluate.samples: experiment {name} has no sample of prompt "
                        f"{absent[0]!r}; add this prompt to evaluate.samples.texts"
                    )
                samples = samples.set_index("prompt_id").loc[list(prompt_ids)].reset_index()
            for row in samples.to_dict("records"):
                spans = find(row["completion"], vocabulary, row["prompt"])
                about = {
                    "generation": g,
                    "role": role,
                    "experiment": name,
                    "member": member,
                    "spans": spans,
                }
                rows.append(row | about | shares(row["completion"], spans))
    return rows


def write(rows: list[dict], title: str, introduction: str, out: Path) -> None:
    """Write rows of `read` as `out`.html and .csv: per prompt, a table of generations by role."""
    style.write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), out)
    page.save(title, [introduction, page.underlines(), *tables(rows)], out)


def tables(rows: list[dict]) -> list[str]:
    """Return the prompts, each with its table, as HTML."""
    roles, parts = list(dict.fromkeys(row["role"] for row in rows)), []
    shown = {(row["prompt_id"], row["generation"], row["role"]): row for row in rows}
    headings = ["generation"] + [f'<span class="{role}">{TITLE[role]}</span>' for role in roles]
    for prompt_id, prompt in {row["prompt_id"]: row["prompt"] for row in rows}.items():
        parts.append(
            f'<h2>Prompt {page.text(prompt_id)}</h2><div class="prompt">{page.text(prompt)}</div>\n'
        )
        generations = sorted({g for p, g, _ in shown if p == prompt_id})
        cells = [
            [str(g)] + [cell(shown.get((prompt_id, g, role)), role) for role in roles]
            for g in generations
        ]
        parts.append(page.table(headings, cells, ["number"] + ["text"] * len(roles)))
    return parts


def introduce(run: Run) -> str:
    sides = []
    if run.roles["population"]:
        name = run.roles["population"][0]
        sides.append(
            f"For the population ({page.text(name)}) the page shows each generation's champion "
            f"({page.text(run.champion_rule(name))})."
        )
    if run.roles["line"]:
        name = run.roles["line"][0]
        sides.append(
            f"Of the single lines ({page.text(name)}) it shows the best of each generation "
            f"({page.text(run.champion_rule(name))})."
            if run.plan.experiment(name)["population"] > 1
            else f"The single line is {page.text(name)}."
        )
    return " ".join(sides)


def cell(row: dict | None, role: str) -> str:
    if row is None:
        return ""
    member = f"<small>member {row['member']}</small>\n" if role == "population" else ""
    return member + page.text(row["completion"], row["spans"])
