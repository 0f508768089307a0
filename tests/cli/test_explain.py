"""``captum-gmar explain``: what it prints and writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar import GMARAttribution, TokenEvidence, __version__, demo
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.classifier import Classifier, load_classifier
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.cli import explain_images
from captum_gmar.cli import main as cli
from captum_gmar.cli.image_report import ExplainedImage, Question, draw_picture
from captum_gmar.cli.sources import SCENE_SEED
from captum_gmar.files.writing import save_picture
from cli.commandline import LABELS, USUAL, run_process, save_photo, written

# The real command, in a process of its own


def test_real_photo_and_trained_model(shared, tmp_path):
    model = shared / "models" / "deit-tiny-patch16-224"
    photos = [shared / "images" / "photos" / f"{name}.JPEG" for name in ("n02129604_tiger", "n02391049_zebra")]
    (tmp_path / "broken.jpg").write_bytes(photos[0].read_bytes()[:3000])
    result = run_process(
        "explain", *photos, "broken.jpg", "--model", model, "--save-array", "arrays.npz", folder=tmp_path
    )
    assert result.status == 1
    assert result.err.splitlines() == [line for line in result.err.splitlines() if "broken.jpg cannot be read" in line]
    assert "explained  tiger, Panthera tigris (class 292), probability" in result.out
    assert "explained  zebra (class 340), probability" in result.out
    pictures = [f"n02129604_tiger-{USUAL}.png", f"n02391049_zebra-{USUAL}.png"]
    assert written(tmp_path) == sorted(["arrays.npz", "broken.jpg", *pictures])
    for picture in pictures:
        with Image.open(tmp_path / picture) as image:
            assert image.width > 2 * image.height > 800
    arrays = np.load(tmp_path / "arrays.npz")
    assert arrays["image"].tolist() == [str(photo) for photo in photos]
    assert arrays["target"].tolist() == [292, 340]
    assert arrays["logits"].shape == (2, 1000)
    assert arrays["method"].tolist() == ["token-evidence", "gmar-l1"]
    assert arrays["relevance"].shape == (2, 2, 14, 14)
    assert arrays["head_importance"].sum(-1) == pytest.approx(np.ones((2, 12)), abs=1e-5)


def test_help_and_usage_errors_load_nothing_heavy(tmp_path):
    code = """
import sys
from captum_gmar.cli.main import main
image = ["explain", "a.png", "--model", "m"]
wrong = (["--size", "0"], ["--methods", "gmar"], ["--tokens", "3"], ["--methods", "legrad", "--tokens", "cls"])
for arguments in (["--help"], ["explain", "--help"], ["explain", "a.png"], *(image + options for options in wrong)):
    try:
        print("status", main(arguments))
    except SystemExit as end:
        print("status", end.code)
heavy = {"torch", "captum", "transformers", "matplotlib", "numpy", "PIL"} & set(sys.modules)
print("heavy", sorted(heavy))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith(("status", "heavy"))] == [
        "status 0",
        "status 0",
        *5 * ["status 2"],
        "heavy []",
    ]
    assert done.stderr.count("captum-gmar: error: ") == len(done.stderr.splitlines()) == 5


