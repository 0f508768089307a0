"""Names of files that every file system takes, and paths as text."""

import os

import pytest

from captum_gmar.files.names import fit_name, readable_name, safe_name


def test_names_fit_the_file_system(tmp_path):
    for stem in ("a" * 255, "é" * 127, "猫" * 85, "\udce9" * 251):
        name = fit_name(stem, "-gmar-l1.png")
        assert len(os.fsencode(name)) <= 255
        assert name.endswith("-gmar-l1.png")
        (tmp_path / name).touch()
    assert fit_name("photo", "-gmar-l1.png") == "photo-gmar-l1.png"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("tiger cat", "tiger-cat"), ("gmar++", "gmar++"), ("../passwd", "passwd"), ("猫, cat", "猫-cat"), ("%", "")],
)
def test_safe_names(text, expected):
    assert safe_name(text) == expected


def test_readable_names_are_text():
    assert readable_name(os.fsdecode(b"latin\xe9-\xc3\xa9.jpg")) == "latin\\xe9-é.jpg"
