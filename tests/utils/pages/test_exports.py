"""Exports, read back as the other programs read them."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.utils.pages.tiny_parse import HOSTILE, tiny_parse
from utils.audio_visual import AudioVisual
from utils.pages.exports import WRITERS, _vtt_time, write_audacity, write_csv, write_eaf, write_json, write_webvtt
from utils.pages.tracks import ParsedVideo, Track, spans


def test_csv_holds_every_span(tmp_path: Path):
    write_csv(tmp_path / "events.csv", tiny_parse())
    with open(tmp_path / "events.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["event"], r["kind"], float(r["onset"]), float(r["offset"])) for r in rows] == [
        (s.event, s.kind, s.onset, s.offset) for s in spans(tiny_parse())
    ]
    assert [float(r["probability"]) for r in rows] == pytest.approx(
        [s.probability for s in spans(tiny_parse())], abs=1e-4
    )


def test_json_holds_the_spans_and_the_probabilities_they_come_from(tmp_path: Path):
    parsed = tiny_parse()
    write_json(tmp_path / "events.json", parsed)
    content = json.loads((tmp_path / "events.json").read_text(encoding="utf-8"))
    assert content["events"] == list(parsed.events) and content["events"][2] == HOSTILE
    probabilities = content["probabilities"]["HAN"]
    arrays = [np.array(probabilities[kind], np.float32) for kind in probabilities]
    again = Track("HAN", AudioVisual(*arrays[:2]), AudioVisual(*arrays[2:]))
    assert np.array_equal(again.probs.audio, parsed.tracks[0].probs.audio)
    read = ParsedVideo(content["video"], content["duration"], parsed.events, (again,), content["threshold"])
    assert [vars(span) for span in spans(read)] == content["spans"]


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_webvtt_says_at_every_moment_what_is_there(tmp_path: Path):
    write_webvtt(tmp_path / "events.vtt", tiny_parse(("Dog", "Acoustic_guitar", "a <b> & c")))
    blocks = (tmp_path / "events.vtt").read_text(encoding="utf-8").strip().split("\n\n")
    assert blocks[0] == "WEBVTT"
    cues = {}
    for block in blocks[1:]:
        time, *lines = block.split("\n")
        onset, offset = time.split(" --> ")
        cues[seconds(onset), seconds(offset)] = lines
    assert cues == {
        (0, 1): ["Dog (audible 0.80)", "Acoustic_guitar (audible 0.95)"],
        (1, 2): ["Dog (audio-visual 0.70)", "Acoustic_guitar (audible 0.95)"],
        (2, 3): ["Dog (visible 0.80)", "Acoustic_guitar (audible 0.95)"],
        (4, 5): ["Dog (audible 0.70)"],
        (5, 5.5): ["Dog (audible 0.70)", "a &lt;b&gt; &amp; c (visible 0.75)"],
    }


def test_webvtt_counts_hours():
    assert _vtt_time(3661.5) == "01:01:01.500" and _vtt_time(59.9996) == "00:01:00.000"


def test_audacity_labels_are_one_line_a_span_with_three_fields(tmp_path: Path):
    write_audacity(tmp_path / "events.txt", tiny_parse())
    lines = (tmp_path / "events.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split("\t") for line in lines]
    assert all(len(f) == 3 for f in fields)
    assert [(float(onset), float(offset)) for onset, offset, _ in fields] == [
        (0, 2),
        (0, 3),
        (1, 3),
        (4, 5.5),
        (5, 5.5),
    ]
    assert fields[2][2] == "Dog (visible)"


def eaf_annotations(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """Tiers of an EAF file by the rules of its schema: tier -> (first millisecond, last millisecond, value)."""
    document = ElementTree.parse(path).getroot()
    times = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in document.iter("TIME_SLOT")}
    types = {kind.get("LINGUISTIC_TYPE_ID") for kind in document.iter("LINGUISTIC_TYPE")}
    tiers = {}
    for tier in document.iter("TIER"):
        assert tier.get("LINGUISTIC_TYPE_REF") in types
        tiers[tier.get("TIER_ID")] = [
            (times[a.get("TIME_SLOT_REF1")], times[a.get("TIME_SLOT_REF2")], a.findtext("ANNOTATION_VALUE"))
            for a in tier.iter("ALIGNABLE_ANNOTATION")
        ]
    return tiers


def test_elan_has_a_tier_for_each_event_and_modality(tmp_path: Path):
    write_eaf(tmp_path / "events.eaf", tiny_parse(), tmp_path / "clip.mp4")
    tiers = eaf_annotations(tmp_path / "events.eaf")
    assert tiers["Dog (audible)"] == [(0, 2000, "0.80"), (4000, 5500, "0.70")]
    assert tiers["Dog (visible)"] == [(1000, 3000, "0.80")]
    assert len(tiers) == 4
    document = ElementTree.parse(tmp_path / "events.eaf").getroot()
    order = [child.tag for child in document]
    assert order == ["HEADER", "TIME_ORDER", *["TIER"] * 4, "LINGUISTIC_TYPE"]  # as the schema wants it
    media = document.find("HEADER/MEDIA_DESCRIPTOR")
    assert media.get("RELATIVE_MEDIA_URL") == "./clip.mp4" and media.get("MEDIA_URL").startswith("file://")
    identifiers = [a.get("ANNOTATION_ID") for a in document.iter("ALIGNABLE_ANNOTATION")]
    assert len(set(identifiers)) == len(identifiers) == 5


def test_elan_files_open_in_pympi(tmp_path: Path):
    elan = pytest.importorskip("pympi.Elan", reason="pympi-ling is not installed")
    write_eaf(tmp_path / "events.eaf", tiny_parse())
    read = elan.Eaf(str(tmp_path / "events.eaf"))
    assert sorted(read.get_tier_names()) == sorted(eaf_annotations(tmp_path / "events.eaf"))
    assert [a[:2] for a in read.get_annotation_data_for_tier("Dog (audible)")] == [(0, 2000), (4000, 5500)]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_video_without_events_gives_whole_files(tmp_path: Path, suffix: str):
    empty = ParsedVideo("silence", 3.0, ("Dog",), (Track("HAN", AudioVisual(np.zeros((3, 1)), np.zeros((3, 1)))),))
    path = tmp_path / f"events.{suffix}"
    WRITERS[suffix](path, empty)
    text = path.read_text(encoding="utf-8")
    empty_files = {"csv": "event,kind,onset,offset,probability\n", "vtt": "WEBVTT\n", "txt": ""}
    if suffix in empty_files:
        assert text == empty_files[suffix]
    elif suffix == "json":
        assert json.loads(text)["spans"] == []
    else:
        assert eaf_annotations(path) == {}
