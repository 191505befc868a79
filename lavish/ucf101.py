"""UCF-101: official lists of three folds, and the clips that carry sound.

<data_dir>/videos/<class>/v_<class>_g<group>_c<clip>.avi     (or .mp4, .mkv, .webm)
<lists_dir>/classInd.txt, trainlist01.txt, testlist01.txt, ...
"""

import csv
import io
import math
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from tqdm import tqdm

from dataloaders.annotation_files import read_text
from lavish.clip_splits import ClipData, ClipSource, ClipSplit, find_video, report_absent
from utils.errors import InputError
from utils.files import write_text

FOLDS = (1, 2, 3)
PIECE_FRAMES = 64  # of the report's items
PIECE_RATE = 20.0  # frames a second that they are counted at
VALIDATION_GROUPS = 3  # of a training list's 18: whole groups, whose clips are of one scene
SURVEY_FILE = "survey.csv"


@dataclass(frozen=True)
class ListedClip:
    """A line of a list."""

    class_name: str
    stem: str

    @property
    def name(self) -> str:
        return f"{self.class_name}/{self.stem}"

    @property
    def group(self) -> int:
        return int(re.search(r"_g(\d+)_c\d+$", self.stem)[1])


@dataclass(frozen=True)
class Facts:
    """What the survey of a file found."""

    seconds: float
    has_sound: bool


def load_ucf101(
    data_dir: Path,
    lists_dir: Path,
    fold: int,
    survey_dir: Path,
    sound_only: bool = True,
    pieces: bool = False,
    allow_missing: bool = False,
) -> ClipData:
    """One fold, with the last groups of its training list held out for validation.

    Args:
        sound_only: leave out the clips without an audio track, and classes that have no other (half of them).
        pieces: cut every clip into items of 64 frames at 20 a second, one every 64 frames, as the report does; clips
            shorter than that yield none.
        survey_dir: takes the table of which files carry sound.
        allow_missing: leave out listed clips without a file that can be opened, and say how many, instead of raising.

    Raises:
        InputError: for absent or malformed lists, a clip in both, listed clips without a file, folders that are no
            class, files that cannot be opened, and a fold whose training clips are all silent.
    """
    class_names = read_classes(lists_dir)
    videos_dir = data_dir / "videos"
    check_folders(videos_dir, class_names, lists_dir)
    lists = {name: read_list(lists_dir, f"{name}list{fold:02d}.txt", class_names) for name in ("train", "test")}
    if both := sorted(clip.name for clip in set(lists["train"]) & set(lists["test"])):
        found = f"{len(both)} clips that are in trainlist{fold:02d}.txt, too: {', '.join(both[:10])}"
        way_out = "Get the official lists of UCF-101."
        raise InputError(lists_dir / f"testlist{fold:02d}.txt", found, "clips that are not trained on", way_out)
    listed = [*lists["train"], *lists["test"]]
    paths = {clip.name: find_video(videos_dir / clip.class_name, clip.stem) for clip in listed}
    absent = sorted(name for name, path in paths.items() if path is None)
    if absent:
        report_absent(videos_dir, f"fold {fold}", absent, len(paths), allow_missing)
    facts = survey({name: path for name, path in paths.items() if path is not None}, survey_dir, allow_missing)
    report_sound(lists, facts, fold)

    kept = {name for name, fact in facts.items() if fact.has_sound or not sound_only}
    sources = {name: _items(name, paths[name], facts[name].seconds, pieces) for name in sorted(kept)}
    if pieces and (short := [name for name, items in sources.items() if not items]):
        tqdm.write(f"UCF-101: leaving out {len(short)} clips shorter than {PIECE_FRAMES} frames")
    clips = {name: [clip for clip in clips if sources.get(clip.name)] for name, clips in lists.items()}
    classes = tuple(name for name in class_names if any(clip.class_name == name for clip in clips["train"]))
    if not classes:
        found = f"no training clip of fold {fold} that carries sound and is long enough"
        raise InputError(videos_dir, found, "clips with an audio track", "Use --no-sound_only, or other files.")
    held_out = _validation_groups(clips["train"])
    clips["val"] = [clip for clip in clips["train"] if clip.group in held_out]
    clips["train"] = [clip for clip in clips["train"] if clip.group not in held_out]
    splits = {name: _split(name, clips[name], sources, classes) for name in ("train", "val", "test")}
    return ClipData(tuple(item for items in sources.values() for item in items), splits)


