"""Writes what the site takes from the code: ``python -m tools.site``."""

from tools.site.api import write_api
from tools.site.errors import write_errors
from tools.site.facts import gather
from tools.site.pages import write_matrix, write_method_pages
from tools.site.pictures import draw_gallery, draw_methods
from tools.site.tutorials import copy_tutorials


def write_all(with_pictures: bool = True) -> None:
    """All pages that are made, and their pictures."""
    facts = gather()
    write_matrix(facts)
    write_method_pages(facts)
    write_errors()
    write_api()
    copy_tutorials()
    if with_pictures:
        draw_methods(facts)
        draw_gallery(facts)


if __name__ == "__main__":
    write_all()
