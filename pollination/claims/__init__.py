"""The headline claims of both studies, each a small declared test on a run's artifacts (docs/claims.md)."""
