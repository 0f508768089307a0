"""Links of a site made by hand: which lead nowhere."""

import pytest

links = pytest.importorskip("tools.site.links", reason="the tools are not installed; they stand in a checkout")


def test_dead_links_are_those_without_page_place_or_file(tmp_path):
    (tmp_path / "how-to").mkdir()
    (tmp_path / "map 1.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<h2 id="début">a</h2><a href="how-to/">b</a><a href="#d%C3%A9but">c</a><a href="#">d</a>'
        '<img src="map%201.png"><img src="gone.png"><a href="https://elsewhere.invalid/x">e</a><a href="#gone">f</a>'
    )
    (tmp_path / "how-to" / "index.html").write_text(
        '<a href="../index.html#début">a</a><a href="../index.html#end">b</a><a href="mailto:a@b.invalid">c</a>'
    )
    assert list(links.dead_links(tmp_path)) == [
        "how-to/index.html: ../index.html#end",
        "index.html: gone.png",
        "index.html: #gone",
    ]
