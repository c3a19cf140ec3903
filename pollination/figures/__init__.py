"""Figures and pages of the report.

Each module has `draw(run, out)`. It reads through `analysis.run.Run` and writes `out` + .svg, .png
and .csv (the numbers of the picture). A page is .html and .csv. No module here imports torch or
keeps state.
"""

from importlib import import_module
from types import ModuleType

from pollination.plan.figures import entry_of


def drawing(figure: str) -> ModuleType:
    """Return the module that draws a figure."""
    return import_module(f"pollination.figures.{entry_of(figure).module}")
