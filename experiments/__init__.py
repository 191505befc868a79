"""The tables and figures of the paper: what is run for each, and how the results are collected.

This is the one layer above the entry points. `python -m experiments --help`; docs/experiments.md describes each table.
"""
