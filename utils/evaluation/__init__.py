"""Networks over whole splits, and what becomes of it: predictions, scores, comparisons."""
