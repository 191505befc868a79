"""The method itself, tensors in and tensors out: losses, objectives, thresholds, decoding, metrics."""
