"""Cosines that LSLD softens its visual labels by."""

from pathlib import Path

import numpy as np
import torch

from baselines.lsld.language_labels import class_cosines
from dataloaders.batches import DataSettings, open_split
from dataloaders.features import feature_path
from tests.tiny_data import WIDTHS


def test_class_cosines_are_those_of_visual_segments_with_the_names(llp_dir: Path):
    settings = DataSettings(llp_dir, audio_features=("clap",), visual_features=("clip",))
    split = open_split("LLP", "val", settings, torch.device("cpu"))
    names = torch.nn.functional.normalize(torch.randn(3, WIDTHS["clip"], generator=torch.Generator().manual_seed(0)))
    found = class_cosines(split, names, 4)
    for n, feature_id in enumerate(split.annotations.feature_ids):
        rows = torch.from_numpy(np.load(feature_path(llp_dir, "clip", feature_id)))
        expected = torch.cosine_similarity(rows.unsqueeze(1), names.unsqueeze(0), dim=-1)
        torch.testing.assert_close(found[n], expected)
