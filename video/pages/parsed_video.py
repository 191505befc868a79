"""A parsed video: the events of one or several sources, as spans and in the formats of other programs."""

import html
import json
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, pairwise, product
from pathlib import Path
from urllib.parse import quote
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
import pandas as pd

from utils.audio_visual import AudioVisual
from utils.files import atomic_write, write_text
from utils.method.spans import maximal_spans
from utils.reporting.tables import csv_cell


@dataclass(frozen=True)
class Track:
    """The events of one source: a model, or the truth or pseudo-labels, whose probabilities are 0 and 1."""

    name: str
    probs: AudioVisual[np.ndarray]  # (T, C) float32, of being audible, visible in the segment; NaN: no score
    around: AudioVisual[np.ndarray] | None = None  # (T, C) float32, the same in the surrounding video; None: not used

    def decoded(self, threshold: float) -> AudioVisual[np.ndarray]:
        """Return audible and visible events, (T, C) bool each: all probabilities exceed the threshold."""
        around = self.around or self.probs
        return self.probs.map(lambda inside, outside: (inside > threshold) & (outside > threshold), around)


@dataclass(frozen=True)
class ParsedVideo:
    """A video's events from one or several sources."""

    name: str
    duration: float  # seconds; the last segment may be cut short
    events: tuple[str, ...]  # (C,) names
    tracks: tuple[Track, ...]  # exports use the first
    threshold: float = 0.5
    notes: tuple[str, ...] = ()  # for the reader: the model, its features
    warning: str = ""  # in every file: random weights, simulated features
    segments_per_second: int = 1


KINDS = ("audible", "visible", "audio-visual")
APART = KINDS[:2]  # audio-visual spans repeat these


@dataclass(frozen=True)
class Span:
    """A stretch of consecutive segments in which an event is audible, visible, or both."""

    event: str
    kind: str  # one of KINDS
    onset: float  # seconds
    offset: float  # seconds
    probability: float  # mean over the segments; of "audio-visual" the smaller of both modalities' in each segment


def spans(video: ParsedVideo, kinds: Sequence[str] = KINDS) -> list[Span]:
    """Return the spans of the first track's events, by onset, then in the order of the events and of the kinds."""
    track = video.tracks[0]
    audible, visible = track.decoded(video.threshold)
    streams = {
        "audible": (audible, track.probs.audio),
        "visible": (visible, track.probs.visual),
        "audio-visual": (audible & visible, np.minimum(*track.probs)),
    }
    found = []
    for c, event in enumerate(video.events):
        for kind in kinds:
            active, probs = streams[kind]
            for first, end in zip(*maximal_spans(active[:, c]), strict=True):
                onset, offset = (float(segment) / video.segments_per_second for segment in (first, end))
                mean = float(probs[first:end, c].mean())
                found.append(Span(event, kind, onset, min(offset, video.duration), mean))
    return sorted(found, key=lambda span: span.onset)


def write_csv(path: Path, parsed: ParsedVideo) -> None:
    """Write a line for each span: event, kind, onset and offset in seconds, mean probability."""
    rows = [(csv_cell(s.event), s.kind, f"{s.onset:g}", f"{s.offset:g}", f"{s.probability:.4f}") for s in spans(parsed)]
    table = pd.DataFrame(rows, columns=["event", "kind", "onset", "offset", "probability"])
    table = table.assign(note=parsed.warning) if parsed.warning else table
    write_text(path, table.to_csv(index=False))


def write_json(path: Path, parsed: ParsedVideo) -> None:
    """Write the spans, and the probabilities of every segment, by source, (T, C) each; null: no score."""
    content = {
        **_without_probabilities(parsed),
        "probabilities": {
            track.name: {
                "audible": _values(track.probs.audio),
                "visible": _values(track.probs.visual),
                "audible_around": track.around and _values(track.around.audio),
                "visible_around": track.around and _values(track.around.visual),
            }
            for track in parsed.tracks
        },
    }
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _without_probabilities(parsed: ParsedVideo) -> dict[str, object]:
    names = ("duration", "notes", "warning", "threshold", "segments_per_second", "events")
    described = {"video": parsed.name, **{name: vars(parsed)[name] for name in names}}
    return described | {"spans": [vars(span) for span in spans(parsed)]}


def _values(probs: np.ndarray) -> list[list[float | None]]:
    return np.where(np.isnan(probs), None, probs).tolist()


def write_webvtt(path: Path, parsed: ParsedVideo) -> None:
    """Write subtitles: a cue for each stretch of time in which the events and their kinds stay the same."""
    found = spans(parsed)
    edges = sorted({time for span in found for time in (span.onset, span.offset)})
    order = {event: n for n, event in enumerate(parsed.events)}
    cues = ["WEBVTT", *([f"NOTE {_one_line(parsed.warning)}"] if parsed.warning else [])]
    coming, present = deque(found), []
    for onset, offset in pairwise(edges):
        while coming and coming[0].onset <= onset:
            present.append(coming.popleft())
        present = [span for span in present if span.offset > onset]
        present.sort(key=lambda span: (order[span.event], KINDS.index(span.kind)))
        lines = [f"{_vtt_time(onset)} --> {_vtt_time(offset)}"]
        for span in {span.event: span for span in present}.values():  # audio-visual, the last, includes the others
            event = html.escape(_one_line(span.event), quote=False)
            lines.append(f"{event} ({span.kind} {span.probability:.2f})")
        if present:
            cues.append("\n".join(lines))
    write_text(path, "\n\n".join(cues) + "\n")


