"""The entry of ``docs/references.bib`` that has a number of arXiv's."""

import re
from functools import cache

from tools.site.facts import DOCS


@cache
def keys() -> dict[str, str]:
    """From arXiv's number to the key."""
    text = (DOCS / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"@\w+\{(\w+),(.*?)\n\}", text, re.DOTALL)
    return {number[1]: key for key, body in entries if (number := re.search(r"eprint = \{([^}]+)\}", body))}


def key_of(number: str) -> str | None:
    """None where the bibliography has no such paper."""
    return keys().get(number)
