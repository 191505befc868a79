"""What happens in each simulated video: the annotated segments, and what annotations do not say."""

from dataclasses import dataclass

import numpy as np

from dataloaders.annotations import SplitAnnotations
from simulation.simulated_features import Truth, generator


@dataclass(frozen=True)
class OneSidedEvents:
    """Events that are audible or visible only, which audio-visual annotations (UnAV, AVE) leave out."""

    of_label: float  # probability that a class of the video also goes on in one modality alone, for some of the video
    others: float  # mean number of further one-sided events per modality and video, of any class
    mean_share: float  # mean length as a share of the video


ONE_SIDED = OneSidedEvents(of_label=0.3, others=0.5, mean_share=0.4)


def video_truth(splits: dict[str, SplitAnnotations], seed: int) -> dict[str, Truth]:
    """What happens in each video, by feature id.

    Training videos without segment labels (LLP) are given some. Where annotations are audio-visual only, one-sided
    events are added. A clip that several samples share (AVE) holds the events of all of them.
    """
    dataset = splits["val"].dataset
    truth: dict[str, Truth] = {}
    one_sided = splits["val"].labels.audio is splits["val"].labels.visual
    for annotations in splits.values():
        labels = annotations.video_labels.numpy()
        if annotations.labels is None:
            audio, visual = _draw_segment_labels(annotations, splits["val"], seed)
        else:
            ends = annotations.offsets[1:-1].numpy()
            audio, visual = (np.split(x.numpy(), ends) for x in annotations.labels)
        for n, video in enumerate(annotations.feature_ids):
            one = Truth(audio[n], visual[n], labels[n])
            if video in truth:
                other = truth[video]
                one = Truth(one.audio | other.audio, one.visual | other.visual, one.labels | other.labels)
            truth[video] = one
    if one_sided:
        return {v: _add_one_sided_events(one, generator(seed, dataset, v, "one-sided")) for v, one in truth.items()}
    return truth


def _add_one_sided_events(truth: Truth, rng: np.random.Generator) -> Truth:
    """A video with events that are only audible or only visible, besides the annotated ones that are both."""
    streams = [truth.audio.copy(), truth.visual.copy()]
    num_classes = len(truth.labels)
    labelled = [c for c in np.flatnonzero(truth.labels) if rng.random() < ONE_SIDED.of_label]
    events = [(int(rng.integers(2)), c) for c in labelled]
    for modality in range(2):
        events += [(modality, c) for c in rng.integers(num_classes, size=rng.poisson(ONE_SIDED.others))]
    for modality, c in events:
        num_segments = len(truth.audio)
        length = min(num_segments, 1 + int(rng.exponential(ONE_SIDED.mean_share * num_segments)))
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
    num_segments, num_classes = int(annotations.lengths[0]), len(annotations.classes)
    shape = (-1, num_segments, num_classes)
    audio_examples, visual_examples = (x.numpy().reshape(shape) for x in examples.labels)
    example_labels, labels = examples.video_labels.numpy(), annotations.video_labels.numpy()
    alone = example_labels.sum(axis=1) == 1
    by_class = [
        {single: np.flatnonzero(example_labels[:, c] & (alone == single)) for single in (True, False)}
        for c in range(num_classes)
    ]
    anything = np.arange(len(example_labels))
    audio = np.zeros((len(labels), num_segments, num_classes), dtype=bool)
    visual = np.zeros_like(audio)
    for n, video in enumerate(annotations.feature_ids):
        rng = generator(seed, annotations.dataset, video, "truth")
        classes = np.flatnonzero(labels[n])
        for c in classes:
            single = len(classes) == 1
            fitting = next((x for x in (by_class[c][single], by_class[c][not single]) if len(x)), anything)
            example = rng.choice(fitting)
            audio[n, :, c], visual[n, :, c] = audio_examples[example, :, c], visual_examples[example, :, c]
    return audio, visual
