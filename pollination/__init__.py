"""Populations of language models that train on each other's text.

Nine packages, each of which imports only those before it: core, plan, data, models, evolution,
evaluation, analysis, figures, cli (docs/design.md). Rules import core and plan alone, which load
neither torch nor pandas.
"""

from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).parent.parent
"""The checkout: its config/ and workflow/ belong to the system too."""
