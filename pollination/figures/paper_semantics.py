"""Study A's figure 10: what every model of a population said to the same prompts, in two dimensions, a panel a generation."""

from pathlib import Path

from pollination import artifacts
from pollination.figures import semantics
from pollination.figures.data import Run


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    table = artifacts.read_table(run.plan.embeddings).to_pandas()
    groups = [
        {"group": label, "experiments": names, "population": run.plan.experiment(names[0])["population"]}
        for label, names in run.plan.role(target).items()
    ]
    semantics.draw_panels(table, groups, run.plan.semantics["perplexity"], out)