def test_built_in_scene_without_network(tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", "--save-array", "arrays.npz"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("built-in-scene\n")
    assert f"picture    built-in-scene-{USUAL}.png" in out
    with Image.open(f"built-in-scene-{USUAL}.png") as picture:
        assert picture.size[0] > 500
    scene = demo.load_scene(SCENE_SEED)
    with np.load("arrays.npz") as arrays:
        expected = TokenEvidence(demo.load_model()).relevance(scene.pixel_values, int(arrays["target"][0]))
        np.testing.assert_allclose(arrays["relevance"][0], expected, rtol=1e-5)
        assert arrays["label"][0] == scene.names[0]


def test_a_page_of_classes(tmp_path):
    path = tmp_path / "page.html"
    assert cli.main(["explain", "--output", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    names = demo.load_scene(SCENE_SEED).names
    assert f"<title>Evidence for each class: {names[0]}</title>" in page
    assert all(f'"name":"{name}"' in page for name in ("token-evidence", "gmar-l1"))
    assert len(page) < 300_000
    assert '"removal":"blur (sigma 10)"' in page
    assert cli.main(["explain", "--output", str(path), "--no-proof"]) == 0
    assert '"removal"' not in path.read_text(encoding="utf-8")
    assert cli.main(["explain", "--output", str(path), "--no-proof", "--passes", "3"]) == 0
    assert '"name":"token-evidence@3"' in path.read_text(encoding="utf-8")


def test_version_and_command_missing(tmp_path):
    assert run_process("--version", folder=tmp_path) == (0, f"captum-gmar {__version__}\n", "")
    assert run_process(folder=tmp_path).is_error("required: COMMAND")


# What is printed and written


@pytest.mark.fault
def test_a_film_is_told_to_be_read_to_its_first_frame(run, work, models):
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    frames[0].save(work / "film.gif", save_all=True, append_images=frames[1:])
    frames[0].save(work / "still.gif")
    for name, lines in (("film.gif", ["  seen       the first of 2 frames"]), ("still.gif", [])):
        result = run(name, "--model", models / "vit", "--output", "out/")
        assert [line for line in result.out.splitlines() if "  seen  " in line] == lines


def test_output_is_told_and_written(run, work, models):
    result = run("photo.png", "--model", models / "vit", "--target", "tiger cat")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "photo.png"
    assert sorted(line.split("  ")[-1] for line in lines[1:5]) == sorted(f"{v} (class {k})" for k, v in LABELS.items())
    assert sum(float(line.split("%")[0]) for line in lines[1:5]) == pytest.approx(100, abs=0.3)
    assert lines[5].startswith("  explained  tiger cat (class 3), probability ")
    assert lines[6:] == ["  methods    token-evidence, gmar-l1", f"  picture    photo-{USUAL}-tiger-cat.png"]
    assert written(work) == ["out", f"photo-{USUAL}-tiger-cat.png", "photo.png"]


def test_arrays_are_those_of_the_library(run, work, models, loaded):
    save_photo(work / "b.png", 1)
    save_photo(work / "c.png", 2)
    options = ("--save-array", "out/a.npz", "--output", "out", "--batch-size", "2")
    result = run("photo.png", "b.png", "c.png", "--model", models / "vit", *options)
    assert (result.status, result.out.splitlines()[-1]) == (0, "out/a.npz: arrays of 3 images")
    model, processor = loaded
    images = [Image.open(work / name) for name in ("photo.png", "b.png", "c.png")]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    logits = model(pixels).logits.detach()
    gmar = GMARAttribution(model)
    arrays = np.load(work / "out" / "a.npz")
    assert arrays["logits"] == pytest.approx(logits.numpy(), abs=1e-5)
    assert arrays["target"].tolist() == logits.argmax(-1).tolist()
    assert arrays["label"].tolist() == [LABELS[index] for index in logits.argmax(-1).tolist()]
    assert arrays["relevance"][1] == pytest.approx(gmar.relevance(pixels, logits.argmax(-1)).numpy(), abs=1e-6)
    assert arrays["head_importance"] == pytest.approx(gmar.head_importance(pixels, logits.argmax(-1)).numpy(), abs=1e-6)


def test_one_logit_has_no_probability(run, work, models):
    out = run("photo.png", "--model", models / "one").out
    assert "LABEL_0 (class 0), logit" in out
    assert "%" not in out


def test_probabilities_of_many_labels_are_sigmoids(run, work, models):
    out = run("photo.png", "--model", models / "multi", "--save-array", "a.npz").out
    percents = [float(line.split("%")[0]) for line in out.splitlines()[1:4]]
    expected = sorted(100 / (1 + np.exp(-np.load("a.npz")["logits"][0])), reverse=True)
    assert percents == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("model", ["vit", "dino"])
def test_size(run, work, models, model):
    assert run("photo.png", "--model", models / model, "--size", "48", "--save-array", "a.npz").status == 0
    assert np.load("a.npz")["relevance"].shape == (2, 1, 6, 6)


def test_folder_goes_on_after_bad_files(run, work, models):
    photos = work / "photos"
    photos.mkdir()
    for index, name in enumerate(("a.png", "b.jpg", "d.bmp")):
        save_photo(photos / name, index)
    (photos / "c.png").write_bytes(b"\x89PNG no")
    (photos / "notes.txt").touch()
    result = run("photos", "missing.png", "--model", models / "vit", "--output", "out/")
    assert result.status == 1
    assert [line.split()[2].rstrip(":") for line in result.err.splitlines()] == ["missing.png", "photos/c.png"]
    assert written(work / "out") == [f"a-{USUAL}.png", f"b-{USUAL}.png", f"d-{USUAL}.png"]


def test_a_picture_that_cannot_be_written_fails_alone(run, work, models, monkeypatch):
    def save(figure, path, note):
        if path.stem.startswith("photo"):
            raise OSError(f"{path}: cannot be written: No space left on device")
        save_picture(figure, path, note)

    save_photo(work / "b.png")
    monkeypatch.setattr(explain_images, "save_picture", save)
    result = run("photo.png", "b.png", "--model", models / "vit", "--output", "out/")
    assert (result.status, written(work / "out")) == (1, [f"b-{USUAL}.png"])
    assert result.err == f"captum-gmar: error: out/photo-{USUAL}.png: cannot be written: No space left on device\n"
    assert result.out.startswith("b.png\n")


def test_equal_stems_do_not_replace_each_other(run, work, models):
    for name in ("one/a.png", "two/A.jpg", "two/a-2.png"):
        (work / name).parent.mkdir(exist_ok=True)
        save_photo(work / name)
    result = run("one", "two", "one/a.png", "--model", models / "vit", "--output", "out")
    assert result.status == 0
    assert len(written(work / "out")) == 3
    assert {f"out/{name}" for name in written(work / "out")} == {
        line.split()[1] for line in result.out.splitlines() if line.startswith("  picture")
    }


def test_an_image_that_cannot_be_explained_does_not_cost_its_batch(run, work, models, damage):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save_photo(work / name, seed)
    damage(work / "a.png")
    result = run("a.png", "b.png", "c.png", "--model", models / "vit", "--output", "out", "--save-array", "a.npz")
    assert result.status == 1
    (line,) = result.err.splitlines()
    assert line.startswith("captum-gmar: error: a.png: ")
    assert "NaN" in line
    assert written(work / "out") == [f"b-{USUAL}.png", f"c-{USUAL}.png"]
    assert np.load(work / "a.npz")["image"].tolist() == ["b.png", "c.png"]


# Several classes of each image


@pytest.mark.parametrize("contrast", [None, 3])
def test_most_likely_classes_side_by_side(run, work, models, loaded, contrast):
    save_photo(work / "b.png", 1)
    options = (
        "--target",
        "top3",
        "--methods",
        "gmar-l1",
        "--save-array",
        "a.npz",
        *(() if contrast is None else ("--contrast", contrast)),
    )
    result = run("photo.png", "b.png", "--model", models / "vit", *options)
    assert (result.status, result.err) == (0, "")
    mark = "top3" if contrast is None else "top3-rather-than-3"
    pictures = [f"b-gmar-l1-{mark}.png", f"photo-gmar-l1-{mark}.png"]
    assert written(work) == sorted(["a.npz", "b.png", "out", "photo.png", *pictures])
    model, processor = loaded
    pixels = processor([Image.open(name) for name in ("photo.png", "b.png")], return_tensors="pt")["pixel_values"]
    logits = model(pixels).logits.detach()
    classes = [[k for k in own.argsort(descending=True).tolist() if k != contrast][:3] for own in logits]
    gmar, arrays = GMARAttribution(model), np.load("a.npz")
    assert arrays["target"].tolist() == classes
    assert arrays["label"].tolist() == [[LABELS[k] for k in own] for own in classes]
    assert arrays["relevance"].shape == (1, 2, 3, 4, 4)
    assert arrays["head_importance"].shape == (2, 3, 2, 2)
    for place in range(3):
        asked = {"target": [own[place] for own in classes], "contrast": contrast}
        assert arrays["relevance"][0, :, place] == pytest.approx(gmar.relevance(pixels, **asked).numpy(), abs=1e-6)
        heads = gmar.head_importance(pixels, **asked).numpy()
        assert arrays["head_importance"][:, place] == pytest.approx(heads, abs=1e-6)
    lines = [line for line in result.out.splitlines() if ", probability" in line and "contrast" not in line]
    told = [line.removeprefix("  explained").strip().partition(", probability")[0] for line in lines]
    assert told == [f"{LABELS[k]} (class {k})" for own in classes for k in own]
    assert [line[:11].strip() for line in lines] == 2 * ["explained", "", ""]


def test_methods_by_classes(run, work, models):
    """Each row of the arrays is what the method gives by itself; pictures and bibliography name both."""
    options = ("--model", models / "vit", "--target", "top2", "--output", "out/")
    for names in ("gmar-l1,legrad", "gmar-l1", "legrad"):
        files = ("--save-array", f"{names}.npz", "--cite", "a.bib")
        assert run("photo.png", *options, "--methods", names, *files).status == 0
    both, *single = (np.load(f"{names}.npz")["relevance"] for names in ("gmar-l1,legrad", "gmar-l1", "legrad"))
    assert both.shape == (2, 1, 2, 4, 4)
    np.testing.assert_allclose(both, np.concatenate(single), atol=1e-6)
    assert written(work / "out")[0] == "photo-comparison-gmar-l1-legrad-top2.png"
    first, *entries = Path("a.bib").read_text().split("\n\n")
    assert first.startswith("Caption: Heatmaps of legrad \\cite{bousselham2025legrad}. Images: 1. Where relevance can")
    assert [entry.partition(",")[0] for entry in entries] == ["@inproceedings{bousselham2025legrad"]


def test_classes_are_named_above_their_maps(loaded, pixels):
    """Also where two classes have one name, as cranes do."""
    logits, relevance = torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.arange(32.0).view(2, 4, 4)
    explained = ExplainedImage(Path("folder/photo.png"), logits, [1, 2], relevance, None)
    classifier = Classifier(*loaded)
    view = PhotoView(classifier.photo(pixels[0]), None)
    figure = draw_picture(explained, Question(("gmar-l1",), None, 0, (), top=2), view, classifier)
    assert figure.get_suptitle().replace("\n", " ") == (
        "photo.png: the 2 most likely classes, rather than tabby, tabby cat (class 0), probability 13.4%, explained by "
        "gmar-l1"
    )
    names = [panel.get_title().replace("\n", " ") for panel in figure.axes]
    assert names == ["photo", "crane (class 1), probability 36.6%", "crane (class 2), probability 36.6%"]
    maps = figure.axes[1:]
    assert [panel.texts[-1].get_text() for panel in maps] == ["1.5e+03", "3.95e+03"]
    label, caveat = "relevance per patch, % of all tokens", METHODS["gmar-l1"].caveat
    assert maps[0].get_xlabel().replace("\n", " ") == f"{label} {caveat}"
    assert maps[1].get_xlabel().replace("\n", " ") == f"{label} shown above its least, 1.6e+03 {caveat}"


def test_top1_is_the_most_likely_class(run, work, models):
    usual, top1 = (f"{name}.npz" for name in ("usual", "top1"))
    assert run("photo.png", "--model", models / "vit", "--save-array", usual).err == ""
    assert run("photo.png", "--model", models / "vit", "--target", "TOP1", "--save-array", top1).err == ""
    first, other = (dict(np.load(name)) for name in (usual, top1))
    assert (first["target"].shape, first["label"].shape, first["relevance"].shape) == ((1,), (1,), (2, 1, 4, 4))
    assert first["head_importance"].shape == (1, 2, 2)
    assert all(np.array_equal(first[name], other[name]) for name in first)


def test_warning_is_one_line(run, work, models):
    classifier = load_classifier(models / "vit")
    classifier.model.classifier.weight.data.zero_()
    classifier.model.save_pretrained(work / "flat")
    classifier.processor.save_pretrained(work / "flat")
    result = run("photo.png", "--model", "flat")
    assert result.status == 0
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("captum-gmar: warning: All gradients")


# One pass


@pytest.mark.parametrize(
    ("names", "count"),
    [("gmar-l1", 1), ("attention-evidence", 1), ("rollout", 1), ("gmar-l1,legrad", 2), ("saliency", 2)],
)
def test_the_model_runs_once_for_a_method_of_ours(run, work, models, passes, names, count):
    """Class, map, logits and head importance are of that pass; a method of Captum's needs one of its own."""
    save_photo(work / "b.png", 1)
    arguments = ("photo.png", "b.png", "--model", models / "vit", "--methods", names)
    assert run(*arguments, "--output", "out", "--save-array", "a.npz").status == 0
    assert passes == [2] * count


# Which pictures are written


def test_no_folder_is_made_for_nothing(run, work, models):
    (work / "bad.png").write_text("no image")
    assert run("bad.png", "--model", models / "vit", "--output", "new/").is_error(
        "bad.png cannot be read: not an image"
    )
    assert not (work / "new").exists()


# Texts as classes


def test_texts_are_explained_side_by_side(run, work, models):
    options = ["photo.png", "--model", models / "clip-of-texts", "--text", "a cat", "--text", "dog"]
    result = run(*options, "--save-array", "arrays.npz")
    assert result.status == 0, result.err
    assert "a cat (class 0), probability" in result.out
    assert "photo-token-evidence-of-a-cat-dog.png" in written(work)
    with np.load("arrays.npz") as arrays:
        classifier = load_classifier(models / "clip-of-texts", texts=["a cat", "dog"])
        pixels = classifier.pixel_values(Image.open("photo.png"))
        assert sorted(arrays["label"][0].tolist()) == ["a cat", "dog"]
        for target, relevance in zip(arrays["target"][0].tolist(), arrays["relevance"][0, 0], strict=True):
            expected = TokenEvidence(classifier.model).relevance(pixels, target)[0]
            np.testing.assert_allclose(relevance, expected, rtol=1e-4, atol=1e-7)
    assert run(*options, "--methods", "gradient-rollout", "--target", "a cat", "--contrast", "dog").status == 0
