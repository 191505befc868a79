"""The page of one video, in a real Chromium."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.pages.conftest import SAMPLE, Browser
from tests.pages.tiny_parse import HOSTILE, tiny_parse
from tests.tiny_parsers import han_run
from utils.audio_visual import AudioVisual
from video.pages.parsed_video import EXPORTS, ParsedVideo, Track, spans, write_exports
from video.pages.video_page import Media, peaks_of, strip_of, video_source, write_video_page

FRAMES = [np.full((60, 80, 3), 40 * n, np.uint8) for n in range(6)]


def random_parse(duration: float, num_events: int = 8, seed: int = 0, name: str = "clip") -> ParsedVideo:
    rng = np.random.default_rng(seed)
    shape = (int(np.ceil(duration)), num_events)
    probs, around = (AudioVisual(*rng.random((2, *shape), dtype=np.float32)) for _ in range(2))
    track = Track("HAN", probs, around)
    return ParsedVideo(name, duration, tuple(f"event {c}" for c in range(num_events)), (track,))


@pytest.fixture
def page(tmp_path: Path, clip: Path) -> Path:
    """The page of the tiny parse with its video beside it."""
    path = tmp_path / "page.html"
    media = Media(video_source(clip, path, 0), clip.name, strip_of(FRAMES), peaks_of(np.ones(9000), 1600, 5.5))
    write_video_page(path, replace(tiny_parse(), warning="Random weights."), media)
    return path


def test_a_page_holds_the_probabilities_of_each_modality_and_the_strip(tmp_path: Path):
    write_video_page(
        tmp_path / "page.html", tiny_parse(), Media(strip=strip_of(FRAMES), peaks=np.arange(5, dtype=np.uint8))
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert (data["duration"], data["segments"], data["threshold"]) == (5.5, 6, 0.5)
    assert data["events"][:2] == ["Dog", "Acoustic guitar"]
    assert base64.b64decode(data["peaks"]) == bytes([0, 1, 2, 3, 4])
    assert [data["strip"][name] for name in ("count", "width", "height")] == [6, 80, 60]
    (track,) = data["tracks"]
    ends = {
        name: np.frombuffer(base64.b64decode(track[name]), "<f4").reshape(6, 3)[5] for name in track if name != "name"
    }
    assert ends.keys() == {"audio", "visual", "audio_around", "visual_around"}
    np.testing.assert_allclose(ends["audio"], [0.8, 0.95, 0.1], rtol=1e-6)
    np.testing.assert_allclose(ends["visual"], [0.2, 0.2, 0.75], rtol=1e-6)
    np.testing.assert_allclose(ends["audio_around"], [1, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(ends["visual_around"], [0.9, 0.9, 0.9], rtol=1e-6)


def drawn(browser: Browser) -> str:
    """The first event's row as pixels."""
    return browser.run("return document.querySelector('.event-row canvas').toDataURL()")


def labels(browser: Browser) -> list[str]:
    """The rows in words."""
    return browser.run("return [...document.querySelectorAll('.event-row canvas')].map(c => c.ariaLabel)")


