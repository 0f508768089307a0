"""What pictures and tables have in common: their colours, and how they write numbers."""

from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers, without their yellow, which is lost on white.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#E69F00", "#000000"),
)
GREY = "#808080"  # of what knows nothing of the model; read on white and on black

DASHED = (0, (4, 1.5))
INSERTION_LINE: dict[str, Any] = {"color": BLUE, "linestyle": "solid"}
DELETION_LINE: dict[str, Any] = {"color": VERMILION, "linestyle": DASHED}

# Both are told apart by colour-blind readers, and the first in grey as well.
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
SIGNS = "red: for, blue: against"  # what the colours of DIVERGING say


def number_text(value: float, form: str = ".3g") -> str:
    """The number in this format, with a minus sign instead of a hyphen."""
    return format(value, form).replace("-", "−")


def percent_text(share: float, form: str = ".0f") -> str:
    """A share of 1 in percent."""
    return f"{number_text(100 * share, form)} %"


def milliseconds_text(seconds: float) -> str:
    """Seconds as milliseconds, without their unit: one decimal below 100."""
    return number_text(1000 * seconds, ".1f" if seconds < 0.1 else ".0f")