def read_classes(lists_dir: Path) -> tuple[str, ...]:
    """The names in `classInd.txt`, in the order of their numbers. Raises InputError for a wrong or repeated one."""
    path = lists_dir / "classInd.txt"
    numbers: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            match = re.fullmatch(r"(\d+)\s+(\w+)", line.strip())
            if match is None:
                raise InputError(f"{path}, line {number}", line, "`<number> <class>`", "Correct the line.")
            if match[2] in numbers or int(match[1]) in numbers.values():
                way_out = "Get the official lists of UCF-101."
                raise InputError(f"{path}, line {number}", f"{line} again", "each number and class once", way_out)
            numbers[match[2]] = int(match[1])
    if not numbers:
        raise InputError(path, "no classes", "`<number> <class>` lines", "Get the official lists of UCF-101.")
    return tuple(sorted(numbers, key=numbers.get))


def read_list(lists_dir: Path, name: str, class_names: tuple[str, ...]) -> list[ListedClip]:
    """The clips of a list, `<class>/<file>.avi [<number of the class>]` a line.

    Raises:
        InputError: for a malformed or repeated line, an unknown class, and a number that is another class's.
    """
    path = lists_dir / name
    clips: dict[ListedClip, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        match = re.fullmatch(r"(\w+)/(v_\w+_g\d+_c\d+)\.\w+(?:\s+(\d+))?", line.strip())
        if match is None:
            expected = "`<class>/v_<class>_g<group>_c<clip>.avi`, in training lists with the class's number"
            raise InputError(where, line, expected, "Correct the line.")
        if match[1] not in class_names:
            raise InputError(where, f"unknown class {match[1]}", "a class of classInd.txt", "Correct either file.")
        if match[3] and class_names.index(match[1]) != int(match[3]) - 1:
            expected = f"{class_names.index(match[1]) + 1}, the number of {match[1]} in classInd.txt"
            raise InputError(where, f"class number {match[3]}", expected, "Correct either file.")
        clip = ListedClip(match[1], match[2])
        if clip in clips:
            raise InputError(where, f"the clip of line {clips[clip]} again", "each clip once", "Remove one line.")
        clips[clip] = number
    if not clips:
        raise InputError(path, "no clips", "a list of clips", "Get the official lists of UCF-101.")
    return list(clips)


def check_folders(videos_dir: Path, class_names: tuple[str, ...], lists_dir: Path) -> None:
    """Raise InputError when there is no folder of videos, or one in it that is no class."""
    if not videos_dir.is_dir():
        raise InputError(videos_dir, "no such folder", "one folder of videos a class", "Unpack UCF-101 there.")
    folders = {entry.name for entry in videos_dir.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if unknown := sorted(folders - set(class_names)):
        found = f"{len(unknown)} folders that are no class: {', '.join(unknown[:10])}"
        raise InputError(videos_dir, found, f"the classes of {lists_dir / 'classInd.txt'}", "Move them elsewhere.")


def survey(paths: dict[str, Path], survey_dir: Path, allow_missing: bool = False) -> dict[str, Facts]:
    """Open every file: how long it is and whether it carries sound. Kept as a table, so that it is done once.

    Args:
        allow_missing: leave out files that cannot be opened, and say which, instead of raising.

    Raises:
        InputError: when files cannot be opened.
    """
    table = survey_dir / SURVEY_FILE
    known = _read_survey(table)
    stamps = {name: (path.stat().st_size, path.stat().st_mtime_ns) for name, path in paths.items()}
    missing = [name for name in paths if known.get(name, (None,))[0] != stamps[name]]
    broken: dict[str, str] = {}
    if missing:
        with ThreadPoolExecutor() as pool:
            looked = pool.map(_look_or_error, [paths[name] for name in missing])
            for name, facts in zip(missing, tqdm(looked, "survey", len(missing), unit="clip"), strict=True):
                if isinstance(facts, str):
                    broken[name] = f"{paths[name]} ({facts})"
                else:
                    known[name] = stamps[name], facts
        _write_survey(table, known)
    if broken:
        found = f"{len(broken)} of {len(paths)} files that cannot be opened: {'; '.join([*broken.values()][:5])}"
        if not allow_missing or len(broken) == len(paths):
            way_out = "Download them again, or go on without them with --allow_missing."
            raise InputError(table.parent, found, "whole video files", way_out)
        tqdm.write(f"UCF-101: leaving out {found}")
    return {name: known[name][1] for name in paths if name not in broken}


def _look_or_error(path: Path) -> Facts | str:
    try:
        with av.open(path) as container:
            if not container.streams.video:
                return "no video track"
            video, audio = container.streams.video[0], container.streams.audio
            if video.duration:
                seconds = float(video.duration * video.time_base)
            else:
                seconds = (container.duration or 0) / av.time_base
            has_sound = bool(audio) and any(packet.size for packet in container.demux(audio[0]))
            return Facts(seconds, has_sound)
    except (av.FFmpegError, ValueError) as error:
        return str(error)


_SURVEY_COLUMNS = ("clip", "bytes", "changed_ns", "seconds", "sound")
_Known = dict[str, tuple[tuple[int, int], Facts]]


def _read_survey(path: Path) -> _Known:
    """What an earlier survey found; nothing where its table is absent or damaged."""
    known: _Known = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                seconds, has_sound = float(row["seconds"]), {"yes": True, "no": False}[row["sound"]]
                if not math.isfinite(seconds):
                    raise ValueError(f"{seconds} seconds")
                known[row["clip"]] = (int(row["bytes"]), int(row["changed_ns"])), Facts(seconds, has_sound)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        tqdm.write(f"{path}: damaged ({error}); every file is opened anew")
        return {}
    return known


def _write_survey(path: Path, known: _Known) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_SURVEY_COLUMNS)
    for name, (stamp, facts) in sorted(known.items()):
        writer.writerow([name, *stamp, facts.seconds, "yes" if facts.has_sound else "no"])
    write_text(path, text.getvalue())


def report_sound(lists: dict[str, list[ListedClip]], facts: dict[str, Facts], fold: int) -> None:
    """Say how many clips and classes of a fold's two lists carry sound."""
    for name, listed in lists.items():
        with_sound = Counter(clip.class_name for clip in listed if clip.name in facts and facts[clip.name].has_sound)
        classes = {clip.class_name for clip in listed}
        tqdm.write(
            f"UCF-101 fold {fold}, {name}: {with_sound.total()} of {len(listed)} clips carry sound, "
            f"{len(with_sound)} of {len(classes)} classes have such clips"
        )


def _items(name: str, path: Path, seconds: float, pieces: bool) -> list[ClipSource]:
    if not pieces:
        return [ClipSource(name, path)]
    length = PIECE_FRAMES / PIECE_RATE
    count = int((seconds + 0.5 / PIECE_RATE) / length)  # half a frame for the rounding of containers
    return [ClipSource(f"{name}_{i}", path, i * length, length) for i in range(count)]


def _validation_groups(train: list[ListedClip]) -> set[int]:
    """The last groups of a training list; none of a list too small to spare them."""
    groups = sorted({clip.group for clip in train})
    return set(groups[-VALIDATION_GROUPS:]) if len(groups) > VALIDATION_GROUPS else set(groups[1:][-1:])


def _split(
    name: str, clips: list[ListedClip], sources: dict[str, list[ClipSource]], classes: tuple[str, ...]
) -> ClipSplit:
    items, labels = [], []
    unknown = sorted({clip.class_name for clip in clips} - set(classes))
    if unknown:
        tqdm.write(f"UCF-101 {name}: leaving out classes that no training clip has: {', '.join(unknown)}")
    for clip in clips:
        if clip.class_name in classes:
            of_clip = [item.name for item in sources[clip.name]]
            items += of_clip
            labels += [classes.index(clip.class_name)] * len(of_clip)
    return ClipSplit("UCF101", name, classes, tuple(items), tuple(items), torch.tensor(labels, dtype=torch.int64))
