"""Whatever the file system, the locale and Matplotlib's settings are: pictures as usual, or one clear line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.commandline import Run, save_photo, written

LONG = "a" * 251 + ".png"  # as long as a name may be: its picture's would be longer
TOO_LONG = "a" * 300

# Names that are too long


def test_a_long_name_does_not_stop_a_folder(run: Run, work: Path, models: Path) -> None:
    (work / "photos").mkdir()
    for seed, name in enumerate((LONG, LONG.replace("a.png", "b.png"), "short.png")):
        save_photo(work / "photos" / name, seed)
    result = run("photos", "--model", models / "vit", "--output", "out/")
    assert (result.status, result.err) == (0, "")
    stem = "a" * (255 - len("-2-gmar-l1.png"))
    assert written(work / "out") == sorted([f"{stem}-2-gmar-l1.png", f"{stem}aa-gmar-l1.png", "short-gmar-l1.png"])


PLACES = [
    *((name, "--output", ending) for name in ("explain", "compare", "heads") for ending in ("", "/", ".png", "/a.png")),
    *(("explain", "--save-array", ending) for ending in (".npz", "/a.npz")),
    *(("compare", "--save-table", ending) for ending in (".csv", "/a.csv")),
    ("evaluate", "--output", ""),
]


@pytest.mark.parametrize("image", [TOO_LONG, f"{TOO_LONG}/a.png", f"{TOO_LONG}.png"])
@pytest.mark.parametrize("name", ["explain", "compare", "heads", "evaluate"])
def test_an_image_that_cannot_be(command: Run, work: Path, models: Path, name: str, image: str) -> None:
    output = ("--output", "r") if name == "evaluate" else ()
    assert command(name, image, "--model", models / "vit", *output).is_error("aaa", "File name too long")
    assert written(work) == ["out", "photo.png"]


@pytest.mark.parametrize("model", [TOO_LONG, f"{TOO_LONG}/m"])
@pytest.mark.parametrize("name", ["explain", "compare", "heads"])
def test_a_model_that_cannot_be(command: Run, work: Path, name: str, model: str) -> None:
    assert command(name, "photo.png", "--model", model).is_error("--model aaa", "File name too long")


@pytest.mark.parametrize(("name", "option", "ending"), PLACES)
def test_a_place_that_cannot_be(command: Run, work: Path, models: Path, name: str, option: str, ending: str) -> None:
    data = "." if name == "heads" else "photo.png"
    result = command(name, data, "--model", models / "vit", option, f"{TOO_LONG}{ending}")
    assert result.is_error()
    assert "Traceback" not in result.err
    assert written(work) == ["out", "photo.png"]


def test_what_may_not_be_looked_at_is_one_line(
    command: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user without permission, which nobody who tests as root lacks."""
    stat = os.stat

    def closed(path: object, **options: object) -> os.stat_result:
        if str(path).startswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(os, "stat", closed)
    model = models / "vit"
    for arguments in (
        ("explain", "closed/a.png", "--model", model),
        ("explain", "photo.png", "--model", "closed/m"),
        ("explain", "photo.png", "--model", model, "--output", "closed/"),
        ("explain", "photo.png", "--model", model, "--save-array", "closed/a.npz"),
        ("compare", "closed/a.png", "--model", model),
        ("compare", "photo.png", "--model", model, "--save-table", "closed/a.md"),
    ):
        assert command(*arguments).is_error("closed", "Permission denied"), arguments
    result = command("explain", "closed/a.png", "photo.png", "--model", model, "--output", "out/")
    assert result.status == 1
    assert written(work / "out") == ["photo-gmar-l1.png"]


# Names that are no UTF-8, and locales that are not


LATIN, GERMAN = b"latin\xe9.png", "größe-猫.png".encode()


@pytest.fixture
def photos(work: Path) -> Path:
    """A folder of photos with such names."""
    if sys.platform != "linux":
        pytest.skip("other file systems refuse such names")
    (work / "photos").mkdir()
    for name in (LATIN, GERMAN):
        save_photo(work / "photos" / os.fsdecode(name))
    return work / "photos"


def pictures(folder: Path) -> list[bytes]:
    return sorted(os.listdir(os.fsencode(folder)))


def test_names_that_are_no_utf_8(run: Run, work: Path, photos: Path, models: Path) -> None:
    result = run("photos", "--model", models / "vit", "--output", "out/", "--save-array", "a.npz")
    assert (result.status, result.err) == (0, "")
    assert pictures(work / "out") == [GERMAN[:-4] + b"-gmar-l1.png", LATIN[:-4] + b"-gmar-l1.png"]
    assert "photos/latin\\xe9.png\n" in result.out
    assert "photos/größe-猫.png\n" in result.out
    with np.load(work / "a.npz") as arrays:
        assert sorted(map(Path, arrays["image"].tolist())) == sorted(
            path.relative_to(work) for path in photos.iterdir()
        )


def test_a_locale_that_is_not_utf_8(work: Path, photos: Path, models: Path) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "captum_gmar", "explain", "photos", "--model", str(models / "vit")]
    command += ["--output", "out/", "--save-array", "a.npz"]
    done = subprocess.run(command, cwd=work, env={**os.environ, **locale}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert pictures(work / "out") == [GERMAN[:-4] + b"-gmar-l1.png", LATIN[:-4] + b"-gmar-l1.png"]
    assert b"photos/latin\\xe9.png\n" in done.stdout
    assert b"photos/gr\\xf6\\xdfe-\\u732b.png\n" in done.stdout


# Matplotlib's settings


def test_the_users_settings_change_no_picture(run: Run, work: Path, models: Path) -> None:
    arguments = ("photo.png", "--model", str(models / "vit"), "--output")
    assert run(*arguments, "out/usual.png").status == 0
    settings = ("text.usetex: True", "image.origin: lower", "font.size: 30", "backend: gtk4agg", "no such: thing")
    (work / "matplotlibrc").write_text("\n".join(settings))
    command = [sys.executable, "-m", "captum_gmar", "explain", *arguments, "out/ours.png"]
    environment = {**os.environ, "MPLBACKEND": "no-such-backend"}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    usual, ours = (np.asarray(Image.open(work / "out" / name)) for name in ("usual.png", "ours.png"))
    assert np.array_equal(ours, usual)


@pytest.mark.parametrize("module", ["evaluate", "heads"])
def test_the_other_commands_draw_alike(
    command: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    from matplotlib import rc_context, rcParams, rcParamsDefault

    from captum_gmar.cli import evaluate, heads

    sizes = []

    def work_of(*_: object) -> tuple[int, int]:
        sizes.append(rcParams["font.size"])
        return 1, 0

    monkeypatch.setattr({"evaluate": evaluate, "heads": heads}[module], "run_on_data", work_of)
    with rc_context({"font.size": 30}):
        assert command(module, "photo.png", "--model", "m", "--output", "out/new").status == 0
        assert rcParams["font.size"] == 30
    assert sizes == [rcParamsDefault["font.size"]]


# Pictures among photos


def test_pictures_of_every_format_are_not_explained_again(run: Run, work: Path, models: Path) -> None:
    for suffix in ("png", "jpg", "pdf", "svg"):
        assert run("photo.png", "--model", models / "vit", "--output", f"out/picture.{suffix}").status == 0
    assert run("out", "--model", models / "vit").is_error("out: no image files in this folder but pictures of explan")


def test_the_current_folder_is_named(run: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_gmar.cli.paths.os.access", lambda path, _: False)
    assert run("photo.png", "--model", models / "vit").is_error(f"error: {work}: is read-only")
