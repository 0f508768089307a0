"""Every option of every command, of a value that cannot be: one line that names it, with nothing written."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from installed import HAS_TRANSFORMERS_5
from PIL import Image

from cli.commandline import BASES, LONG, MODEL, written

pytestmark = pytest.mark.fault

WHOLE = ("-1", "many", "1.5", "", "1e3", LONG)  # none of them a whole number
NUMBERS = [
    ("explain", "--passes"),
    *((command, option) for command in BASES for option in ("--size", "--batch-size")),
    *(("compare", "--steps"), ("compare", "--ig-steps"), ("evaluate", "--steps")),
    *((command, option) for command in ("evaluate", "heads") for option in ("--limit", "--seed")),
]
CLASSES = {
    "4": "must be from 0 to 3 for this model",
    "-1": "must be from 0 to 3",
    "9" * 30: "must be from 0 to 3",
    "crane": "must be one class, but got 'crane': 1 (crane); 2 (crane)",
    "tabi": "Try 0 (tabby",
    "1.5": "but got '1.5'",
    "": "but got ''",
    LONG: f"but got '{LONG}'",
}
LISTS = ("", ",", "rollout,nothing", "rollout,,legrad", LONG)
EVERY = {  # of every command
    "--device": ["tpu", "cuda:99", "", "cuda:-1"],
    "--size": ["36", "4", "16000000"],
    "--batch-size": [None],
    "--model": [None, "", LONG, f"{LONG}/model"],
    "--wrong": [None],
}
OWN = {
    "explain": {"--target": ["top0", "top-1", "topx"], "--methods": ["gmar", "nothing", LONG]},
    "compare": {"--removal": ["white", "", "blur,zero"], "--methods": LISTS},
    "evaluate": {
        "--metrics": ["", "accuracy"],
        "--removal": ["", "white"],
        "--target": ["3", ""],
        "--steps": ["17"],
        "--precision": ["float16", ""],
        "--methods": LISTS,
    },
    "heads": {"--scores": ["", "nothing", "entropy,nothing", LONG], "--target": ["label"]},
}
FILES = [("explain", "--output", ".png"), ("explain", "--save-array", ".npz"), ("compare", "--output", ".png")]
FILES += [("compare", "--save-table", ".csv")]


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_numbers(refuses, name, option):
    is_seed = option == "--seed"
    for value in WHOLE if is_seed else (*WHOLE, "0"):
        says = f"argument {option}: must be a whole number{', zero or more' if is_seed else ' above zero'}"
        refuses(name, *BASES[name], option, value, says=says)


@pytest.mark.parametrize("name", BASES)
def test_values(refuses, name):
    for option, values in [*EVERY.items(), *OWN[name].items()]:
        for value in values:
            refuses(name, *BASES[name], option, *([] if value is None else [value]), says=option)


@pytest.mark.parametrize(
    ("name", "option"), [*((n, "--target") for n in BASES if n != "evaluate"), ("explain", "--contrast")]
)
def test_classes(refuses, name, option):
    for value, says in CLASSES.items():
        refuses(name, *BASES[name], option, value, says=says)


@pytest.mark.parametrize(("name", "option", "ending"), FILES)
def test_files_to_write(refuses, command, place, name, option, ending):
    for place_name in (f"{LONG}{ending}", f"{LONG}/a{ending}"):
        refuses(name, *BASES[name], option, place_name, says="File name too long")
    refuses(name, *BASES[name], option, f"photo.png/a{ending}", says="photo.png cannot be written: ")
    refuses(name, *BASES[name], option, f"a\0b{ending}", says=f"{option} must hold no null character")
    refuses(name, *BASES[name], option, "photo.txt", says=f"{option} must end in ")
    if option != "--output":
        (place / f"folder{ending}").mkdir()
        assert command(name, *BASES[name], option, f"folder{ending}").is_error(
            f"folder{ending} cannot be written: it is a folder"
        )


@pytest.mark.parametrize("name", ["evaluate", "heads"])
def test_folders_of_results(refuses, name):
    for value, says in {
        LONG: "too long",
        "": "--output",
        "photo.png/results": "photo.png",
        "photos.csv": "photos.csv",
    }.items():
        refuses(name, *BASES[name], "--output", value, says=says)
    refuses(name, *BASES[name], "--output", "a\0b", says="null")


@pytest.mark.parametrize("name", BASES)
def test_data_that_cannot_be_read(refuses, name):
    values = (
        "",
        "none.png",
        LONG,
        f"{LONG}.png",
        f"{LONG}/a.png",
        "photo.png/a.png",
        "out",
        "pipe.png",
        "loop.png",
        "dangling.png",
        "photo.txt",
    )
    for value in (*values, "broken.png", os.devnull):
        refuses(name, value, *BASES[name][1:], says=value)
    refuses(name, "a\0b.png", *BASES[name][1:], says="null" if name == "compare" else "no such file")


@pytest.fixture
def closed(place, models, monkeypatch):
    """The same folder where everybody may enter it, with a folder and a photo in it that the caller may not open."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "place"
        shutil.copytree(place / "photos", folder / "photos")
        shutil.copytree(models / "vit", folder / "vit")
        shutil.copytree(place / "photos", folder / "closed")
        shutil.copy(place / "photos.csv", folder)
        shutil.copy(place / "photo.png", folder)
        shutil.copy(place / "photo.png", folder / "secret.png")
        for path in (Path(name), folder, *folder.rglob("*")):
            path.chmod(0o777)
        for path in (folder / "closed", folder / "secret.png"):
            path.chmod(0)
        monkeypatch.chdir(folder)
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)  # nobody
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            (folder / "closed").chmod(0o777)


