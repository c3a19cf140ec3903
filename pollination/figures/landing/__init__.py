"""The landing page of a run: its answer, the figures that show it, and all the rest by topic."""
