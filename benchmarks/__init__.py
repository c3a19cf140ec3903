"""Side-by-side benchmarks: `python -m benchmarks` (make bench) measures paths and their peers."""
