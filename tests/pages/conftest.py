"""A Chromium without a window, and a small video for it to play."""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

SAMPLE = Path(__file__).resolve().parents[2].parent / "shared" / "samples" / "BjCEufrlXm4.mp4"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """One Chromium for all tests, driven by Selenium; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--autoplay-policy=no-user-gesture-required",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


class Browser:
    """What the tests do with a page."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path: Path, width: int = 1200, height: int = 900, colours: str = "light") -> None:
        """Open a file in a window of this size, in pixels, in light or dark mode."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.set_colours(colours)
        self.driver.get(path.resolve().as_uri())
        self.frame()

    def set_colours(self, colours: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": colours}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    def frame(self) -> None:
        """Wait until the page has drawn what it was asked for."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)));"
        )

    def wait_for(self, script: str, seconds: float = 10) -> object:
        """Wait until a script returns something true, and return it."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(
            lambda driver: driver.execute_script(script)
        )

    def wait_until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        """Wait until a condition outside the page is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()
        self.frame()

    def click_at(self, selector: str, share: float) -> None:
        """Click an element at a share of its width."""
        from selenium.webdriver.common.action_chains import ActionChains

        found = self.driver.find_element("css selector", selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        offset = round((share - 0.5) * found.size["width"])
        ActionChains(self.driver).move_to_element_with_offset(found, offset, 0).click().perform()
        self.frame()

    def violations(self) -> list[str]:
        """What axe-core objects to, rule and element; skips the test where it is not installed."""
        package = find_spec("axe_playwright_python")  # not imported: Playwright is not needed
        if package is None:
            pytest.skip("axe-core is not installed: pip install axe-playwright-python")
        self.run(Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
        found = self.driver.execute_async_script("axe.run().then(({ violations }) => arguments[0](violations))")
        return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]

    def errors(self) -> list[str]:
        """What the page has complained of."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    """The Chromium; whatever a page complained of fails its test."""
    opened = Browser(chromium)
    opened.errors()
    yield opened
    assert opened.errors() == []
    chromium.get("about:blank")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of a square that moves to the right, with a tone."""
    pytest.importorskip("av", reason="PyAV is not installed")
    from video.video_encoding import write_video

    path = tmp_path_factory.mktemp("video") / "a clip.mp4"
    frames = [np.full((120, 160, 3), 40, np.uint8) for _ in range(60)]
    for n, frame in enumerate(frames):
        frame[40:80, 2 * n : 2 * n + 40] = 220, 120, 30
    tone = 9000 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 16_000)
    write_video(path, frames, 10, tone[None].astype(np.int16), 16_000)
    return path
