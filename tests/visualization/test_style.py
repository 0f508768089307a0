"""Numbers and units as every picture and table writes them, and colours that can be told apart."""

import pytest
from matplotlib.colors import to_rgb

from captum_gmar.visualization.style import (
    COLOURS,
    GREY,
    milliseconds_text,
    number_text,
    percent_text,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number_text(-0.03381), "−0.0338"),
        (number_text(-1, "d"), "−1"),
        (number_text(4.64e-05), "4.64e−05"),
        (percent_text(0.254), "25 %"),
        (milliseconds_text(0.01234), "12.3"),
        (milliseconds_text(0.1234), "123"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert text == expected


def test_colours_are_of_okabe_and_ito() -> None:
    """The numbers of their page, "Color universal design"; without yellow."""
    of_the_page = {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (0,) * 3}
    assert {tuple(round(255 * part) for part in to_rgb(colour)) for colour in COLOURS} == of_the_page
    assert GREY not in COLOURS
