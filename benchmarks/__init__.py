"""Side-by-side benchmarks: `python -m benchmarks` (make bench) measures each path and what users would run instead."""
