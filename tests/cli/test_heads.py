"""``captum-gmar heads``, end to end: against the library's function, interrupted, and on bad input."""

import json

import pytest
from PIL import Image

from captum_gmar import GMARAttribution
from cli.commandline import as_torchrun, save_table, written
from cli.forked import run_forked

IMAGES = 10
BATCHES = ("--batch-size", 5)


pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def data(work):
    return save_table(work, IMAGES)


@pytest.fixture
def heads(command, models):
    """Return a function that runs the command on the model "vit" unless another is given."""
    return lambda *arguments, model="vit": command("heads", *arguments, *(["--model", models / model] if model else []))


def content(folder):
    """The table, which must not change from run to run."""
    return (folder / "heads.csv").read_text()


def test_several_processes_give_what_one_gives(data, heads, models):
    """Images that cannot be read are told once."""
    with data.open("a") as file:
        file.write("\nnone.png,0")
    words = list(map(str, ("heads", data, "--model", models / "vit", *BATCHES, "--output", "shared")))
    (data.parent / "said").touch()
    ends = run_forked(words, data.parent, copies=as_torchrun(2), out=str(data.parent / "said"))
    assert [ended.status for ended in ends] == [1, 0], ends
    assert [line for ended in ends for line in ended.error.splitlines() if "none.png" in line] == [
        "captum-gmar: error: none.png: cannot be read: no such file. Check the path."
    ]
    said = [line for line in (data.parent / "said").read_text().splitlines() if not line.startswith("[Gloo]")]
    assert said[-1] == f"{IMAGES} images scored for the predicted class: shared/heads.md"
    assert len([line for line in said if line.startswith("## ")]) == 2  # the tables are printed once
    assert heads(data, *BATCHES, "--output", "alone").status == 1
    assert content(data.parent / "shared") == content(data.parent / "alone")
    assert len(list((data.parent / "shared" / "journal").glob("process-*.jsonl"))) == 2


def test_results(data, heads, drawn):
    heads(data, *BATCHES, "--scores", "all", "--output", "results")
    folder = data.parent / "results"
    assert [name for name in written(folder) if not name.startswith(".")] == [
        *("heads.csv", "heads.md", "heads.png", "journal", "settings.json")
    ]
    report = (folder / "heads.md").read_text()
    for part in ("gmar-l1, share of its layer", "mask-gradient, nats", "10 images", "predicted class"):
        assert part in report
    with Image.open(folder / "heads.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**24) or ()) > 50
    assert json.loads((folder / "settings.json").read_text())["settings"]["scores"][0] == "gmar-l1"


def test_one_image(work, heads, classifier, pixels, drawn):
    done = heads("photo.png", "--scores", "gmar-l2", "--target", "tiger cat")
    assert done.status == 0, done.err
    assert written(work) == ["out", "photo-heads", "photo.png"]
    expected = GMARAttribution(classifier.model, norm="l2").head_importance(pixels, target=3)[0]
    *table, _, last = done.out.splitlines()
    assert last == "1 image scored for tiger cat (class 3): photo-heads/heads.md"
    cells = [cell.strip() for cell in table[-1].strip("|").split("|")]
    assert cells == ["1", f"{expected[1, 0]:.3g}", f"{expected[1, 1]:.3g}"]
    assert "±" not in done.out
    with Image.open(work / "photo-heads" / "heads.png") as picture:
        assert min(picture.size) > 300
    assert heads("photo.png").is_error("photo-heads must hold results of the same settings, but scores is")


def test_built_in_scenes(work, heads):
    done = heads("--limit", 4, "--scores", "gmar-l1", model=None)
    assert done.status == 0, done.err
    assert written(work) == ["built-in-scenes-heads", "out", "photo.png"]
    table = [line for line in done.out.splitlines() if line.startswith("| 0 ")]
    assert sum(float(cell) for cell in table[0].split("|")[2:-1]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nan", "gmar-l1: "),
        ("resnet", "gmar-l1: ResNetForImageClassification must have a config.patch_size"),
    ],
)
def test_bad_models(data, heads, model, expected):
    done = heads(data, "--output", "results", model=model)
    assert (done.status, done.out) == (2, "")
    assert expected in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("captum-gmar: error: ")
