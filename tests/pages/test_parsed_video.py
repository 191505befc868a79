"""Sources of events, their spans, and exports, read back as the other programs read them."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.pages.tiny_parse import HOSTILE, tiny_parse
from utils.audio_visual import AudioVisual
from video.pages.parsed_video import (
    ParsedVideo,
    Track,
    _vtt_time,
    spans,
    write_activitynet,
    write_audacity,
    write_csv,
    write_eaf,
    write_exports,
    write_json,
    write_webvtt,
)

ONE_LINE = '</script><img src=x onerror="window.injected=1">&amp; line'  # of HOSTILE


def test_csv_holds_every_span(tmp_path: Path):
    write_csv(tmp_path / "events.csv", tiny_parse(("Dog", "Acoustic_guitar", "Rain, heavy")))
    assert (tmp_path / "events.csv").read_text(encoding="utf-8").splitlines() == [
        "event,kind,onset,offset,probability",
        "Dog,audible,0,2,0.8000",
        "Acoustic_guitar,audible,0,3,0.9500",
        "Dog,visible,1,3,0.8000",
        "Dog,audio-visual,1,2,0.7000",
        "Dog,audible,4,5.5,0.7000",
        '"Rain, heavy",visible,5,5.5,0.7500',
    ]


def test_json_holds_the_spans_and_the_probabilities_they_come_from(tmp_path: Path):
    write_json(tmp_path / "events.json", tiny_parse())
    content = json.loads((tmp_path / "events.json").read_text(encoding="utf-8"))
    assert {name: content[name] for name in ("video", "duration", "notes", "threshold", "events")} == {
        "video": "clip",
        "duration": 5.5,
        "notes": ["a note"],
        "threshold": 0.5,
        "events": ["Dog", "Acoustic_guitar", HOSTILE],
    }
    assert len(content["spans"]) == 6
    assert content["spans"][2] == {
        "event": "Dog",
        "kind": "visible",
        "onset": 1,
        "offset": 3,
        "probability": pytest.approx(0.8),
    }
    assert {name: rows[5] for name, rows in content["probabilities"]["HAN"].items()} == {
        "audible": pytest.approx([0.8, 0.95, 0.1]),
        "visible": pytest.approx([0.2, 0.2, 0.75]),
        "audible_around": pytest.approx([1, 0.3, 0.4]),
        "visible_around": pytest.approx([0.9, 0.9, 0.9]),
    }


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
    assert (tmp_path / "events.txt").read_text(encoding="utf-8").splitlines() == [
        "0.000000\t2.000000\tDog (audible)",
        "0.000000\t3.000000\tAcoustic_guitar (audible)",
        "1.000000\t3.000000\tDog (visible)",
        "4.000000\t5.500000\tDog (audible)",
        f"5.000000\t5.500000\t{ONE_LINE} (visible)",
    ]


def eaf_annotations(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """Tiers of an EAF file by the rules of its schema: tier -> (first millisecond, last millisecond, value)."""
    document = ElementTree.parse(path).getroot()
    slots = [(slot.get("TIME_SLOT_ID"), int(slot.get("TIME_VALUE"))) for slot in document.iter("TIME_SLOT")]
    times = dict(slots)
    assert len(times) == len(slots)
    types = {kind.get("LINGUISTIC_TYPE_ID") for kind in document.iter("LINGUISTIC_TYPE")}
    tiers = {}
    for tier in document.iter("TIER"):
        assert tier.get("LINGUISTIC_TYPE_REF") in types
        tiers[tier.get("TIER_ID")] = [
            (times[a.get("TIME_SLOT_REF1")], times[a.get("TIME_SLOT_REF2")], a.findtext("ANNOTATION_VALUE"))
            for a in tier.iter("ALIGNABLE_ANNOTATION")
        ]
    return tiers


TIERS = {
    "Dog (audible)": [(0, 2000, "0.80"), (4000, 5500, "0.70")],
    "Dog (visible)": [(1000, 3000, "0.80")],
    "Acoustic_guitar (audible)": [(0, 3000, "0.95")],
    f"{ONE_LINE} (visible)": [(5000, 5500, "0.75")],
}


def test_elan_has_a_tier_for_each_event_and_modality(tmp_path: Path):
    write_eaf(tmp_path / "events.eaf", tiny_parse())
    assert eaf_annotations(tmp_path / "events.eaf") == TIERS
    document = ElementTree.parse(tmp_path / "events.eaf").getroot()
    order = [child.tag for child in document]
    assert order == ["HEADER", "TIME_ORDER", *["TIER"] * 4, "LINGUISTIC_TYPE"]  # as the schema wants it


def test_elan_numbers_time_slots_and_annotations_from_1(tmp_path: Path):
    write_eaf(tmp_path / "events.eaf", tiny_parse())
    document = ElementTree.parse(tmp_path / "events.eaf").getroot()
    slots = [(slot.get("TIME_SLOT_ID"), slot.get("TIME_VALUE")) for slot in document.iter("TIME_SLOT")]
    times = ("0", "1000", "2000", "3000", "4000", "5000", "5500")
    assert slots == list(zip(("ts1", "ts2", "ts3", "ts4", "ts5", "ts6", "ts7"), times, strict=True))
    numbers = [annotation.get("ANNOTATION_ID") for annotation in document.iter("ALIGNABLE_ANNOTATION")]
    assert numbers == ["a1", "a2", "a3", "a4", "a5"]
    assert document.find("HEADER").attrib == {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}
    last = document.find("HEADER/PROPERTY[@NAME='lastUsedAnnotationId']")
    assert last.text == "5"  # ELAN counts on from here


def test_elan_opens_the_video_beside_the_annotations_or_elsewhere(tmp_path: Path):
    for video, relative, kind in (
        (tmp_path / "clip.mp4", "./clip.mp4", "video/mp4"),
        (tmp_path / "other" / "clip.MPG", None, "video/mpeg"),
        (tmp_path / "other" / "clip.mkv", None, "unknown"),
    ):
        write_eaf(tmp_path / "events.eaf", tiny_parse(), video)
        media = ElementTree.parse(tmp_path / "events.eaf").getroot().find("HEADER/MEDIA_DESCRIPTOR")
        assert media.get("MEDIA_URL") == f"file://{video}"
        assert (media.get("RELATIVE_MEDIA_URL"), media.get("MIME_TYPE")) == (relative, kind)


def test_elan_files_open_in_pympi(tmp_path: Path):
    elan = pytest.importorskip("pympi.Elan", reason="pympi-ling is not installed")
    write_eaf(tmp_path / "events.eaf", tiny_parse())
    read = elan.Eaf(str(tmp_path / "events.eaf"))
    assert {name: read.get_annotation_data_for_tier(name) for name in read.get_tier_names()} == TIERS


def test_all_files_are_written_and_elan_is_given_the_video(tmp_path: Path):
    write_exports(tmp_path, tiny_parse(), tmp_path / "clip.mp4")
    names = ("activitynet.json", "events.csv", "events.eaf", "events.json", "events.txt", "events.vtt")
    assert sorted(path.name for path in tmp_path.iterdir()) == list(names)
    assert 'RELATIVE_MEDIA_URL="./clip.mp4"' in (tmp_path / "events.eaf").read_text(encoding="utf-8")


def test_a_video_without_events_gives_whole_files(tmp_path: Path):
    empty = ParsedVideo("silence", 3.0, ("Dog",), (Track("HAN", AudioVisual(np.zeros((3, 1)), np.zeros((3, 1)))),))
    write_exports(tmp_path, empty, tmp_path / "clip.mp4")
    assert (tmp_path / "events.csv").read_text() == "event,kind,onset,offset,probability\n"
    assert (tmp_path / "events.vtt").read_text() == "WEBVTT\n"
    assert (tmp_path / "events.txt").read_text() == ""
    assert json.loads((tmp_path / "events.json").read_text())["spans"] == []
    assert eaf_annotations(tmp_path / "events.eaf") == {}


def test_an_event_needs_the_segment_and_the_video_around_it():
    audible, visible = tiny_parse().tracks[0].decoded(0.5)
    assert audible[:, 1].tolist() == [True, True, True, False, False, False]
    assert visible[:, 0].tolist() == [False, True, True, False, False, False]


def test_a_probability_at_the_threshold_is_no_event():
    track = Track("model", AudioVisual(np.full((1, 1), 0.5, np.float32), np.full((1, 1), 0.5001, np.float32)))
    audible, visible = track.decoded(0.5)
    assert not audible.any() and visible.all()


def test_spans_say_when_and_how_probable_and_end_with_the_video():
    found = [(s.event, s.kind, s.onset, s.offset, round(s.probability, 3)) for s in spans(tiny_parse(("a", "b", "c")))]
    assert found == [
        ("a", "audible", 0, 2, 0.8),
        ("b", "audible", 0, 3, 0.95),
        ("a", "visible", 1, 3, 0.8),
        ("a", "audio-visual", 1, 2, 0.7),
        ("a", "audible", 4, 5.5, 0.7),
        ("c", "visible", 5, 5.5, 0.75),
    ]


def test_no_event_is_a_formula_to_a_spreadsheet(tmp_path: Path):
    names = ("=HYPERLINK(1)", "+1", "@sum")
    write_exports(tmp_path, replace(tiny_parse(names), threshold=0.01), tmp_path / "clip.mp4")
    with open(tmp_path / "events.csv", newline="", encoding="utf-8") as file:
        found = {row["event"] for row in csv.DictReader(file)}
    assert found == {f"'{name}" for name in names}


def test_events_that_differ_in_white_space_have_tiers_of_their_own(tmp_path: Path):
    write_eaf(tmp_path / "events.eaf", replace(tiny_parse(("a b", "a  b", "a\tb")), threshold=0.01))
    tiers = [tier.get("TIER_ID") for tier in ElementTree.parse(tmp_path / "events.eaf").getroot().iter("TIER")]
    assert len(set(tiers)) == len(tiers) == 6 and {"a b (audible)", "a b (audible) 2"} <= set(tiers)


def test_a_video_whose_name_holds_control_characters_gives_well_formed_xml(tmp_path: Path):
    video = tmp_path / "a\x01<b>.mp4"
    video.touch()
    write_eaf(tmp_path / "events.eaf", tiny_parse(), video)
    media = ElementTree.parse(tmp_path / "events.eaf").getroot().find("HEADER/MEDIA_DESCRIPTOR")
    assert media.get("RELATIVE_MEDIA_URL") == "./a%01%3Cb%3E.mp4"


def test_a_warning_is_in_every_export(tmp_path: Path):
    write_exports(tmp_path, replace(tiny_parse(), warning="Simulated features."), tmp_path / "clip.mp4")
    for path in tmp_path.iterdir():
        assert "Simulated features." in path.read_text(encoding="utf-8"), path
    assert (tmp_path / "events.txt").read_text().startswith("0.000000\t5.500000\tSimulated features.\n")


def test_activitynets_form_has_each_modality_by_itself_with_scores(tmp_path: Path):
    write_activitynet(tmp_path / "activitynet.json", tiny_parse())
    ((video, found),) = json.loads((tmp_path / "activitynet.json").read_text())["results"].items()
    expected = [span for span in spans(tiny_parse()) if span.kind != "audio-visual"]
    assert video == Path(tiny_parse().name).stem and len(found) == len(expected) > 0
    for one, span in zip(found, expected, strict=True):
        assert (one["label"], one["segment"]) == (span.event, [span.onset, span.offset])
        assert one["modality"] == {"audible": "audio", "visible": "visual"}[span.kind]
        assert one["score"] == pytest.approx(span.probability, abs=1e-4)