def write_audacity(path: Path, parsed: ParsedVideo) -> None:
    """Write a label track of Audacity: onset, offset and label, separated by tabs; a warning spans the whole video."""
    lines = [f"{0:.6f}\t{parsed.duration:.6f}\t{_one_line(parsed.warning)}"] if parsed.warning else []
    lines += [f"{s.onset:.6f}\t{s.offset:.6f}\t{_one_line(s.event)} ({s.kind})" for s in spans(parsed, APART)]
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_eaf(path: Path, parsed: ParsedVideo, video: Path | None = None) -> None:
    """Write ELAN's annotations (EAF 3.0): a tier for each audible or visible event; ELAN opens `video` with them."""
    found = spans(parsed, APART)
    schema = {
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    document = Element("ANNOTATION_DOCUMENT", AUTHOR="", DATE=now, FORMAT="3.0", VERSION="3.0", **schema)
    header = SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if video is not None:
        kind = {".mp4": "video/mp4", ".mpg": "video/mpeg", ".mpeg": "video/mpeg"}.get(video.suffix.lower(), "unknown")
        media = SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=video.resolve().as_uri(), MIME_TYPE=kind)
        if video.resolve().parent == path.resolve().parent:
            media.set("RELATIVE_MEDIA_URL", f"./{quote(video.name)}")
    if parsed.warning:
        SubElement(header, "PROPERTY", NAME="note").text = _one_line(parsed.warning)
    SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(len(found))
    times = sorted({_milliseconds(time) for span in found for time in (span.onset, span.offset)})
    slot = {time: f"ts{n}" for n, time in enumerate(times, start=1)}
    order = SubElement(document, "TIME_ORDER")
    for time in times:
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot[time], TIME_VALUE=str(time))
    number, num_tiers = count(1), Counter()
    for event, kind in product(parsed.events, APART):
        of_tier = [span for span in found if (span.event, span.kind) == (event, kind)]
        if not of_tier:
            continue
        name = f"{_one_line(event)} ({kind})"
        num_tiers[name] += 1  # several for events that differ in white space alone
        name += f" {num_tiers[name]}" if num_tiers[name] > 1 else ""
        tier = SubElement(document, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=name)
        for span in of_tier:
            first, last = slot[_milliseconds(span.onset)], slot[_milliseconds(span.offset)]
            names = {"ANNOTATION_ID": f"a{next(number)}", "TIME_SLOT_REF1": first, "TIME_SLOT_REF2": last}
            annotation = SubElement(SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", names)
            SubElement(annotation, "ANNOTATION_VALUE").text = f"{span.probability:.2f}"
    kind = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "default-lt", "TIME_ALIGNABLE": "true"}
    SubElement(document, "LINGUISTIC_TYPE", kind)
    with atomic_write(path) as file:
        indent(document)
        ElementTree(document).write(file, encoding="UTF-8", xml_declaration=True)


def write_activitynet(path: Path, parsed: ParsedVideo) -> None:
    """Write predictions in ActivityNet's JSON (label, segment in seconds, score), with the modality in addition."""
    modality = {"audible": "audio", "visible": "visual"}
    results = []
    for span in spans(parsed, APART):
        found = {"label": span.event, "segment": [span.onset, span.offset], "score": round(span.probability, 4)}
        results.append(found | {"modality": modality[span.kind]})
    video, note = Path(parsed.name).stem, {"note": parsed.warning}
    content = {"version": "1.3", "results": {video: results}, "external_data": note}
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


EXPORTS = {
    "events.csv": write_csv,
    "events.json": write_json,
    "events.vtt": write_webvtt,
    "events.txt": write_audacity,
    "events.eaf": write_eaf,
    "activitynet.json": write_activitynet,
}


def write_exports(folder: Path, parsed: ParsedVideo, video: Path) -> dict[str, object]:
    """Write each of `EXPORTS`; ELAN opens `video` with its file.

    Return them for the page: texts, without the path of the video's folder, and the content of events.json without
    probabilities, which the page itself holds.
    """
    for name, write in EXPORTS.items():
        write(folder / name, parsed, *([video] if write is write_eaf else []))
    texts = {name: (folder / name).read_bytes().decode(errors="surrogateescape") for name in EXPORTS}
    texts["events.eaf"] = texts["events.eaf"].replace(f"{video.resolve().parent.as_uri()}/", "")
    return texts | {"events.json": _without_probabilities(parsed)}


def _vtt_time(seconds: float) -> str:
    minutes, milliseconds = divmod(_milliseconds(seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _one_line(text: str) -> str:
    """Return a name without tabs, line ends or other characters that end a field or that XML forbids."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
