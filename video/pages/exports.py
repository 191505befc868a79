"""Events of a video in formats of other programs: tables, subtitles, label tracks, ELAN."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from utils.files import atomic_write, write_text
from video.pages.tracks import KINDS, ParsedVideo, Span, spans

CSV_COLUMNS = ("event", "kind", "onset", "offset", "probability")


def write_csv(path: Path, parsed: ParsedVideo) -> None:
    """One line a span: event, kind (audible, visible, audio-visual), onset and offset in seconds, mean probability."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for span in spans(parsed):
        writer.writerow((span.event, span.kind, f"{span.onset:g}", f"{span.offset:g}", f"{span.probability:.4f}"))
    write_text(path, table.getvalue())


def write_json(path: Path, parsed: ParsedVideo) -> None:
    """Everything: the spans, and every second's probabilities, by source, (T, C) each in the order of the events."""
    content = {
        "video": parsed.name,
        "duration": parsed.duration,
        "notes": list(parsed.notes),
        "threshold": parsed.threshold,
        "events": list(parsed.events),
        "spans": [vars(span) for span in spans(parsed)],
        "probabilities": {
            track.name: {
                "audible": track.probs.audio.tolist(),
                "visible": track.probs.visual.tolist(),
                "audible_around": None if track.around is None else track.around.audio.tolist(),
                "visible_around": None if track.around is None else track.around.visual.tolist(),
            }
            for track in parsed.tracks
        },
    }
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_webvtt(path: Path, parsed: ParsedVideo) -> None:
    """Subtitles: a cue a stretch of time in which the events stay the same, with what is audible, visible, both."""
    found = spans(parsed)
    edges = sorted({time for span in found for time in (span.onset, span.offset)})
    cues = ["WEBVTT"]
    for onset, offset in pairwise(edges):
        lines = [_cue_line(event, kinds) for event, kinds in _kinds_at(found, onset, parsed.events)]
        if lines:
            cues.append("\n".join([f"{_vtt_time(onset)} --> {_vtt_time(offset)}", *lines]))
    write_text(path, "\n\n".join(cues) + "\n")


def write_audacity(path: Path, parsed: ParsedVideo) -> None:
    """A label track of Audacity: onset, offset and label, separated by tabs."""
    lines = [
        f"{span.onset:.6f}\t{span.offset:.6f}\t{_one_line(span.event)} ({span.kind})" for span in _apart(spans(parsed))
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_eaf(path: Path, parsed: ParsedVideo, video: Path | None = None) -> None:
    """An annotation file of ELAN (EAF 3.0): a tier for each event that is audible, and one for each that is visible.

    Args:
        video: the file that ELAN opens with it, named relative to `path` where it lies beside it.
    """
    found = _apart(spans(parsed))
    times = sorted({_milliseconds(time) for span in found for time in (span.onset, span.offset)})
    document = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = ElementTree.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if video is not None:
        kind = {".mp4": "video/mp4", ".mpg": "video/mpeg", ".mpeg": "video/mpeg"}.get(video.suffix.lower(), "unknown")
        media = {"MEDIA_URL": video.resolve().as_uri(), "MIME_TYPE": kind}
        if video.resolve().parent == path.resolve().parent:
            media["RELATIVE_MEDIA_URL"] = f"./{video.name}"
        ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", media)
    last = ElementTree.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId")
    last.text = str(len(found))
    order = ElementTree.SubElement(document, "TIME_ORDER")
    slot = {time: f"ts{n}" for n, time in enumerate(times, start=1)}
    for time in times:
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot[time], TIME_VALUE=str(time))
    number = 0
    for event in parsed.events:
        for kind in ("audible", "visible"):
            of_tier = [span for span in found if (span.event, span.kind) == (event, kind)]
            if not of_tier:
                continue
            tier = ElementTree.SubElement(
                document, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=f"{_one_line(event)} ({kind})"
            )
            for span in of_tier:
                number += 1
                annotation = ElementTree.SubElement(
                    ElementTree.SubElement(tier, "ANNOTATION"),
                    "ALIGNABLE_ANNOTATION",
                    ANNOTATION_ID=f"a{number}",
                    TIME_SLOT_REF1=slot[_milliseconds(span.onset)],
                    TIME_SLOT_REF2=slot[_milliseconds(span.offset)],
                )
                ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = f"{span.probability:.2f}"
    ElementTree.SubElement(
        document, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true"
    )
    with atomic_write(path) as file:
        ElementTree.indent(document)
        ElementTree.ElementTree(document).write(file, encoding="UTF-8", xml_declaration=True)


WRITERS: dict[str, Callable[[Path, ParsedVideo], None]] = {
    "csv": write_csv,
    "json": write_json,
    "vtt": write_webvtt,
    "txt": write_audacity,
    "eaf": write_eaf,
}


def write_exports(folder: Path, parsed: ParsedVideo, video: Path) -> None:
    """Write `events.csv`, `.json`, `.vtt`, `.txt` (Audacity) and `.eaf` (ELAN, which opens `video` with it)."""
    for suffix, write in WRITERS.items():
        write(folder / f"events.{suffix}", parsed, **({"video": video} if write is write_eaf else {}))


def _apart(found: list[Span]) -> list[Span]:
    """Without the audio-visual spans, which only repeat what the audible and the visible ones say."""
    return [span for span in found if span.kind != "audio-visual"]


def _kinds_at(found: list[Span], time: float, events: tuple[str, ...]) -> list[tuple[str, dict[str, float]]]:
    """What is there at a time, in the order of the events: event, and its probability by kind."""
    present: dict[str, dict[str, float]] = {event: {} for event in events}
    for span in found:
        if span.onset <= time < span.offset:
            present[span.event][span.kind] = span.probability
    return [(event, kinds) for event, kinds in present.items() if kinds]


def _cue_line(event: str, kinds: dict[str, float]) -> str:
    kind = next(kind for kind in reversed(KINDS) if kind in kinds)  # audio-visual says more than the others
    name = _one_line(event).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{name} ({kind} {kinds[kind]:.2f})"


def _vtt_time(seconds: float) -> str:
    minutes, milliseconds = divmod(_milliseconds(seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _one_line(text: str) -> str:
    """A name without tabs and line ends, which would end a field or a line, and other characters that XML forbids."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
