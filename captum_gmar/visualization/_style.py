"""Colours, numbers and letters that pictures and tables have in common."""

from functools import cache
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

# Okabe and Ito's colours, told apart by colour-blind readers, without their yellow, which is lost on white.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#E69F00", "#000000"),
)
GREY = "#808080"  # of controls; read on white and on black

DASHED = (0, (4, 1.5))
INSERTION_LINE: dict[str, Any] = {"color": BLUE, "linestyle": "solid"}
DELETION_LINE: dict[str, Any] = {"color": VERMILION, "linestyle": DASHED}

# The two hues of every map. Colour-blind readers can tell each from the other and from grey.
FOR, AGAINST = (232, 72, 0), (0, 90, 235)
SIGNS = "orange: for, blue: against"

REGULAR = 400, 500, "normal", "regular", "book", "medium"  # weights of fonts
UNREADABLE = "Last Resort", "Color Emoji"  # boxes for every letter; and bitmaps, which Matplotlib cannot scale
INSTEAD = "□"  # of letters that no font has


def number_text(value: float, form: str = ".3g") -> str:
    """Return the number in this format, with a minus sign instead of a hyphen."""
    return format(value, form).replace("-", "−")


def percent_text(share: float, form: str = ".0f") -> str:
    """Return a share of 1 in percent."""
    return f"{number_text(100 * share, form)} %"


def milliseconds_text(seconds: float) -> str:
    """Return seconds as milliseconds, without their unit: one decimal below 100."""
    return number_text(1000 * seconds, ".1f" if seconds < 0.1 else ".0f")


def fit_fonts(figure: Figure) -> None:
    """Add to each text of the figure the fonts that have the letters that its own lacks.

    Letters that no installed font has become empty boxes, as Matplotlib would draw them, but without its warnings.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        fonts = {letter: font_with(letter) for letter in missing_letters(text.get_text(), text.get_fontproperties())}
        if fonts:
            text.set_fontfamily([*text.get_fontfamily(), *sorted(set(filter(None, fonts.values())))])
            text.set_text(
                "".join(letter if fonts.get(letter, "") is not None else INSTEAD for letter in text.get_text())
            )


def missing_letters(text: str, font: FontProperties) -> set[str]:
    """Return the letters that the font does not have."""
    return (
        set() if text.isascii() else {each for each in set(text) - {"\n"} if ord(each) not in _letters(findfont(font))}
    )


@cache
def font_with(letter: str) -> str | None:
    """Return the name of an installed font that has the letter."""
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name):
        is_plain = entry.style == entry.variant == entry.stretch == "normal" and entry.weight in REGULAR
        is_readable = is_plain and not any(name in entry.name for name in UNREADABLE)
        if is_readable and ord(letter) in _letters(entry.fname):
            return entry.name
    return None


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # whatever a damaged file makes of FreeType
        return frozenset()
