"""Scoring a model: benchmark tasks through lm-eval (tasks, answers) and held-out perplexity."""