def test_folders_and_files_that_may_not_be_opened(closed, command):
    calls = [
        (name, data, *base[1:]) for name, base in BASES.items() for data in ("closed", "closed/0.png", "secret.png")
    ]
    calls += [(name, *BASES[name], option, f"closed/a{ending}") for name, option, ending in FILES]
    calls += [(name, *BASES[name], "--output", "closed/results") for name in ("evaluate", "heads")]
    calls += [(name, *BASES[name], "--output", "closed") for name in ("explain", "evaluate", "heads")]
    for words in calls:
        done = command(*words)
        assert done.is_error(), (words, done)
        assert "closed" in done.err or "secret" in done.err, (words, done)
    assert written(closed) == ["closed", "photo.png", "photos", "photos.csv", "secret.png", "vit"]


def test_pictures_of_any_shape_are_explained(place, command):
    least = 1 if HAS_TRANSFORMERS_5 else 4  # of fewer pixels, older image processors cannot tell channels from rows
    for name, size in {"a pixel.png": (least, least), "-thin.png": (2000, least), "ü 写真 🐯.png": (60, 40)}.items():
        Image.effect_noise(size, 90).save(place / "photos" / name)
    frames = [Image.effect_noise((60, 40), 90) for _ in range(3)]
    frames[0].save(place / "photos" / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(place / "photos" / "a jpeg.png", "jpeg")
    done = command("explain", "photos", *MODEL, "--output", "out/", "--target", "0")
    assert (done.status, done.err) == (0, "")
    assert len(list((place / "out").iterdir())) == 7
    assert command("explain", "photos/-thin.png", *MODEL, "--output", "out/").status == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nul.csv", "path,label\nphotos/\x000.png,0\n", "photos/"),
        ("long.csv", f"path,label\n{LONG}.png,0\n", "File name too long"),
        ("class.csv", "path,label\nphotos/0.png,notaclass\n", "must be an index or a label, but got 'notaclass'"),
        ("range.csv", "path,label\nphotos/0.png,7\n", "must be from 0 to 3 for this model, but got 7"),
        ("list.json", '[{"path": "photos/0.png", "label": [0]}]', "must be an index or a label, but got '[0]'"),
        ("nolabel.csv", "path,label\nphotos/0.png,\n", "requires labels of all images"),
    ],
)
def test_tables_of_what_is_not_there(place, command, name, content, says):
    (place / name).write_text(content)
    for command_name in ("evaluate", "heads"):
        done = command(command_name, name, *BASES[command_name][1:], "--target", "label")
        lines = [line for line in done.err.splitlines() if line.startswith("captum-gmar: error: ")]
        assert done.status == 2
        assert len(lines) == len([line for line in done.err.splitlines() if "progress" not in line]) == 1, done.err
        assert says in lines[0]
        assert not (place / "results" / "summary.md").exists()
