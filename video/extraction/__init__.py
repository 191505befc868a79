"""From videos to feature files: weights, networks, the pipeline, text features, comparison with published features."""
