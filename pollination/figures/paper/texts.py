"""Write study A's texts (figure 7, tables 3 to 5): every generation continues one prompt."""

import math
from pathlib import Path

from pollination.analysis.run import Run
from pollination.figures import continuations
from pollination.plan.config.targets import TARGETS, TEXTS, TWO_TABLES
from pollination.plan.paper import role_of


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    sides = {role: run.roles[role][0] for role in ("population", "line") if run.roles[role]}
    named, (first, last) = role_of(run.plan, target), TWO_TABLES.get(target, (0, 1))
    count = max(run.plan.experiment(name)["generations"] for name in sides.values())
    generations = range(math.ceil(first * count), math.ceil(last * count))
    rows = continuations.read(run, sides, named or None, generations)
    if not named:  # by its position among the prompts of the run
        prompts = list(dict.fromkeys(row["prompt_id"] for row in rows))
        rows = [
            row for row in rows if row["prompt_id"] == prompts[min(TEXTS[target], len(prompts) - 1)]
        ]
    introduction = (
        f"<p>{continuations.introduce(run)}</p>\n"
        if rows
        else "<p>The run has none of these generations.</p>\n"
    )
    continuations.write(rows, TARGETS[target].title, introduction, out)
