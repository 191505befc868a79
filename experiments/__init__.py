"""Experiments behind the tables and figures of the paper, and collection of their results (docs/experiments.md)."""
