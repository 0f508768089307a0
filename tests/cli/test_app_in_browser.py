"""The page of ``captum-gmar app``, served as it is for a person and driven in a real browser, as one would.

Needs the extra [app], Selenium, and Chromium with its driver.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hostile_images import png_of
from PIL import Image

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.demo import load_model, load_scene

pytest.importorskip("gradio", reason="Gradio, of the extra [app], is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
if not (CHROMIUM and DRIVER):
    pytest.skip("Chromium and its driver are not installed", allow_module_level=True)

PATIENCE = 180  # seconds for whatever the page is asked, its start included
SCENE = 600_025
DRAWN = 0.7  # seconds in which the page takes up what was typed
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1"),
    "--disable-dev-shm-usage",  # a container gives little of it
)


def until(condition, what):
    """What the condition gives as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if given := condition():
            return given
        time.sleep(0.1)
    pytest.fail(f"the page did not show {what}")


@contextmanager
def served(arguments, uploads):
    """Where Python, so called, serves the page, at {port}; in the end it is ended as by a system that stops."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(uploads), "GRADIO_SERVER_PORT": port}
    command = [sys.executable, *(argument.format(port=port) for argument in arguments)]
    with subprocess.Popen(command, env=os.environ | told, stdout=subprocess.DEVNULL) as server:
        until(lambda: server.poll() is not None or _answers(port), "itself")
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the command serves its page. It leaves no upload."""
    uploads = tmp_path_factory.mktemp("uploads")
    with served(["-m", "captum_gmar", "app", "--device", "cpu", "--port", "{port}"], uploads) as address:
        yield address
    assert not list(uploads.iterdir())


def _answers(port):
    try:
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/").status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser(address):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The page as a person uses it, by what stands on it."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, selector):
        return until(lambda: self.browser.find_elements("css selector", selector), selector)[0]

    def click(self, selector):
        element = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def status(self, beginning):
        """What it says, as soon as that begins so."""
        return str(until(lambda: self._status() if self._status().startswith(beginning) else "", repr(beginning)))

    def _status(self):
        # read at once, as the page draws it anew
        script = "return document.querySelector('#status')?.innerText.trim() ?? ''"
        return str(self.browser.execute_script(script))

    def choose(self, name, text):
        """Of a list, the first choice with this text."""
        field = self.find(f"#{name} input")
        field.click()
        field.send_keys(webdriver.Keys.CONTROL, "a")
        field.send_keys(text)
        self.find(f"#{name} ul li")
        time.sleep(DRAWN)  # until the list holds what was typed alone, which nothing on the page tells
        field.send_keys(webdriver.Keys.ENTER)
        time.sleep(DRAWN)
        field.send_keys(webdriver.Keys.TAB)
        time.sleep(DRAWN)

    def click_picture(self, name):
        """Click a picture at its middle."""
        picture = self.picture(name)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
        webdriver.ActionChains(self.browser).move_to_element(picture).click().perform()

    def picture(self, name):
        """A picture that is there, loaded."""

        def loaded():
            script = "return document.querySelector(arguments[0] + ' img')"
            image = self.browser.execute_script(script, f"#{name}")
            return image if image and image.get_property("naturalWidth") else None

        return until(loaded, f"a picture {name}")


@pytest.fixture
def page(browser, address):
    browser.get(address)
    shown = Page(browser)
    shown.status("Drop a photo")
    return shown


