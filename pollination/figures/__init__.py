"""The report's figures and pages.

Each module has `draw(run, out)`, which reads through `analysis.run.Run` and writes `out` + .svg,
.png and .csv, the numbers behind the picture. A page is .html and .csv. No module here imports
torch or keeps a state.
"""

from importlib import import_module
from types import ModuleType

from pollination.plan.figures import FIGURES


def drawing(figure: str) -> ModuleType:
    """The module that draws a figure."""
    return import_module(f"pollination.figures.{FIGURES[figure].module}")
