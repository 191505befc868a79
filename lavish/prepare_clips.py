"""Decode and pack a data set of clips. Training does the same if there is no pack yet.

--config also accepts the args.yaml of a training run, and then packs the clips of that run.
"""

from utils.entry_point import run_entry_point

from lavish.clip_settings import ClipSettings, clip_recipe, open_clips
from utils.settings import parse_settings


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(clip_recipe(ClipSettings(), argv), __doc__, argv, others=True)
    data, pack = open_clips(settings)
    for name, split in data.splits.items():
        print(f"{settings.dataset} {name}: {split.num_clips} samples, {len(split.classes)} classes")
    num_bytes = pack.frames.nbytes + pack.sound.nbytes
    print(f"{len(pack.row_of)} items packed, {num_bytes / 1e9:.2f} GB")


if __name__ == "__main__":
    run_entry_point(main)
