"""What the script of other versions asks for, and the row that it prints."""

import re
from pathlib import Path

import pytest

versions = pytest.importorskip("tools.versions", reason="the tools are not installed; they stand in a checkout")


def test_versions_that_are_chosen_come_in_place_of_others():
    text = "# a comment\ntorch==2.13.0\ntorchvision==0.28.0\nnumpy==1.26.0\n"
    expected = "# a comment\ntorchvision==0.28.0\nnumpy==1.26.0\ntorch==2.6.0\n"
    assert versions.constraints(text, ["torch==2.6.0"]) == expected


def test_a_row_fits_the_table():
    page = Path(versions.ROOT, "docs", "versions.md").read_text()
    (header,) = re.findall(r"^\| when .*\|$", page, re.MULTILINE)
    made = versions.row("3.11.7 | 2.6.0 | 0.8.0 | 4.56.0 | 1.26.0", ["tests/engine"], "12 passed in 3.00s")
    assert made.count("|") == header.count("|")
    assert made.endswith("| 1.26.0 | tests/engine | 12 passed in 3.00s |")
