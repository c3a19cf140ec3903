"""Populations of language models that train on each other's text.

There are nine packages: core, plan, data, models, evolution, evaluation, analysis, figures, cli.
Each imports only those before it (docs/design.md). Rules import only core and plan, which load
neither torch nor pandas.
"""

from pathlib import Path
from typing import Any

__version__ = "0.2.0"
ROOT = Path(__file__).parent.parent
"""The checkout; its config/ and workflow/ are part of the system."""


def __getattr__(name: str) -> Any:
    """Import `load_run` when it is used, because it loads pandas."""
    if name == "load_run":
        from pollination.analysis.frames import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
