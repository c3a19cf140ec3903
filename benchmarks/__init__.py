"""Side-by-side benchmarks: `python -m benchmarks` (make bench) compares code paths with peers."""
