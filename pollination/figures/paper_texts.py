"""Study A's tables of text: one prompt continued by every generation, population beside single line (figure 7, tables 3 to 5)."""

import math
from pathlib import Path

from pollination.figures import continuations
from pollination.figures.data import Run
from pollination.paper import TARGETS, TEXTS, TWO_TABLES


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    sides = {role: run.roles[role][0] for role in ("population", "line") if run.roles[role]}
    named, (first, last) = run.plan.role(target), TWO_TABLES.get(target, (0, 1))
    count = max(run.plan.experiment(name)["generations"] for name in sides.values())
    generations = range(math.ceil(first * count), math.ceil(last * count))
    rows = continuations.read(run, sides, named or None, generations)
    if not named:  # by its place among the prompts of the run
        prompts = list(dict.fromkeys(row["prompt_id"] for row in rows))
        rows = [row for row in rows if row["prompt_id"] == prompts[min(TEXTS[target], len(prompts) - 1)]]
    introduction = f"<p>{continuations.introduce(run)}</p>\n" if rows else "<p>The run has no such generation.</p>\n"
    continuations.write(rows, TARGETS[target].title, introduction, out)
