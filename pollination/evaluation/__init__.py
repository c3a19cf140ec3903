"""Evaluate models on benchmarks (lm-eval), held-out perplexity and other measures."""
