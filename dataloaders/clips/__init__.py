"""Short videos with one label, or one a second: from files to batches of frames and sound."""
