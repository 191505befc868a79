"""Tables and figures, and the numbers that the paper prints."""
