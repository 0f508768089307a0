"""Texts and panels lie where they are read, in any script, and figures do not pile up."""

import re
from itertools import pairwise

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pictures import assert_nothing_overlaps

from captum_gmar.files.writing import save_picture
from captum_gmar.visualization import visualize_attribution
from captum_gmar.visualization._panels import split_evenly
from captum_gmar.visualization._style import font_with

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
MAP = np.eye(4, 6)


def test_long_title_is_wrapped_and_nothing_overlaps():
    figure, axes = visualize_attribution(
        MAP - 0.1,
        PHOTO,
        title="file.jpg: " + "a synonym of costs $5 and $6, " * 12,
        note="Says nothing of what several patches do together.",
        use_pyplot=False,
    )
    assert figure.get_suptitle().count("\n") >= 3
    assert_nothing_overlaps(figure)
    boxes = [panel.get_window_extent() for panel in axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_class_and_its_number_stay_on_one_line():
    for width in range(0, 40, 3):
        title = f"{'x' * width} tiger, Panthera tigris (class 292) {'y' * 60}"
        figure, _ = visualize_attribution(MAP, PHOTO, title=title, use_pyplot=False)
        assert "(class 292)" in figure.get_suptitle()


@pytest.mark.parametrize(("count", "lengths"), [(1, [1]), (6, [6]), (7, [4, 3]), (13, [5, 5, 3])])
def test_lines_are_about_equally_long(count, lengths):
    assert [len(line) for line in split_evenly(range(count), 6)] == lengths


def test_a_script_may_draw_any_number_of_figures():
    before = pyplot.figure()
    figures = [visualize_attribution(MAP, PHOTO)[0] for _ in range(25)]
    assert pyplot.get_fignums() == [before.number, pyplot.figure(figures[-1]).number]  # for pyplot.savefig


@pytest.mark.parametrize("letters", ["虎猫", "тигр", "نمر", "🐅", "虎 and 🐅"])
def test_names_in_any_script(letters):
    """Without warnings, which are errors here: from a font that has the letters, or as one empty box for each."""
    figure, axes = visualize_attribution(MAP, PHOTO, title=f"{letters}.jpg", label=letters, use_pyplot=False)
    FigureCanvasAgg(figure).draw()
    for text, whole in ((figure.get_suptitle(), f"{letters}.jpg"), (axes[1].get_xlabel(), letters)):
        assert len(text) == len(whole)
        assert all(
            drawn == letter or (drawn == "□" and not font_with(letter))
            for drawn, letter in zip(text, whole, strict=True)
        )


def test_a_font_that_has_the_letters_is_taken():
    """Matplotlib brings along others besides DejaVu Sans, with letters that that lacks: modifiers, and of APL."""
    figure, _ = visualize_attribution(MAP, PHOTO, title="tiger ˯ ⌶", use_pyplot=False)
    assert figure.get_suptitle() == "tiger ˯ ⌶"
    _, *others = figure._suptitle.get_fontfamily()
    assert set(others) == {font_with("˯"), font_with("⌶")}


def test_letters_of_files_for_papers_stay_letters(tmp_path):
    figure, _ = visualize_attribution(MAP, PHOTO, title="tiger, тигр", use_pyplot=False)
    save_picture(figure, tmp_path / "map.svg")
    assert re.search(r"<text[^>]*>tiger, тигр</text>", (tmp_path / "map.svg").read_text(encoding="utf-8"))
    save_picture(figure, tmp_path / "map.pdf")
    pdf = (tmp_path / "map.pdf").read_bytes()
    assert b"/Type3" not in pdf.replace(b" ", b"")
    assert b"/CIDFontType2" in pdf.replace(b" ", b"")


def test_readable_on_a_dark_ground():
    with pyplot.style.context("dark_background"):
        figure, axes = visualize_attribution(MAP, PHOTO, title="a title", use_pyplot=False)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    assert (np.asarray(canvas.buffer_rgba())[0, 0, :3] == 0).all()
    assert figure._suptitle.get_color() == axes[0].title.get_color() == "white"
