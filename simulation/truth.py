"""What happens in each simulated video: the annotated segments, and what annotations do not say."""

import numpy as np

from dataloaders.annotations import SplitAnnotations
from simulation.simulated_features import MODEL, Truth, generator


def video_truth(splits: dict[str, SplitAnnotations], seed: int) -> dict[str, Truth]:
    """Return what happens in each video, by feature id.

    Training videos without segment labels (LLP) are given some. Where annotations are audio-visual only, one-sided
    events are added. A clip that several samples share (AVE) holds the events of all of them.
    """
    val, truth = splits["val"], {}
    for annotations in splits.values():
        labels = annotations.video_labels.numpy()
        if annotations.labels is None:
            audio, visual = _draw_segment_labels(annotations, val, seed)
        else:
            ends = annotations.offsets[1:-1].numpy()
            audio, visual = (np.split(x.numpy(), ends) for x in annotations.labels)
        for n, video in enumerate(annotations.feature_ids):
            one = Truth(audio[n], visual[n], labels[n])
            truth[video] = Truth(*map(np.logical_or, one, truth[video])) if video in truth else one
    if val.labels.audio is val.labels.visual:
        for video, one in truth.items():
            truth[video] = _add_one_sided_events(one, generator(seed, val.dataset, video, "one-sided"))
    return truth


def _add_one_sided_events(truth: Truth, rng: np.random.Generator) -> Truth:
    """A video with events that are only audible or only visible, besides the annotated ones that are both."""
    model = MODEL["one_sided_events"]
    streams = [truth.audio.copy(), truth.visual.copy()]
    num_segments, num_classes = truth.audio.shape
    labelled = [c for c in np.flatnonzero(truth.labels) if rng.random() < model["of_label"]]
    events = [(int(rng.integers(2)), c) for c in labelled]
    for modality in range(2):
        events += [(modality, c) for c in rng.integers(num_classes, size=rng.poisson(model["others"]))]
    for modality, c in events:
        length = min(num_segments, 1 + int(rng.exponential(model["mean_share"] * num_segments)))
        start = rng.integers(num_segments - length, endpoint=True)
        streams[modality][start : start + length, c] = True
    return Truth(*streams, truth.labels)


def _draw_segment_labels(
    annotations: SplitAnnotations, examples: SplitAnnotations, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Segment labels for videos that have none: two (N, T, C) bool, audio and visual.

    For each class of a video, both modalities are copied from a random video of `examples` with that class, one that
    has other classes as well if and only if this video has, where there is such a one.
    """
    labels, example_labels = annotations.video_labels.numpy(), examples.video_labels.numpy()
    alone = example_labels.sum(axis=1) == 1
    shape = (-1, int(annotations.lengths[0]), len(annotations.classes))
    audio_examples, visual_examples = (x.numpy().reshape(shape) for x in examples.labels)
    audio, visual = np.zeros((2, len(labels), *shape[1:]), dtype=bool)
    for n, video in enumerate(annotations.feature_ids):
        rng = generator(seed, annotations.dataset, video, "truth")
        classes = np.flatnonzero(labels[n])
        for c in classes:
            with_class = example_labels[:, c]
            candidates = with_class & (alone == (len(classes) == 1)), with_class, np.ones_like(alone)
            example = rng.choice(next(np.flatnonzero(x) for x in candidates if x.any()))
            audio[n, :, c], visual[n, :, c] = audio_examples[example, :, c], visual_examples[example, :, c]
    return audio, visual
