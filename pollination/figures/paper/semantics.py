"""Draw study A's figure 10: a map of a population's texts, a panel per generation."""

from pathlib import Path

from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.figures import semantics
from pollination.plan.paper import role_of
from pollination.plan.semantics import embeddings_file, semantics_setting


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...] = ()) -> None:
    table = artifacts.read_table(embeddings_file(run.plan)).to_pandas()
    groups = [
        {
            "group": label,
            "experiments": names,
            "population": run.plan.experiment(names[0])["population"],
        }
        for label, names in role_of(run.plan, target).items()
    ]
    semantics.draw_panels(table, groups, semantics_setting(run.plan, "perplexity"), out)
