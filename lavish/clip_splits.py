"""Data sets of clips, AVE and UCF-101: the video file of each item, and the samples of each split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from dataloaders import ave
from dataloaders.tables import line_error, read_text
from utils.errors import InputError
from utils.files import write_text
from video.video_decoding import open_media

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")
FOLDS = (1, 2, 3)
PIECE_FRAMES, PIECE_RATE = 64, 20.0  # frames of a piece, and frames per second, as in the report
PIECE_SECONDS = PIECE_FRAMES / PIECE_RATE
VALIDATION_GROUPS = 3  # of a training list's 18 groups; clips of one group show the same scene
SURVEY_FILE = "survey.csv"
SURVEY_COLUMNS = {"clip": str, "bytes": int, "changed_ns": int, "seconds": float, "sound": bool}
OFFICIAL = "Correct the line, or get the official lists of UCF-101."


@dataclass(frozen=True)
class ClipSource:
    """One item to pack: a video file or a piece of it."""

    name: str  # unique in the data set
    path: Path
    start: float = 0.0  # seconds
    seconds: float | None = None  # None: to the end

    def part(self, rate: float) -> slice:
        """Return the slice of the file's frames or samples, of which there are `rate` per second."""
        end = None if self.seconds is None else round((self.start + self.seconds) * rate)
        return slice(round(self.start * rate), end)


@dataclass(frozen=True)
class ClipSplit:
    """The samples of one split. N samples, T segments, C classes."""

    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,) unique
    sources: tuple[str, ...]  # (N,) names of the packed items; two samples may share one
    labels: Tensor  # (N,) int64, or (N, T) with a class for each segment
    num_missing: int = 0  # clips left out because their files are absent or damaged

    @property
    def num_clips(self) -> int:
        return len(self.sample_ids)

    def without(self, absent: set[str]) -> "ClipSplit":
        """Return the split without the samples whose items are absent."""
        keep = [n for n, source in enumerate(self.sources) if source not in absent]
        ids, sources = (tuple(names[n] for n in keep) for names in (self.sample_ids, self.sources))
        num_missing = self.num_missing + self.num_clips - len(keep)
        return ClipSplit(self.classes, ids, sources, self.labels[keep], num_missing)

    def joined(self, other: "ClipSplit") -> "ClipSplit":
        """Return the samples of both splits."""
        ids, sources = self.sample_ids + other.sample_ids, self.sources + other.sources
        labels, num_missing = torch.cat([self.labels, other.labels]), self.num_missing + other.num_missing
        return ClipSplit(self.classes, ids, sources, labels, num_missing)


@dataclass(frozen=True)
class ClipData:
    """A data set of clips."""

    sources: tuple[ClipSource, ...]
    splits: dict[str, ClipSplit]  # "train", "val" and "test"


def find_videos(stems: Mapping[str, Path], where: str, allow_missing: bool) -> dict[str, Path]:
    """Return the file of each clip from its path without suffix (`stems`): the first suffix that exists."""
    found = {}
    for name, stem in stems.items():
        paths = (stem.with_name(stem.name + suffix) for suffix in VIDEO_SUFFIXES)
        if path := next(filter(Path.is_file, paths), None):
            found[name] = path
    leave_out(sorted(stems.keys() - found.keys()), len(stems), "listed clips without a file", where, allow_missing)
    return found


def leave_out(names: Sequence[str], total: int, what: str, where: object, allowed: bool) -> None:
    """Report which of `total` clips are left out. Raises InputError unless that is allowed and some clips remain."""
    if not names:
        return
    found = f"{len(names)} of {total} {what}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
    if not allowed or len(names) == total:
        raise InputError(where, found, "none", "Download them again, or leave them out with --allow_missing.")
    tqdm.write(f"{where}: leaving out {found}")


def load_ave_clips(data_dir: Path, annotations_dir: Path, allow_missing: bool = False) -> ClipData:
    """Load AVE with one label per second; videos are `<data_dir>/videos/<video id>.mp4` (or .avi, .mkv, .webm)."""
    sources, splits = {}, {}
    for split in ave.FILES:
        annotations = ave.load_split(annotations_dir, split)
        stems = {video: data_dir / "videos" / video for video in annotations.feature_ids}
        paths = find_videos(stems, f"{data_dir / 'videos'}, split {split}", allow_missing)
        sources |= {video: ClipSource(video, path) for video, path in paths.items()}
        present = annotations.labels.audio.view(-1, ave.NUM_SEGMENTS, len(ave.AVE_CLASSES))  # (N, T, C)
        labels = torch.where(present.any(dim=-1), present.long().argmax(dim=-1), len(ave.AVE_CLASSES))  # (N, T)
        classes = (*annotations.classes, ave.BACKGROUND)
        whole = ClipSplit(classes, annotations.sample_ids, annotations.feature_ids, labels)
        splits[split] = whole.without(stems.keys() - paths.keys())
    return ClipData(tuple(sources.values()), splits)


