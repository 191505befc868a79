"""From a video file to what the feature networks are given: decoding, choice of frames, pixels, sounds."""
