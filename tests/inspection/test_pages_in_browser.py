"""Pages as a person uses them: mouse, keyboard, dark, phone, and in a cell of a notebook.

Needs Selenium, and Chromium with its driver.
"""

import shutil
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from captum_gmar.inspection.answer_page import AnswerPage
from captum_gmar.inspection.class_page import ClassPage
from captum_gmar.metrics import Mean
from captum_gmar.vlm.attribution import AnswerAttribution
from captum_gmar.vlm.image_tokens import PictureTokens

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
if not (CHROMIUM and DRIVER):
    pytest.skip("Chromium and its driver are not installed", allow_module_level=True)

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--disable-dev-shm-usage")
GREY = Image.new("RGB", (64, 64), "#808080")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def class_page(vit, images):
    return ClassPage(vit, images[:1], GREY, methods=["token-evidence", "gmar-l1"], classes=4, rivals=3, proof=Mean())


@pytest.fixture
def long_answer():
    """200 words of one token, each of which one of four patches fed."""
    relevance = torch.zeros(200, 4 + 199)
    relevance[torch.arange(200), torch.arange(200) % 4] = 1
    shares = relevance, None, torch.ones(200), torch.ones(200)
    pictures = (PictureTokens(torch.arange(4).view(2, 2)),)
    return AnswerPage(
        AnswerAttribution(tuple(f" w{n}" for n in range(200)), *shares, 4, pictures, attended=relevance), GREY
    )


@contextmanager
def screen(browser, width, scheme):
    """Set the width of the screen and the scheme of its colours."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def show(browser, html, folder):
    (folder / "page.html").write_text(html, encoding="utf-8")
    browser.get((folder / "page.html").as_uri())


def text(browser, selector):
    return browser.find_element("css selector", selector).text


def use(browser):
    """Point at a patch, and walk classes and the slider by keys; check that each answers."""
    keys, patches = webdriver.Keys, browser.find_elements("css selector", "figure:nth-child(2) rect")
    webdriver.ActionChains(browser).move_to_element(patches[5]).perform()
    assert text(browser, "#told").startswith("Row 2, column 2: most for ")
    first, second = browser.find_elements("css selector", ".class")[:2]
    first.click()
    first.send_keys(keys.ARROW_DOWN)
    assert browser.switch_to.active_element == second
    assert text(browser, "#claim").startswith(second.find_element("css selector", "span").text)
    second.send_keys(keys.ESCAPE)
    slider, sentence = browser.find_element("css selector", "#proof input"), text(browser, "#proof output")
    slider.send_keys(keys.ARROW_RIGHT)
    assert text(browser, "#proof output") != sentence
    assert slider.get_attribute("aria-valuetext") in text(browser, "#proof output")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_mouse_and_keyboard_answer_in_a_cell_of_a_notebook(scheme, browser, class_page, tmp_path):
    cell = f'<style>:root {{ color-scheme: {scheme} }}</style><body style="width: 900px">{class_page._repr_html_()}'
    show(browser, cell, tmp_path)
    browser.switch_to.frame(browser.find_element("css selector", "iframe"))
    use(browser)
    script = "return getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/g).map(Number)[0] < 128"
    assert browser.execute_script(script) == (scheme == "dark")
    browser.switch_to.default_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen_and_follow_its_colours(width, scheme, browser, class_page, long_answer, tmp_path):
    for page in (class_page, long_answer):
        with screen(browser, width, scheme):
            show(browser, page.html, tmp_path)
            script = "return [document.documentElement.scrollWidth, innerWidth]"
            scrolled, seen = browser.execute_script(script)
            assert scrolled <= seen
            script = "return getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/g).map(Number)[0]"
            assert (browser.execute_script(script) < 128) == (scheme == "dark")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_picture_stays_in_sight_of_the_last_word_of_a_long_answer(width, browser, long_answer, tmp_path):
    with screen(browser, width, "light"):
        show(browser, long_answer.html, tmp_path)
        browser.execute_script("document.querySelector('[data-word=\"199\"]').focus({preventScroll: false})")
        script = "const {top, bottom} = document.querySelector('svg').getBoundingClientRect(); return [top, bottom]"
        (top, bottom), height = browser.execute_script(script), browser.execute_script("return innerHeight")
        assert -1 <= top < bottom <= height
        assert text(browser, "#told").startswith("“w199”")