def load_ucf101(
    data_dir: Path,
    lists_dir: Path,
    fold: int,
    survey_dir: Path,  # folder of the table that records which files have an audio track
    sound_only: bool = True,  # leave out clips without an audio track, and with them half of the classes
    pieces: bool = False,  # cut clips into pieces of 64 frames at 20 fps, as in the report, leaving out shorter clips
    allow_missing: bool = False,  # leave out listed clips whose files are absent or cannot be opened
) -> ClipData:
    """Load one fold of UCF-101, with the last groups of its training list held out for validation.

    A clip is called `<class>/v_<class>_g<group>_c<clip>`, its file `<data_dir>/videos/<name>.avi` (.mp4, .mkv, .webm);
    `lists_dir` holds classInd.txt, trainlist01.txt, testlist01.txt and so on.
    """
    class_names, videos_dir = read_classes(lists_dir), data_dir / "videos"
    lists = {name: read_list(lists_dir / f"{name}list{fold:02d}.txt", class_names) for name in ("train", "test")}
    if both := sorted(set(lists["train"].index) & set(lists["test"].index)):
        found = f"{len(both)} clips that are also in trainlist{fold:02d}.txt: {', '.join(both[:10])}"
        raise InputError(lists_dir / f"testlist{fold:02d}.txt", found, "clips outside the training list", OFFICIAL)
    folders = {path.name for path in videos_dir.glob("[!.]*") if path.is_dir()}
    if unknown := sorted(folders - set(class_names)):
        found = f"{len(unknown)} folders not named after a class: {', '.join(unknown[:10])}"
        raise InputError(videos_dir, found, f"the classes of {lists_dir / 'classInd.txt'}", "Move them elsewhere.")
    stems = {clip: videos_dir / clip for listed in lists.values() for clip in listed.index}
    paths = find_videos(stems, f"{videos_dir}, fold {fold}", allow_missing)
    files = survey(paths, survey_dir, allow_missing)
    for name, listed in lists.items():
        with_sound = listed[listed.index.isin(files.index[files.sound])]
        classes = f"in {with_sound.of_class.nunique()} of {listed.of_class.nunique()} classes"
        tqdm.write(f"UCF-101 fold {fold}, {name}: {len(with_sound)} of {len(listed)} clips have audio, {classes}")

    clips = pd.concat([listed.assign(split=name) for name, listed in lists.items()]).join(files, how="inner")
    if sound_only:
        clips = clips[clips.sound]
    clips = clips.assign(items=[_items(clip, paths[clip], clips.seconds[clip], pieces) for clip in clips.index])
    short = clips["items"].str.len() == 0
    if short.any():
        tqdm.write(f"UCF-101: leaving out {short.sum()} clips shorter than {PIECE_FRAMES} frames")
    clips = clips[~short]
    train = clips[clips.split == "train"]
    if train.empty:
        found = f"no training clip of fold {fold} that has audio and is long enough"
        raise InputError(videos_dir, found, "clips with an audio track", "Use --no-sound_only, or other files.")
    classes = tuple(name for name in class_names if (train.of_class == name).any())
    groups = sorted(train.group.unique())
    held_out = groups[-VALIDATION_GROUPS:] if len(groups) > VALIDATION_GROUPS else groups[1:][-1:]
    clips.loc[(clips.split == "train") & clips.group.isin(held_out), "split"] = "val"

    splits = {}
    for name in ("train", "val", "test"):
        of_split = clips[clips.split == name]
        known = of_split.of_class.isin(classes)
        if unknown := sorted(set(of_split.of_class[~known])):
            tqdm.write(f"UCF-101 {name}: leaving out classes without a training clip: {', '.join(unknown)}")
        samples = of_split[known].explode("items")
        names = tuple(item.name for item in samples["items"])
        labels = torch.tensor([classes.index(of_class) for of_class in samples.of_class], dtype=torch.int64)
        num_missing = len(lists[name].index.difference(files.index)) if name in lists else 0
        splits[name] = ClipSplit(classes, names, names, labels, num_missing)
    return ClipData(tuple(clips.sort_index()["items"].explode()), splits)


