"""The web demo in a real browser: headless Chromium clicks through every tab.

Needs gradio, selenium, chromium and chromedriver, and is skipped without. With a trained model it makes the screenshots
of docs/results/web:

    DUALTOKEN_SCREENSHOTS=docs/results/web DUALTOKEN_DEMO_MODEL=runs/demo/instruct/export \
        python -m pytest tests/serve/test_demo_in_browser.py
"""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from eval.load import load
from serve.config import Limits
from serve.demo import EXAMPLES, build, launch
from serve.engine import Engine
from serve.server import listen

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

from serve.demo_parts import example_pictures  # noqa: E402

SHOTS, MODEL = os.environ.get("DUALTOKEN_SCREENSHOTS"), os.environ.get("DUALTOKEN_DEMO_MODEL")
PATIENCE = 900 if MODEL else 60
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic")


@pytest.fixture(scope="module")
def browser(unified, tmp_path_factory) -> Iterator["Browser"]:
    engine = Engine(load(MODEL) if MODEL else unified, Limits())
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    listening.close()
    page = build(engine, MODEL or "runs/tiny", EXAMPLES)
    launch(page, Limits(), "127.0.0.1", port, block=False)
    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", *QUIET):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1340,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        driver.get(f"http://127.0.0.1:{port}")
        yield Browser(driver)
    finally:
        driver.quit()
        page.close()
        engine.batcher.close()


class Browser:
    def __init__(self, driver) -> None:
        self.driver = driver

    def wait(self, condition):
        waiting = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def all(self, selector: str) -> list:
        return [each for each in self.driver.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]

    def one(self, selector: str):
        return self.wait(lambda: self.all(selector))[0]

    def says(self, selector: str, words: str) -> None:
        self.wait(lambda: words in self.one(selector).text)

    def tab(self, name: str) -> None:
        self.wait(lambda: [each for each in self.all("button[role=tab]") if each.text == name])[0].click()

    def upload(self, selector: str, path: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, f"{selector} input[type=file]").send_keys(path)

    def shoot(self, name: str) -> None:
        """A picture of the whole page, kept where one is wanted."""
        self.driver.set_window_size(1340, 600)
        height = self.driver.execute_script("return document.querySelector('.gradio-container').scrollHeight")
        self.driver.set_window_size(1340, max(600, min(height + 140, 1800)))
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        assert len(image.resize((64, 64)).getcolors(4096) or []) > 10  # there is something on it
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            image.save(Path(SHOTS, f"{name}.jpg"), quality=88, optimize=True)


@pytest.fixture(scope="module")
def picture() -> str:
    return example_pictures(EXAMPLES)[6]


def test_chat(browser, picture):
    browser.one("#said textarea").send_keys("What is in the image?")
    browser.upload("#said", picture)
    browser.wait(lambda: browser.all("#said img, #said .thumbnail-item"))
    browser.one("#said textarea").send_keys(Keys.ENTER)
    browser.wait(lambda: browser.all("#conversation .bot") and "…" not in browser.all("#conversation .bot")[-1].text)
    browser.wait(lambda: len(browser.all("#conversation .user img")) == 1)
    browser.wait(lambda: browser.all("#said .submit-button"))
    browser.one("#said textarea").send_keys("Draw: a smiling face, 3d style", Keys.ENTER)
    browser.wait(lambda: len(browser.all("#conversation .bot")) == 2 and browser.all("#said .submit-button"))
    browser.shoot("chat")
    hostile = "<img src=x onerror=\"document.title='owned'\"> <b>bold</b> **bold** <|im_end|>"
    browser.one("#said textarea").send_keys(hostile, Keys.ENTER)
    browser.wait(lambda: len(browser.all("#conversation .bot")) == 3)
    assert browser.all("#conversation .user")[-1].text == hostile and browser.driver.title == "DualToken"


def test_draw(browser):
    browser.tab("Draw")
    browser.one("#draw").click()
    browser.says("#draw-status", "Guidance")
    browser.wait(lambda: len(browser.all("#drawings .grid-container img, #drawings .thumbnail-item img")) >= 4)
    browser.shoot("draw")


def test_reconstruct(browser, picture):
    browser.tab("Reconstruct")
    browser.upload("#upload", picture)
    browser.says("#pixel-codes-shuffled", "feature 1.00")
    browser.shoot("reconstruct")


def test_mistakes_are_one_sentence(browser):
    browser.tab("Draw")
    box = browser.one("#prompt textarea")
    box.clear()
    box.send_keys(" ")
    browser.one("#draw").click()
    browser.says(".toast-body", "Say in a few words what to draw.")


def test_work_can_be_stopped(browser):
    browser.tab("Draw")
    browser.wait(lambda: [each for each in browser.all("button") if each.text == "Stop"])[0].click()
    browser.says("#draw-status", "Stopped.")


def test_a_name_of_another_site_is_refused(browser):
    request = Request(browser.driver.current_url, headers={"Host": "elsewhere.example"})
    with pytest.raises(HTTPError, match="400"):
        urlopen(request, timeout=PATIENCE)


def test_nothing_is_loaded_from_elsewhere(browser):
    names = browser.driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names and all(name.startswith(("http://127.0.0.1", "data:", "blob:")) for name in names)
