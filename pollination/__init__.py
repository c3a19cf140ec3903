"""Populations of language models that train on each other's text.

There are nine packages: core, plan, data, models, evolution, evaluation, analysis, figures, cli.
Each imports only those before it (docs/design.md). Rules import only core and plan, which load
neither torch nor pandas.
"""

from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).parent.parent
"""The checkout; its config/ and workflow/ are part of the system."""