def test_a_scene_is_explained_a_patch_clicked_and_what_came_downloaded(page):
    page.click("#scene")
    page.status("The model says: ")
    target, contrast = load_scene(SCENE, objects=2).labels
    names = load_model().config.id2label
    page.choose("target", names[target])
    page.choose("contrast", names[contrast])
    page.click("#methods .remove-all")
    for name in ("attention-evidence", "attention-grad-cam"):
        page.choose("methods", name)
    page.click("#explain")
    page.status(f"{names[target]} rather than {names[contrast]}, ")
    assert page.picture("maps").get_property("naturalWidth") > 600
    page.picture("measured")
    table = page.find("#table table").text
    assert "attention-evidence" in table
    assert "random map" in table
    links = {link.get_attribute("download"): link.get_attribute("href") for link in _links(page)}
    files = {name: urllib.request.urlopen(link).read() for name, link in links.items()}
    assert set(files) == {"maps.png", "maps.npz"}
    assert Image.open(io.BytesIO(files["maps.png"])).format == "PNG"
    pixels = load_scene(SCENE, objects=2).pixel_values
    with np.load(io.BytesIO(files["maps.npz"])) as arrays:
        assert set(arrays) == {"attention-evidence", "attention-grad-cam"}
        for name, relevance in arrays.items():
            method = METHODS[name].load()(load_model())
            expected = method.relevance(pixels, target, contrast=contrast)[0].numpy()
            np.testing.assert_allclose(relevance, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())

    page.click_picture("photo")
    assert page.picture("patch").get_property("naturalWidth") > 600


def test_maps_come_before_their_measures_and_are_marked_when_the_question_changes(page):
    page.click("#scene")
    page.status("The model says: ")
    assert page.picture("thumbnail").get_property("naturalWidth") > 100
    assert not page.browser.find_elements("css selector", "#maps")
    page.click("#explain")
    page.picture("maps")
    assert not page.browser.find_elements("css selector", "#table table")  # not measured yet
    page.click_picture("maps")  # on the second of four maps beside the photo
    assert page.picture("patch").get_property("naturalWidth") > 600
    page.picture("measured")
    other = load_model().config.id2label[load_scene(SCENE, objects=2).labels[0]]
    page.choose("target", other)
    until(lambda: page.browser.find_elements("css selector", "#maps.stale"), "stale maps marked")
    assert "of what was asked before" in page.find("#maps").text
    page.browser.execute_script("document.querySelector('#explain').click()")  # a list of classes may be above it
    until(lambda: not page.browser.find_elements("css selector", "#maps.stale"), "new maps unmarked")
    page.status(f"{other}, ")


def _links(page):
    return until(lambda: page.browser.find_elements("css selector", "#files a[download]"), "files")


def test_a_photo_is_taken(page, tmp_path):
    load_scene(3).image.resize((300, 200)).save(tmp_path / "photo.jpg")
    page.find("#upload input[type=file]").send_keys(str(tmp_path / "photo.jpg"))
    page.status("The model says: ")


HOSTILE = {
    "bomb.png": (png_of(30_000, 30_000), "⚠ the image must have at most 40 million pixels"),
    "large.png": (png_of(8_000, 8_000), "⚠ the image must have at most 40 million pixels"),
    "drawing.svg": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "⚠ the file must be an",
    ),
    "damaged.png": (png_of(8, 8), "⚠ the file cannot be read as an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_one_line(name, page, tmp_path):
    data, beginning = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    page.find("#upload input[type=file]").send_keys(str(tmp_path / name))
    said = page.status(beginning)
    assert "\n" not in said
    assert str(tmp_path) not in said
    page.click("#scene")  # the page goes on
    page.status("The model says: ")


def test_a_file_that_is_too_large_is_refused(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(21 * 2**20))
    page.find("#upload input[type=file]").send_keys(str(tmp_path / "large.png"))
    until(lambda: "20" in page.find("body").text and "exceed" in page.find("body").text.lower(), "that it is too large")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_does_not_scroll_sideways(width, page):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.click("#scene")
    page.status("The model says: ")
    page.click("#explain")
    page.picture("measured")
    widths = page.browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths[0] <= widths[1]


def test_the_space_of_the_docs_keeps_all_where_gradio_deletes_it(browser, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "app.md").read_text(encoding="utf-8")
    (app,) = (block for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) if "make_page" in block)
    (tmp_path / "app.py").write_text(app)
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    with served([str(tmp_path / "app.py")], uploads) as address:
        browser.get(address)
        page = Page(browser)
        page.click("#scene")
        page.status("The model says: ")
        page.click("#explain")
        page.picture("measured")
        assert {path.name for path in uploads.rglob("*.npz")} == {"maps.npz"}
        assert {path.name for path in uploads.iterdir()} == {"gradio"}
