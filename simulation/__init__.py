"""Simulated data sets: the generative model of docs/simulation.md, and the files that it writes."""
