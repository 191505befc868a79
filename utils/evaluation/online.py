"""Online parsing: each segment is decoded from the window of segments that ends with it."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import torch

from dataloaders.batches import Batch, SplitBatches
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import SplitOutput, pad_rows
from utils.evaluation.tasks import Events, Task
from utils.method.decoding import DecodingSettings


class OnlineWindows:
    """One window of up to W segments for each of a split's R segments; windows take the place of videos."""

    def __init__(self, split: SplitBatches, window: int):
        self.split, self.window, self.device = split, window, split.device
        ends = [torch.arange(1, length + 1) for length in split.annotations.lengths.tolist()]
        lengths, self.widths = torch.cat(ends).clamp(max=window), split.widths  # (R,)
        self.annotations = SimpleNamespace(lengths=lengths, classes=split.annotations.classes)
        self.num_videos = len(self.annotations.lengths)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all windows, video by video, in batches of about `batch_size`."""
        for batch in self.split.in_order(max(1, batch_size // self.window)):
            lengths = self.split.annotations.lengths[batch.videos.cpu()]
            video = torch.repeat_interleave(torch.arange(len(lengths)), lengths).unsqueeze(1)  # (r, 1)
            last = torch.cat([torch.arange(length) for length in lengths.tolist()]).unsqueeze(1)
            segments = (last - self.window + 1).clamp(min=0) + torch.arange(self.window)  # (r, W)
            mask = (segments <= last).to(self.device)
            place = video.to(self.device), torch.minimum(segments, last).to(self.device)
            features = batch.features.map(lambda x, place=place: x[place])
            valid_rows = mask.flatten().nonzero().squeeze(1)
            yield replace(batch, features=features, mask=mask, valid_rows=valid_rows, labels=None, pseudo=None)

    def decode(self, output: SplitOutput, task: Task, settings: DecodingSettings, gates: object) -> Events:
        """Return the events of the windows' last segments, arranged by the split's videos: (N, T, C) bool."""
        lengths = self.annotations.lengths.to(self.device)
        rows = torch.arange(len(lengths), device=self.device)
        last = AudioVisual(*(z[rows, lengths - 1].unsqueeze(1) for z in output.logits))  # (R, 1, C)
        events = task.decode(replace(output, logits=last), settings, gates)
        return events.map(lambda of_segments: pad_rows(of_segments.squeeze(1), self.split.annotations.lengths))