def read_classes(lists_dir: Path) -> tuple[str, ...]:
    """Read class names from `classInd.txt`, in the order of their numbers. Raises InputError for invalid lines."""
    path, numbers = lists_dir / "classInd.txt", {}
    for line, text in _lines(path):
        match = re.fullmatch(r"(\d{1,9})\s+(\w+)", text)
        if not match or match[2] in numbers or int(match[1]) in numbers.values():
            raise line_error(path, line, f"line {text!r}", "`<number> <class>` with each number and class once")
        numbers[match[2]] = int(match[1])
    return tuple(sorted(numbers, key=numbers.get))


def read_list(path: Path, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Read a list of lines `<class>/<file>.avi [<class number>]` as a table of `of_class` and `group` by clip."""
    expected = "`<class>/v_<class>_g<group>_c<clip>.avi [<number>]` with classes of classInd.txt and each clip once"
    numbers = {name: str(number) for number, name in enumerate(class_names, start=1)}
    clips: dict[str, tuple[str, int]] = {}
    for line, text in _lines(path):
        match = re.fullmatch(r"((\w+)/v_\w+_g(\d{1,9})_c\d+)\.\w+(?:\s+(\d+))?", text)
        clip, of_class, group, number = match.groups() if match else (None,) * 4
        if of_class not in numbers or clip in clips or number not in (None, numbers[of_class]):
            raise line_error(path, line, f"line {text!r}", expected)
        clips[clip] = of_class, int(group)
    return pd.DataFrame.from_dict(clips, "index", columns=["of_class", "group"]).rename_axis("clip")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the non-blank lines of a list with their line numbers."""
    lines = [(n, line.strip()) for n, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    if not lines:
        raise InputError(path, "no lines", "an official list of UCF-101", OFFICIAL)
    return lines


def survey(paths: dict[str, Path], survey_dir: Path, allow_missing: bool = False) -> pd.DataFrame:
    """Return `seconds` (float) and `sound` (bool) of each clip, from a table in which each file is recorded once."""
    table = survey_dir / SURVEY_FILE
    known = _read_survey(table)
    stamps = {clip: (path.stat().st_size, path.stat().st_mtime_ns) for clip, path in paths.items()}
    missing = [clip for clip in paths if known.get(clip, ())[:2] != stamps[clip]]
    broken: dict[str, str] = {}
    looked = thread_map(_look, [paths[clip] for clip in missing], desc="survey", unit="clip")
    for clip, found in zip(missing, looked, strict=True):
        if isinstance(found, str):
            broken[clip] = f"{paths[clip]} ({found})"
        else:
            known[clip] = (*stamps[clip], *found)
    rows = [(clip, *known[clip]) for clip in sorted(known)]
    files = pd.DataFrame(rows, columns=[*SURVEY_COLUMNS]).astype(SURVEY_COLUMNS).set_index("clip")
    if missing:
        write_text(table, files.assign(sound=np.where(files.sound, "yes", "no")).to_csv())
    leave_out([*broken.values()], len(paths), "files that cannot be opened", survey_dir, allow_missing)
    return files.loc[[clip for clip in paths if clip not in broken]]


def _read_survey(path: Path) -> dict[str, tuple[int, int, float, bool]]:
    """Return the rows of an earlier survey by clip; empty if the table is absent or damaged."""
    if not path.exists():
        return {}
    try:
        form = {"true_values": ["yes"], "false_values": ["no"], "float_precision": "round_trip"}
        known = pd.read_csv(path, usecols=list(SURVEY_COLUMNS), dtype=SURVEY_COLUMNS, **form)
        if not np.isfinite(known.seconds).all():
            raise ValueError("a length is not a number")
    except (OSError, ValueError) as error:
        tqdm.write(f"{path}: damaged ({error}); opening every file again")
        return {}
    return {row.clip: (row.bytes, row.changed_ns, row.seconds, row.sound) for row in known.itertuples()}


def _look(path: Path) -> tuple[float, bool] | str:
    """Return a file's duration in seconds and whether it has audio, or the reason why it cannot be used."""
    try:
        with open_media(path) as container:
            if not container.streams.video:
                return "no video track"
            video, audio = container.streams.video[0], container.streams.audio
            if video.duration:
                seconds = float(video.duration * video.time_base)
            else:
                seconds = (container.duration or 0) / av.time_base
            return seconds, bool(audio) and any(packet.size for packet in container.demux(audio[0]))
    except (av.FFmpegError, ValueError) as error:
        return str(error)


def _items(clip: str, path: Path, seconds: float, pieces: bool) -> list[ClipSource]:
    if not pieces:
        return [ClipSource(clip, path)]
    count = int((seconds + 0.5 / PIECE_RATE) / PIECE_SECONDS)  # half a frame of tolerance for rounded durations
    return [ClipSource(f"{clip}_{i}", path, i * PIECE_SECONDS, PIECE_SECONDS) for i in range(count)]
