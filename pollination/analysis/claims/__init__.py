"""The main claims of both studies, each a small test on a run's artifacts (docs/claims.md)."""
