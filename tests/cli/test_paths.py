"""Names of pictures: none takes another's place, and any name that a file system allows is written and read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from captum_gmar.cli.paths import picture_mark
from captum_gmar.files.writing import read_note
from cli.commandline import USUAL, save_photo, written

pytestmark = pytest.mark.fault

OUT = ("--output", "out/")
LONG = "a" * 251 + ".png"  # as long as a name may be: its picture's would be longer
LATIN, GERMAN = b"latin\xe9.png", "größe-猫.png".encode()
MARK = f"-{USUAL}.png".encode()


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [
        ("vit", [], ["--size", "48"]),
        ("vit", ["--target", "tiger cat"], ["--target", "Tiger cat"]),
        ("vit", ["--tokens", "1,2"], ["--tokens", "2,1"]),
        ("clip-of-texts", ["--text", "a dog"], ["--text", "a-dog"]),
        ("clip-of-texts", ["--text", "a dog"], ["--text", "A dog!"]),
        ("clip-of-texts", ["--text", "a", "--text", "dog"], ["--text", "a dog"]),
    ],
)
def test_what_changes_a_picture_stands_in_its_name_or_it_is_refused(run, work, models, model, first, second):
    photo = ("photo.png", "--model", models / model, *OUT)
    assert run(*photo, *first).status == 0
    (name,) = written(work / "out")
    before = (work / "out" / name).read_bytes()
    result = run(*photo, *second)
    assert (work / "out" / name).read_bytes() == before
    assert result.status == 2 or len({file.casefold() for file in written(work / "out")}) == 2


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_a_picture_has_the_format_of_its_suffix_and_tells_its_settings(run, work, models, suffix, start):
    figures = pyplot.get_fignums()
    options = ["--target", "tiger cat", "--size", "48", "--output", f"a.{suffix}"]
    assert run("photo.png", "--model", models / "vit", *options).status == 0
    assert pyplot.get_fignums() == figures
    content = (work / f"a.{suffix}").read_bytes()
    assert content.startswith(start)
    content = content.replace(b"&quot;", b'"').replace(b"\\(", b"(").replace(b"\\)", b")")
    for part in (
        b'"image": "photo.png (',
        b'"model": "vit (',
        b'["token-evidence", "gmar-l1"]',
        b'"target": "tiger cat"',
        b'"size": 48',
    ):
        assert part in content


def test_the_note_of_a_picture_is_json(run, work, models):
    assert run("photo.png", "--model", models / "vit", "--tokens", "1,2", "--tokens", "cls", *OUT).status == 0
    note = json.loads(read_note(work / "out" / "photo-gmar-l1-from-1-2-and-cls.png") or "")
    assert (note["tokens"], note["target"]) == ([[1, 2], "cls"], "top1")


def test_the_same_again_is_replaced(run, work, models):
    for options in ([], ["--target", "top1", "--batch-size", "2", "--save-array", "a.npz"]):
        assert run("photo.png", "--model", models / "vit", *OUT, *options).status == 0
    save_photo(work / "photo.png", seed=5)  # which is the same photo, put right
    before = (work / "out" / f"photo-{USUAL}.png").read_bytes()
    assert run("photo.png", "--model", models / "vit", *OUT).status == 0
    assert (work / "out" / f"photo-{USUAL}.png").read_bytes() != before
    assert written(work / "out") == [f"photo-{USUAL}.png"]


def test_pictures_of_another_model_or_photo_are_not_replaced(run, work, models):
    assert run("photo.png", "--model", models / "vit", *OUT).status == 0
    before = (work / "out" / f"photo-{USUAL}.png").read_bytes()
    (work / "others").mkdir()
    save_photo(work / "others" / "photo.png", seed=1)
    save_photo(work / "photo.jpg", seed=1)
    refused = r"out/\S+\.png cannot be replaced: it is a picture with {0} \S+ \(\w+\) and not {1} \(\w+\)\. "
    for image, model, key, other in (
        ("photo.png", "dino", "model", "dino"),
        ("photo.jpg", "vit", "image", "photo.jpg"),
        ("others/photo.png", "vit", "image", "photo.png"),
    ):
        result = run(image, "--model", models / model, *OUT)
        assert result.is_error("Pass another --output, or move it.")
        assert re.search(refused.format(key, other), result.err)
    assert (work / "out" / f"photo-{USUAL}.png").read_bytes() == before
    assert written(work / "out") == [f"photo-{USUAL}.png"]
    assert (
        run("photo.png", "--model", models / "dino", "--output", f"out/photo-{USUAL}.png").status == 0
    )  # as it is named


def test_what_is_not_ours_is_not_replaced(run, work, models):
    save_photo(work / "out" / f"photo-{USUAL}.png")
    before = (work / "out" / f"photo-{USUAL}.png").read_bytes()
    result = run("photo.png", "--model", models / "vit", *OUT)
    assert result.is_error(f"out/photo-{USUAL}.png cannot be replaced: it does not say of what it is a picture.")
    assert (work / "out" / f"photo-{USUAL}.png").read_bytes() == before


def test_a_folder_that_moves_with_its_photos_is_written_again(run, work, models):
    (work / "a").mkdir()
    shutil.copytree(models / "vit", work / "a" / "model")
    save_photo(work / "a" / "b.png")
    assert run("a/b.png", "--model", "a/model", "--output", "a/out/").status == 0
    (work / "a").rename(work / "c")
    assert run("c/b.png", "--model", "c/model", "--output", "c/out").status == 0
    assert written(work / "c" / "out") == [f"b-{USUAL}.png"]


def test_marks_differ_where_questions_do():
    long = "word " * 30
    questions = [
        *[("a dog",), ("a-dog",), ("A dog",), ("a dog!",), ("a  dog",), ("a", "dog!"), ("á dog",)],
        *[(f"{long}one",), (f"{long}two",), ("what?",), ("what",), ("what?", "a"), ("what?", "", "rather than a")],
    ]
    marks = [picture_mark(*question).casefold() for question in questions]
    assert len(set(marks)) == len(questions)
    assert max(map(len, marks)) <= 120
    assert picture_mark("tiger cat", "rather than 0") == "tiger-cat-rather-than-0"


def test_compare_replaces_nothing_else(work, models, command):
    given = ["compare", "photo.png", "--model", models / "vit", "--steps", "2", "--methods", "rollout"]
    for number, other in enumerate([[], ["--removal", "zero"], ["--size", "48"]]):
        assert command(*given, *other).status == 0
        assert len(written(work)) == 3 + number
    assert command(*given).status == 0  # the first again
    shutil.copytree(models / "vit", work / "model")
    other = command(*given[:3], "model", *given[4:])
    assert other.is_error("cannot be replaced: it is a picture with model vit (")


def test_a_long_name_does_not_stop_a_folder(run, work, models):
    (work / "photos").mkdir()
    for seed, name in enumerate((LONG, LONG.replace("a.png", "b.png"), "short.png")):
        save_photo(work / "photos" / name, seed)
    result = run("photos", "--model", models / "vit", "--output", "out/")
    assert (result.status, result.err) == (0, "")
    stem = "a" * (255 - len(f"-2-{USUAL}.png"))
    assert written(work / "out") == sorted([f"{stem}-2-{USUAL}.png", f"{stem}aa-{USUAL}.png", f"short-{USUAL}.png"])


@pytest.fixture
def photos(work):
    """A folder of photos with such names."""
    if sys.platform != "linux":
        pytest.skip("other file systems refuse such names")
    (work / "photos").mkdir()
    for name in (LATIN, GERMAN):
        save_photo(work / "photos" / os.fsdecode(name))
    return work / "photos"


def pictures(folder):
    return sorted(os.listdir(os.fsencode(folder)))


def test_names_that_are_no_utf_8(run, work, photos, models):
    result = run("photos", "--model", models / "vit", "--output", "out/", "--save-array", "a.npz")
    assert (result.status, result.err) == (0, "")
    assert pictures(work / "out") == [GERMAN[:-4] + MARK, LATIN[:-4] + MARK]
    assert "photos/latin\\xe9.png\n" in result.out
    assert "photos/größe-猫.png\n" in result.out
    with np.load(work / "a.npz") as arrays:
        assert sorted(map(Path, arrays["image"].tolist())) == sorted(
            path.relative_to(work) for path in photos.iterdir()
        )


def test_a_locale_that_is_not_utf_8(work, photos, models):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "captum_gmar", "explain", "photos", "--model", str(models / "vit")]
    command += ["--output", "out/", "--save-array", "a.npz"]
    done = subprocess.run(command, cwd=work, env={**os.environ, **locale}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert pictures(work / "out") == [GERMAN[:-4] + MARK, LATIN[:-4] + MARK]
    assert b"photos/latin\\xe9.png\n" in done.stdout
    assert b"photos/gr\\xf6\\xdfe-\\u732b.png\n" in done.stdout


def test_pictures_of_every_format_are_not_explained_again(run, work, models):
    for suffix in ("png", "jpg", "pdf", "svg"):
        assert run("photo.png", "--model", models / "vit", "--output", f"out/picture.{suffix}").status == 0
    assert run("out", "--model", models / "vit").is_error("out must hold image files, but holds pictures of explan")
    assert run("out/picture.png", "--model", models / "vit").status == 0  # named itself, it is an image


def test_the_current_folder_is_named(run, work, models, monkeypatch):
    monkeypatch.setattr("captum_gmar.cli.paths.os.access", lambda path, _: False)
    assert run("photo.png", "--model", models / "vit").is_error(f"error: {work} cannot be written: it is read-only")
