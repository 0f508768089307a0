"""The first result of a page of the search."""

import pytest

search = pytest.importorskip("tools.site.search", reason="the tools are not installed; they stand in a checkout")


def test_the_first_result_is_that_of_the_list():
    items = '<li><a href="how-to/a.html#b">A</a></li><li><a href="c.html">C</a></li>'
    before = '<a href="d.html">D</a>\n<ul role="list" class="search">'
    assert search.find_result(f"{before}\n{items}</ul>") == "how-to/a.html"
    assert search.find_result(f"{before}</ul>") is None
