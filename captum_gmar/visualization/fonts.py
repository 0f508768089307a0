"""Text in any script for which a font is installed."""

from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

UNREADABLE = "Last Resort", "Color Emoji"  # boxes for every letter; and bitmaps, which Matplotlib cannot scale
REGULAR = 400, 500, "normal", "regular", "book", "medium"  # weights
INSTEAD = "□"  # of letters that no font has


def fit_fonts(figure: Figure) -> None:
    """Gives every text of the figure, where its font lacks letters, those fonts besides that have them.

    Letters that none has become empty boxes, as Matplotlib would draw them, but without its warnings.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        missing = missing_letters(text.get_text(), text.get_fontproperties())
        if missing:
            fonts = {letter: font_with(letter) for letter in sorted(missing)}
            others = dict.fromkeys(font for font in fonts.values() if font)
            text.set_fontfamily([*text.get_fontfamily(), *others])
            boxes = {ord(letter): INSTEAD for letter, font in fonts.items() if not font}
            text.set_text(text.get_text().translate(boxes))


def missing_letters(text: str, font: FontProperties) -> set[str]:
    """The letters that the font does not have."""
    return set() if text.isascii() else {letter for letter in set(text) - {"\n"} if ord(letter) not in _letters(font)}


@cache
def font_with(letter: str) -> str | None:
    """The name of an installed font that has the letter."""
    for entry in sorted(filter(_is_regular, fontManager.ttflist), key=lambda entry: entry.name):
        if ord(letter) in _letters_of(entry.fname):
            return entry.name
    return None


def _is_regular(entry: FontEntry) -> bool:
    """Whether the name alone leads to this font."""
    is_normal = entry.style == entry.variant == entry.stretch == "normal" and entry.weight in REGULAR
    return is_normal and not any(name in entry.name for name in UNREADABLE)


def _letters(font: FontProperties) -> frozenset[int]:
    return _letters_of(findfont(font))


@cache
def _letters_of(path: str) -> frozenset[int]:
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # whatever a damaged file makes of FreeType
        return frozenset()
