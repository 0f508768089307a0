"""Check what the built site's search finds first, in Chromium: ``python -m tools.site.search FOLDER``."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

FIRST = {  # by what a reader types, the page that answers
    "heatmap": "how-to/pictures.html",
    "transparency": "how-to/pictures.html",
    "save svg": "how-to/pictures.html",
    "contrast": "how-to/contrast.html",
}


def first_result(folder: Path, words: str) -> str | None:
    """Return the first page that the search lists, without its anchor; None if it lists none."""
    chromium = shutil.which("chromium") or "chromium"
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom")
    address = f"{(folder / 'search.html').resolve().as_uri()}?q={words.replace(' ', '+')}"
    shown = subprocess.run([chromium, *options, address], capture_output=True, text=True, check=True, timeout=120)
    return find_result(shown.stdout)


def find_result(html: str) -> str | None:
    """Return the page of the first item of the list of results."""
    found = re.search(r'<ul\b[^>]*class="search.*?<a\b[^>]*href="([^"#?]+)', html, re.DOTALL)
    return found and found[1]


def main() -> None:
    """Print each first result; exit with 1 if one is another page than it should be."""
    found = {words: first_result(Path(sys.argv[1]), words) for words in FIRST}
    print(*(f"{words}: {page}" for words, page in found.items()), sep="\n")
    sys.exit(found != FIRST)


if __name__ == "__main__":
    main()