def test_a_page_says_what_it_shows_and_asks_the_network_for_nothing(browser: Browser, page: Path):
    browser.open(page)
    text = browser.run("return document.querySelector('header').innerText")
    assert "clip" in text and "a note" in text and "Random weights." in text
    resources = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(("file:", "data:")) for name in resources)
    assert not re.search(r"(src|href)=.https?:|@import|url\(http", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("embed_below", [0, 1 << 30])
def test_the_video_plays_beside_the_page_and_inside_it(browser: Browser, tmp_path: Path, clip: Path, embed_below: int):
    path = tmp_path / "page.html"
    write_video_page(path, tiny_parse(), Media(video_source(clip, path, embed_below), clip.name))
    assert (tmp_path / clip.name).exists() == (embed_below == 0)
    browser.open(path)
    browser.wait_for("return video.readyState >= 2")
    browser.run("video.muted = true")
    browser.press(" ")
    assert browser.wait_for("return video.currentTime > 0.3 && !video.paused")
    left = browser.run("return playhead.getBoundingClientRect().left - ruler.getBoundingClientRect().left")
    assert left > 0
    browser.press(" ")
    assert browser.run("return video.paused")


def test_the_sample_video_is_parsed_plays_and_seeks(browser: Browser, tmp_path: Path):
    if not SAMPLE.exists():
        pytest.skip(f"no sample video in {SAMPLE.parent}")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from video import parse_video

    flags = ["--model", str(han_run(tmp_path / "run")), "--output_dir", str(tmp_path), "--device", "cpu"]
    parse_video.main([str(SAMPLE), *flags, "--random_weights", "small", "--threshold", "0.4"])
    browser.open(tmp_path / "page.html")
    shown = browser.run("return [data.segments, data.strip.count > 10, peaks.some((p) => p > 100)]")
    assert shown == [10, True, True]
    browser.wait_for("return video.readyState >= 2")
    browser.run("video.muted = true")
    browser.press(" ")
    browser.wait_for("return video.currentTime > 0.2")
    browser.press(" ")
    browser.click_at("#ruler", 0.5)
    browser.wait_for("return !video.seeking")
    assert browser.run("return video.currentTime") == pytest.approx(5, abs=0.05)
    before = labels(browser)
    set_threshold(browser, 0.95)
    assert len(labels(browser)) < len(before)


def test_a_click_on_a_row_moves_video_and_playhead(browser: Browser, page: Path):
    browser.open(page)
    browser.wait_for("return video.readyState >= 1")
    browser.click_at(".event-row canvas", 0.5)
    browser.wait_for("return !video.seeking")
    assert browser.run("return video.currentTime") == pytest.approx(5.5 / 2, abs=0.05)
    box = browser.run("return ruler.getBoundingClientRect().toJSON()")
    playhead = browser.run("return playhead.getBoundingClientRect().left + 1")
    assert playhead == pytest.approx(box["left"] + box["width"] / 2, abs=2)
    assert "Dog" in browser.run("return document.getElementById('now-events').innerText")


def test_keys_go_a_second_back_and_forth_and_to_the_ends(browser: Browser, page: Path):
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    browser.wait_for("return video.readyState >= 1")

    def position() -> str:
        browser.wait_for("return !video.seeking")
        return browser.run("return ruler.ariaValueText")

    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert position() == "0:02 of 0:05.5"
    browser.press(Keys.ARROW_LEFT)
    assert position() == "0:01 of 0:05.5"
    browser.press(Keys.END)
    assert position() == "0:05.5 of 0:05.5"
    browser.press(Keys.ARROW_RIGHT, Keys.HOME, Keys.ARROW_LEFT)
    assert position() == "0:00 of 0:05.5"


def set_threshold(browser: Browser, threshold: float) -> None:
    browser.run(
        "const s = document.getElementById('threshold'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        threshold,
    )
    browser.frame()


def test_the_slider_redraws_the_rows(browser: Browser, page: Path):
    browser.open(page)
    before = drawn(browser)
    assert len(labels(browser)) == 3
    set_threshold(browser, 0.72)  # the dog is audible with 0.9, 0.7, ...
    assert drawn(browser) != before
    assert "audible 0:00 to 0:01, 0:05 to 0:05.5; visible 0:01 to 0:03" in labels(browser)[0]
    set_threshold(browser, 0.97)
    assert labels(browser) == []
    assert "No event exceeds the threshold" in browser.run("return document.getElementById('stage').innerText")
    set_threshold(browser, 0.5)
    assert drawn(browser) == before


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.83])
def test_the_page_decodes_as_the_exports_do(browser: Browser, tmp_path: Path, threshold: float):
    parsed = replace(random_parse(23.4), threshold=threshold)
    write_video_page(tmp_path / "page.html", parsed)
    browser.open(tmp_path / "page.html")
    browser.run("document.getElementById('table-box').open = true")
    browser.wait_for("return document.querySelector('#table tr')")
    rows = browser.run(
        "return [...document.querySelectorAll('#table tr')].map(r => [...r.cells].map(c => c.innerText))"
    )

    def clock(seconds: float) -> str:
        return f"0:{int(seconds):02d}" + (f".{round(10 * (seconds % 1))}" if seconds % 1 else "")

    expected = [[clock(s.onset), clock(s.offset), s.event, s.kind, f"{s.probability:.2f}"] for s in spans(parsed)]
    assert len(rows) > 10
    assert [row[:4] for row in sorted(rows)] == [row[:4] for row in sorted(expected)]
    for row, other in zip(sorted(rows), sorted(expected), strict=True):
        assert float(row[4]) == pytest.approx(float(other[4]), abs=0.011)  # rounded from float64 and float32


def test_all_events_are_shown_on_demand(browser: Browser, tmp_path: Path):
    write_video_page(tmp_path / "page.html", replace(random_parse(5), threshold=0.97))
    browser.open(tmp_path / "page.html")
    assert len(labels(browser)) < 8
    browser.run("document.getElementById('all-events').click()")
    assert len(labels(browser)) == 8


def test_a_name_cannot_become_markup(browser: Browser, page: Path):
    browser.open(page)
    assert browser.run("return window.injected") is None
    assert browser.run("return document.images.length") == 0
    names = browser.run("return [...document.querySelectorAll('.event-row .label')].map(l => l.textContent)")
    assert names == ["Dog", "Acoustic guitar", HOSTILE]


