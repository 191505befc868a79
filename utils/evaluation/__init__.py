"""Inference over whole splits, predictions, scores and comparisons."""
