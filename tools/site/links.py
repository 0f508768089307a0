"""Whether every link within the built site leads somewhere: ``python -m tools.site.links FOLDER``.

Sphinx looks at what pages are written with; this at what a browser is given, with tables, raw HTML and notebooks.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "img": "src", "link": "href", "script": "src", "source": "src"}


class _Page(HTMLParser):
    """The links of a page, and the places that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places |= {place for name in ("id", "name") if (place := given.get(name))}
        if link := given.get(LINKS.get(tag, "")):
            self.links.append(link)


def dead_links(folder: Path) -> Iterator[str]:
    """``PAGE: LINK`` for every one that leads nowhere; links to other sites are not followed."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            goal = goal / "index.html" if goal.is_dir() else goal
            place = unquote(parts.fragment)
            if not goal.is_file() or (goal in pages and place not in pages[goal].places):
                yield f"{path.relative_to(folder.resolve())}: {link}"


def main() -> None:
    """Prints the dead ones; the exit status is 1 if there are any."""
    dead = list(dead_links(Path(sys.argv[1])))
    print("\n".join(dead) or "no dead link")
    sys.exit(bool(dead))


if __name__ == "__main__":
    main()
