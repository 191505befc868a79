"""Time and memory of this repository, beside naive implementations with the same results."""
