"""How fast this repository is, beside a naive implementation with the same results."""
