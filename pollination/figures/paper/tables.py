"""Write tables of settings beside the studies': study A's tables 1 and 2, study B's table 1."""

from pathlib import Path

import pandas as pd

from pollination.analysis.run import ROLES, Run
from pollination.core import artifacts
from pollination.figures import page, settings, style
from pollination.figures.paper.study_a import SOFTWARE, TABLES
from pollination.figures.paper.study_b import BATCH_PROMPTS, BLOCK_TOKENS, GENERATION
from pollination.plan import layout
from pollination.plan.decoding import DECODINGS

COLUMNS = ("section", "setting", *ROLES, "paper")


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    if target == "table_b1":
        rows = generation(run)
    else:
        rows = [
            row for row in settings.rows(run) + software(run) if row["section"] in TABLES[target]
        ]
    style.write_csv(pd.DataFrame(rows).reindex(columns=list(COLUMNS)).map(settings.plain), out)
    study = "study B" if target == "table_b1" else "study A"
    title = f"Settings of this run compared with {study}, table {target[-1]}"
    page.save(title, settings.tables(run, rows, study), out)


def software(run: Run) -> list[dict]:
    """Return versions and device from the record of each role's first model."""
    records = {
        role: artifacts.read_json(
            f"{layout.member_folder(run.plan, run.roles[role][0], 0, 0)}/run.json"
        )
        for role in ROLES
        if run.roles[role]
    }
    said = {
        role: {**record["versions"], **record.get("hardware", {})}
        for role, record in records.items()
    }
    rows = []
    for name, (key, paper) in SOFTWARE.items():
        values = {
            role: f"{key} {facts[key]}" if key == "pollination" else facts.get(key, "not recorded")
            for role, facts in said.items()
        }
        rows.append({"section": "Software and hardware", "setting": name, "paper": paper} | values)
    return rows


def generation(run: Run) -> list[dict]:
    """Return the generation settings and the length of a block."""
    rows = []
    for name, (key, paper) in GENERATION.items():
        values = {
            role: settings.value(run, role, "experiment", f"generate.{key}") for role in ROLES
        }
        rows.append({"section": "Generation", "setting": name, "paper": paper} | values)
    batches = {role: prompts_per_batch(run, role) for role in ROLES}
    blocks = {role: settings.value(run, role, "model", "context_tokens") for role in ROLES}
    return [
        *rows,
        {"section": "Generation", "setting": "batch, prompts", "paper": BATCH_PROMPTS} | batches,
        {"section": "Generation", "setting": "block, tokens", "paper": BLOCK_TOKENS} | blocks,
    ]


def prompts_per_batch(run: Run, role: str) -> int | None:
    """Return how many prompts a role continues side by side: rows per batch / rows per prompt."""
    generate = settings.value(run, role, "experiment", "generate")
    if generate is None:
        return None
    per_prompt = DECODINGS[generate["decoding"]].sequences(generate)
    return max(1, generate["batch_size"] // per_prompt)
