"""The tables and figures of the paper: what is run for each, and how it is collected; see docs/experiments.md."""
