"""Which tokens ``--tokens`` means, where relevance begins."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captum_gmar.engine.start_tokens import Part

PLACES: "dict[Part, str]" = {
    "cls": "the CLS token",
    "distillation": "the distillation token",
    "patches": "the mean of the patches",
}
FORMS = "cls, distillation, patches, or the ROW,COLUMN of a patch, counted from 0 at the top left"


def token(text: str) -> "Part":
    """The argument of one ``--tokens``, as the methods take it.

    >>> token("cls"), token("3,10")
    ('cls', (3, 10))
    """
    name = text.strip().lower()
    for place in PLACES:
        if name == place:
            return place
    patch = re.fullmatch(r"(\d+)\s*,\s*(\d+)", name, re.ASCII)
    if not patch:
        raise argparse.ArgumentTypeError(f"must be {FORMS}. Got {text!r} instead.")
    return int(patch[1]), int(patch[2])


def start_name(tokens: "Sequence[Part]") -> str:
    """
    >>> start_name(["cls"]), start_name(["cls", (0, 1), (0, 2)])
    ('the CLS token', 'the CLS token, patch 0,1 and patch 0,2')
    """
    names = [f"patch {part[0]},{part[1]}" if isinstance(part, tuple) else PLACES[part] for part in tokens]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
