"""Simulated data sets: the generative model, and the files that it writes. docs/simulation.md states it."""