def test_colours_follow_the_mode_while_the_page_is_open(browser: Browser, page: Path):
    browser.open(page)
    light, ground = drawn(browser), browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.set_colours("dark")
    browser.wait_for("return matchMedia('(prefers-color-scheme: dark)').matches")
    browser.frame()
    assert drawn(browser) != light
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < sum(map(int, re.findall(r"\d+", ground)))


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_sticks_out_of_a_telephone(browser: Browser, page: Path, width: int, colours: str):
    browser.open(page, width, 800, colours)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    outside = browser.run(
        "return [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.table-scroll')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    assert browser.run("return document.querySelector('.event-row canvas').clientWidth") > width / 2


def test_a_long_video_is_zoomed_into_and_keeps_its_time_axis(browser: Browser, tmp_path: Path):
    write_video_page(tmp_path / "page.html", random_parse(3600, num_events=3))
    browser.open(tmp_path / "page.html")
    browser.click_at("#ruler", 0.75)
    assert browser.run("return now()") == pytest.approx(2700, abs=4)
    for _ in range(5):
        browser.run("document.getElementById('zoom-in').click()")
    browser.frame()
    box = browser.run("return ruler.getBoundingClientRect().toJSON()")
    playhead = browser.run("return playhead.getBoundingClientRect().left")
    assert box["left"] < playhead < box["right"]
    browser.click_at(".event-row canvas", 0.5)
    middle = browser.run("return now()")
    assert middle == pytest.approx(2700, abs=4)  # where the playhead was
    browser.click_at(".event-row canvas", 0.9)
    assert browser.run("return now()") - middle == pytest.approx(0.4 * 3600 / 32, abs=0.5)


def test_a_video_that_cannot_be_played_leaves_a_working_timeline(browser: Browser, tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_video_page(tmp_path / "page.html", tiny_parse(), Media("broken.mp4", "broken.mp4"))
    browser.open(tmp_path / "page.html")
    browser.wait_for("return document.getElementById('no-video').checkVisibility()")
    assert "cannot play broken.mp4" in browser.run("return document.getElementById('no-video').innerText")
    browser.click_at("#ruler", 0.5)
    assert browser.run("return now()") == pytest.approx(2.75, abs=0.05)


def test_the_tooltip_tells_the_probabilities_within_the_window(browser: Browser, page: Path):
    browser.open(page, 390, 800)
    browser.click_at(".event-row canvas", 0.97)
    text, box = browser.run(
        "const t = document.querySelector('.tooltip'); return [t.innerText, t.getBoundingClientRect().toJSON()]"
    )
    assert text.split("\n") == [
        "Dog",
        "0:05 to 0:05.5",
        "audible 0.800 (video level 1.000)",
        "visible 0.200 (video level 0.900)",
    ]
    assert box["left"] >= 0 and box["right"] <= 390


def test_several_sources_stand_below_each_other(browser: Browser, tmp_path: Path):
    parsed = tiny_parse()
    truth = Track("Truth", parsed.tracks[0].decoded(0.5).map(np.float32))
    write_video_page(tmp_path / "page.html", replace(parsed, tracks=(*parsed.tracks, truth)))
    browser.open(tmp_path / "page.html")
    words = labels(browser)
    assert len(words) == 6
    assert words[1] == words[0].replace("HAN", "Truth")
    set_threshold(browser, 0.93)
    assert labels(browser)[1] == words[1]  # the truth knows no threshold


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Browser, page: Path, colours: str):
    browser.open(page, colours=colours)
    browser.wait_for("return video.readyState >= 1")
    browser.run("byId('table-box').open = true")
    browser.frame()
    assert browser.run("return document.querySelectorAll('.meter.off').length") > 0
    assert browser.violations() == []


def test_an_address_opens_the_page_at_its_moment_and_follows_the_position(browser: Browser, page: Path):
    browser.open(page)
    address = browser.driver.current_url
    browser.driver.get("about:blank")
    browser.driver.get(f"{address}#t=3.2")
    browser.wait_for("return video.readyState >= 1 && !video.seeking")
    assert browser.run("return [now(), ruler.ariaValueText]") == [pytest.approx(3.2), "0:03.2 of 0:05.5"]
    browser.run("location.hash = '#t=1'")
    browser.wait_for("return now() === 1")
    browser.run("location.hash = '#t=1e99999'")
    browser.click_at("#ruler", 0.5)
    rested = browser.wait_for("return location.hash === `#t=${now().toFixed(1)}` && location.hash")
    assert float(rested.removeprefix("#t=")) == pytest.approx(2.75, abs=0.06)
    browser.run("video.muted = true; video.play()")
    browser.wait_for("return now() > 3.2")
    assert browser.run("return location.hash") == rested
    browser.run("video.pause()")
    browser.wait_for("return location.hash === `#t=${now().toFixed(1)}` && now() > 3.2")


def test_only_events_of_a_modality_are_shown(browser: Browser, tmp_path: Path):
    write_video_page(tmp_path / "page.html", tiny_parse(("dog", "guitar", "rain")))
    browser.open(tmp_path / "page.html")
    browser.run("byId('table-box').open = true; byId('all-events').click()")
    seek = "seek(5.2)"  # the dog is audible, rain is visible
    expected = {  # rows, kinds in the table, at that second
        1: (["dog", "guitar"], {"audible"}, ["dog"]),
        2: (["dog", "rain"], {"visible"}, ["rain"]),
        3: (["dog"], {"audio-visual"}, []),
        0: (["dog", "guitar", "rain"], {"audible", "visible", "audio-visual"}, ["dog", "rain"]),
    }
    for value, (names, kinds, present) in expected.items():
        browser.run(f"{seek}; modality.value = {value}; modality.dispatchEvent(new Event('input'))")
        browser.wait_for("return byId('table').rows.length")
        assert [label.split(":")[0] for label in labels(browser)] == names
        found = browser.run("return [...byId('table').rows].map(row => row.cells[3].innerText)")
        assert set(found) == kinds
        events = browser.run("return [...document.querySelectorAll('.now .event')].map(e => e.innerText)")
        assert events == present
    browser.run("modality.value = 3; modality.dispatchEvent(new Event('input'))")
    set_threshold(browser, 0.85)
    assert "No event of this modality exceeds" in browser.run("return byId('stage').innerText")


@pytest.mark.parametrize("warning", ["", "Simulated features."])
def test_downloads_equal_the_files_beside_the_page(browser: Browser, tmp_path: Path, warning: str):
    parsed = replace(tiny_parse(("Dog", HOSTILE, "Grüße\r\n")), warning=warning)
    parsed.tracks[0].probs.visual[:, 1] = np.nan
    exports = write_exports(tmp_path / "out", parsed, tmp_path / "clip.mp4")
    write_video_page(tmp_path / "page.html", parsed, exports=exports)
    (tmp_path / "got").mkdir()
    where = {"behavior": "allow", "downloadPath": str(tmp_path / "got")}  # codespell:ignore behavior
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelectorAll('#downloads button').forEach((button) => button.click())")
    for name in EXPORTS:
        got = tmp_path / "got" / name
        browser.wait_until(got.exists)
        one, other = got.read_bytes(), (tmp_path / "out" / name).read_bytes()
        if name == "events.eaf":  # the page keeps the folder of the video to itself
            other = other.replace(f"{tmp_path.resolve().as_uri()}/".encode(), b"")
        if name == "events.json":
            one, other = (json.loads(text) for text in (one, other))  # 1 is 1.0
        assert one == other and str(tmp_path).encode() not in got.read_bytes(), name
    assert (
        browser.run("return byId('downloads').innerText.split(/\\s+/)").index("CSV") == 3
    )  # Download (threshold 0.50)


def test_a_page_without_exports_offers_none(browser: Browser, page: Path):
    browser.open(page)
    assert browser.run("return byId('downloads').checkVisibility()") is False


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(browser: Browser, page: Path):
    browser.open(page)
    nameless = browser.run(
        "return [...document.querySelectorAll('button, input, select, [tabindex], [role=img]')]"
        ".filter(e => !(e.ariaLabel || e.textContent || e.labels?.[0]?.innerText)).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert browser.run("ruler.focus(); return document.activeElement === ruler")


def test_of_five_thousand_events_those_in_sight_are_drawn_and_the_table_grows_as_one_scrolls(
    browser: Browser, tmp_path: Path
):
    write_video_page(tmp_path / "page.html", random_parse(20, 5000))
    browser.open(tmp_path / "page.html")
    browser.wait_for("return inSight.size")
    rows, in_sight = browser.run("return [rows.length, inSight.size]")
    assert rows > 4900 and in_sight < 150
    browser.run("rows[4000].canvas.scrollIntoView()")
    browser.wait_for("return inSight.has(rows[4000].canvas) && !inSight.has(rows[0].canvas)")
    browser.run("byId('table-box').open = true")
    browser.wait_for("return byId('table').rows.length")
    listed = browser.run("return byId('table').rows.length")
    assert listed % 300 == 0 and listed < browser.run("return tableLines.length")
    browser.run("byId('table').lastChild.scrollIntoView()")
    browser.wait_for(f"return byId('table').rows.length > {listed}")
    assert browser.run("return byId('now-events').children.length") == 101
