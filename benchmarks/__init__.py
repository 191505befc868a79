"""Benchmarks of time and memory against naive implementations with the same results."""
