"""Populations of language models that train on each other's text.

Lower floor (no torch): config, seeds, artifacts, job, selection, lineage, workflow: what the rules see.
Upper floor: corpora, models, training, generation, scoring, statistics, figures: what the scripts call.
"""

__version__ = "0.1.0"
