"""``captum-gmar explain``: what it prints and writes, and that bad input is told in one line with nothing written."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessor,
    Dinov2Config,
    Dinov2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from captum_gmar import GMARAttribution, __version__, cli, demo
from captum_gmar._files import replacing
from captum_gmar.commands import CommandError, outputs
from captum_gmar.commands.classifier import Classifier
from captum_gmar.commands.explaining import SCENE_SEED
from captum_gmar.commands.loading import load_classifier
from captum_gmar.commands.targets import find_target

SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}
LABELS = {0: "tabby, tabby cat", 1: "crane", 2: "crane", 3: "tiger cat"}


class Result(NamedTuple):
    status: int
    out: str
    err: str

    def is_error(self, *parts: str) -> bool:
        """Whether it is one line on stderr that holds the parts, with nothing said on stdout."""
        lines = self.err.splitlines()
        return (
            (self.status, self.out, len(lines)) == (2, "", 1)
            and lines[0].startswith("captum-gmar: error: ")
            and all(part in lines[0] for part in parts)
        )


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of folders with small random models."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    labels = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}
    text = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    dino = {**SMALL, "image_size": 64, "mlp_ratio": 2, "num_labels": 3}
    no_number = ViTForImageClassification(ViTConfig(**SMALL, num_labels=3))
    no_number.classifier.weight.data.fill_(torch.nan)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    classifiers = {
        "vit": ViTForImageClassification(ViTConfig(**SMALL, **labels)),
        "one": ViTForImageClassification(ViTConfig(**SMALL, num_labels=1)),
        "multi": ViTForImageClassification(ViTConfig(**SMALL, num_labels=3, problem_type="multi_label_classification")),
        "nan": no_number,
        "dino": Dinov2ForImageClassification(
            Dinov2Config(**{k: v for k, v in dino.items() if k != "intermediate_size"})
        ),
        "resnet": ResNetForImageClassification(resnet),
        "headless": ViTModel(ViTConfig(**SMALL)),
    }
    for name, model in classifiers.items():
        model.save_pretrained(folder / name)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / name)
    clip = CLIPForImageClassification(CLIPConfig(vision_config=SMALL, text_config=text, num_labels=3))
    clip.save_pretrained(folder / "clip")
    crop = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=crop).save_pretrained(folder / "clip")
    BertModel(BertConfig(**text, vocab_size=20)).save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``photo.png`` and an empty folder ``out``."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()  # what the test itself has printed
        try:
            status = cli.main(["explain", *map(str, arguments)])
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return run


def run_process(*arguments: object, folder: Path) -> Result:
    command = [sys.executable, "-m", "captum_gmar", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def save_photo(path: Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The real command, in a process of its own


def test_real_photo_and_trained_model(shared: Path, tmp_path: Path) -> None:
    model = shared / "models" / "deit-tiny-patch16-224"
    photos = [shared / "images" / "photos" / f"{name}.JPEG" for name in ("n02129604_tiger", "n02391049_zebra")]
    (tmp_path / "broken.jpg").write_bytes(photos[0].read_bytes()[:3000])
    result = run_process(
        "explain", *photos, "broken.jpg", "--model", model, "--save-array", "arrays.npz", folder=tmp_path
    )
    assert result.status == 1
    assert result.err.splitlines() == [line for line in result.err.splitlines() if "broken.jpg: cannot be read" in line]
    assert "explained  tiger, Panthera tigris (class 292), probability" in result.out
    assert "explained  zebra (class 340), probability" in result.out
    pictures = ["n02129604_tiger-gmar.png", "n02391049_zebra-gmar.png"]
    assert written(tmp_path) == sorted(["arrays.npz", "broken.jpg", *pictures])
    for picture in pictures:
        with Image.open(tmp_path / picture) as image:
            assert image.width > 2 * image.height > 800
    arrays = np.load(tmp_path / "arrays.npz")
    assert arrays["image"].tolist() == [str(photo) for photo in photos]
    assert arrays["target"].tolist() == [292, 340]
    assert arrays["logits"].shape == (2, 1000)
    assert arrays["relevance"].shape == (2, 14, 14)
    assert arrays["head_importance"].sum(-1) == pytest.approx(np.ones((2, 12)), abs=1e-5)


def test_help_and_usage_errors_load_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from captum_gmar.cli import main
wrong_size = ["explain", "a.png", "--model", "m", "--size", "0"]
for arguments in (["--help"], ["explain", "--help"], ["explain", "a.png"], wrong_size):
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
        "status 2",
        "status 2",
        "heavy []",
    ]
    assert done.stderr.splitlines() == [
        "captum-gmar: error: give images and --model, or neither for the built-in scene and model",
        "captum-gmar: error: argument --size: must be a whole number above zero. Got '0' instead.",
    ]


def test_built_in_scene_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", "--save-array", "arrays.npz"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("built-in-scene\n")
    assert "picture    built-in-scene-gmar.png" in out
    with Image.open("built-in-scene-gmar.png") as picture:
        assert picture.size[0] > 500
    scene = demo.load_scene(SCENE_SEED)
    with np.load("arrays.npz") as arrays:
        expected = GMARAttribution(demo.load_model()).relevance(scene.pixel_values, int(arrays["target"][0]))
        np.testing.assert_allclose(arrays["relevance"], expected, rtol=1e-5)
        assert arrays["label"][0] == scene.names[0]


@pytest.mark.parametrize("arguments", [["explain", "a.png"], ["explain", "--model", "somewhere"]])
def test_an_image_needs_a_model_and_a_model_an_image(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "give images and --model, or neither" in capsys.readouterr().err


def test_version_and_command_missing(tmp_path: Path) -> None:
    assert run_process("--version", folder=tmp_path) == (0, f"captum-gmar {__version__}\n", "")
    assert run_process(folder=tmp_path).is_error("required: COMMAND")


# What is printed and written


def test_output_is_told_and_written(run: Run, work: Path, models: Path) -> None:
    result = run("photo.png", "--model", models / "vit", "--target", "tiger cat")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "photo.png"
    assert sorted(line.split("  ")[-1] for line in lines[1:5]) == sorted(f"{v} (class {k})" for k, v in LABELS.items())
    assert sum(float(line.split("%")[0]) for line in lines[1:5]) == pytest.approx(100, abs=0.3)
    assert lines[5].startswith("  explained  tiger cat (class 3), probability ")
    assert lines[6] == "  picture    photo-gmar.png"
    assert written(work) == ["out", "photo-gmar.png", "photo.png"]


def test_arrays_are_those_of_the_library(run: Run, work: Path, models: Path) -> None:
    save_photo(work / "b.png", 1)
    save_photo(work / "c.png", 2)
    options = ("--norm", "l2", "--residual", "0.5", "--save-array", "out/a.npz", "--output", "out", "--batch-size", "2")
    assert run("photo.png", "b.png", "c.png", "--model", models / "vit", *options).status == 0
    model, processor = load_classifier(str(models / "vit"))
    images = [Image.open(work / name) for name in ("photo.png", "b.png", "c.png")]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    logits = model(pixels).logits.detach()
    gmar = GMARAttribution(model, norm="l2", residual=0.5)
    arrays = np.load(work / "out" / "a.npz")
    assert arrays["logits"] == pytest.approx(logits.numpy(), abs=1e-5)
    assert arrays["target"].tolist() == logits.argmax(-1).tolist()
    assert arrays["label"].tolist() == [LABELS[index] for index in logits.argmax(-1).tolist()]
    assert arrays["relevance"] == pytest.approx(gmar.relevance(pixels, logits.argmax(-1)).numpy(), abs=1e-6)
    assert arrays["head_importance"] == pytest.approx(gmar.head_importance(pixels, logits.argmax(-1)).numpy(), abs=1e-6)


def test_photo_shown_is_what_the_model_saw(models: Path, work: Path) -> None:
    for name in ("vit", "clip"):
        _, processor = model = load_classifier(str(models / name))
        classifier = Classifier(*model)
        image = Image.open(work / "photo.png")
        seen = processor(image, do_normalize=False, do_rescale=False, return_tensors="pt")["pixel_values"][0]
        shown = classifier.photo(classifier.pixel_values(image)[0])
        assert shown * 255 == pytest.approx(seen.movedim(0, -1).numpy(), abs=0.01)


@pytest.mark.parametrize("suffix", ["png", "jpg", "pdf", "svg"])
def test_format_is_that_of_the_suffix(run: Run, work: Path, models: Path, suffix: str) -> None:
    assert run("photo.png", "--model", models / "vit", "--output", f"out/picture.{suffix}").status == 0
    start = (work / "out" / f"picture.{suffix}").read_bytes()[:8]
    assert start.startswith({"png": b"\x89PNG", "jpg": b"\xff\xd8", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    assert written(work / "out") == [f"picture.{suffix}"]


def test_one_logit_has_no_probability(run: Run, work: Path, models: Path) -> None:
    out = run("photo.png", "--model", models / "one").out
    assert "LABEL_0 (class 0), logit" in out
    assert "%" not in out


def test_probabilities_of_many_labels_are_sigmoids(run: Run, work: Path, models: Path) -> None:
    out = run("photo.png", "--model", models / "multi", "--save-array", "a.npz").out
    percents = [float(line.split("%")[0]) for line in out.splitlines()[1:4]]
    expected = sorted(100 / (1 + np.exp(-np.load("a.npz")["logits"][0])), reverse=True)
    assert percents == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("model", ["vit", "dino"])
def test_size(run: Run, work: Path, models: Path, model: str) -> None:
    assert run("photo.png", "--model", models / model, "--size", "48", "--save-array", "a.npz").status == 0
    assert np.load("a.npz")["relevance"].shape == (1, 6, 6)


def test_size_keeps_the_part_of_the_photo_that_is_cropped(models: Path, work: Path) -> None:
    model, processor = load_classifier(str(models / "clip"))
    image = Image.open(work / "photo.png").resize((600, 400))
    small, large = (Classifier(model, processor, size).pixel_values(image) for size in (None, 320))
    assert large.shape == (1, 3, 320, 320)
    smaller = torch.nn.functional.interpolate(large, (32, 32), mode="area")
    assert (smaller - small).abs().mean() < 0.1


def test_folder_goes_on_after_bad_files(run: Run, work: Path, models: Path) -> None:
    photos = work / "photos"
    photos.mkdir()
    for index, name in enumerate(("a.png", "b.jpg", "d.bmp")):
        save_photo(photos / name, index)
    (photos / "c.png").write_bytes(b"\x89PNG no")
    (photos / "notes.txt").touch()
    (photos / "a-gmar.png").touch()  # of an earlier run
    result = run("photos", "missing.png", "--model", models / "vit", "--output", "out/")
    assert result.status == 1
    assert [line.split(": ")[2] for line in result.err.splitlines()] == ["missing.png", "photos/c.png"]
    assert written(work / "out") == ["a-gmar.png", "b-gmar.png", "d-gmar.png"]


def test_equal_stems_do_not_replace_each_other(run: Run, work: Path, models: Path) -> None:
    for name in ("one/a.png", "two/A.jpg", "two/a-2.png"):
        (work / name).parent.mkdir(exist_ok=True)
        save_photo(work / name)
    result = run("one", "two", "one/a.png", "--model", models / "vit", "--output", "out")
    assert result.status == 0
    assert len(written(work / "out")) == 3
    assert {f"out/{name}" for name in written(work / "out")} == {
        line.split()[1] for line in result.out.splitlines() if line.startswith("  picture")
    }


def test_warning_is_one_line(run: Run, work: Path, models: Path) -> None:
    model, processor = load_classifier(str(models / "vit"))
    model.classifier.weight.data.zero_()
    model.save_pretrained(work / "flat")
    processor.save_pretrained(work / "flat")
    result = run("photo.png", "--model", "flat")
    assert result.status == 0
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("captum-gmar: warning: All gradients")


# Bad input


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("bert", "not an image classifier: its model type is 'bert'"),
        ("headless", "not a trained image classifier: its file lacks classifier.bias and 1 more"),
        ("resnet", "cannot be explained"),
        ("nan", "NaN"),
        ("nothing", "no such folder"),
        ("vit/config.json", "must be a folder"),
        (".", "it has no config.json"),
    ],
)
def test_model_that_cannot_be_explained(run: Run, work: Path, models: Path, model: str, message: str) -> None:
    assert run("photo.png", "--model", models / model, "--output", "out/", "--save-array", "a.npz").is_error(message)
    assert written(work / "out") == []
    assert written(work) == ["out", "photo.png"]


def test_model_that_the_hub_would_have(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    result = run("photo.png", "--model", "captum-gmar-tests/no-such-model")
    assert result.is_error("no such folder, and the Hugging Face hub cannot be reached")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "cannot be loaded"),
        ("config.json", "{}", "cannot be loaded"),
        ("model.safetensors", "nothing", "cannot be loaded"),
        ("preprocessor_config.json", None, "no image processor"),
        ("model.safetensors", None, "cannot be loaded"),
    ],
)
def test_damaged_model(run: Run, work: Path, models: Path, name: str, text: str | None, message: str) -> None:
    shutil.copytree(models / "vit", work / "model")
    (work / "model" / name).unlink()
    if text is not None:
        (work / "model" / name).write_text(text)
    assert run("photo.png", "--model", "model").is_error("--model model: ", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "36"], "--size must be a multiple of the model's patch size, 8x8 pixels. Got 36 instead."),
        (["--size", "4"], "at least one patch"),
        (["--size", "-8"], "must be a whole number above zero"),
        (["--target", "4"], "--target must be from 0 to 3 for this model. Got 4 instead."),
        (["--target", "-1"], "--target must be from 0 to 3"),
        (["--target", "crane"], "'crane' names several classes: 1 (crane); 2 (crane). Pass the index."),
        (["--target", "tabi"], "Near are 0 (tabby, tabby cat)."),
        (["--device", "tpu"], "must be auto, cpu, cuda or cuda:n. Got 'tpu' instead."),
        (["--device", "cuda:99"], "--device cuda:99: PyTorch finds "),
        (["--norm", "l3"], "invalid choice: 'l3'"),
        (["--residual", "-1"], "must be a finite number, zero or more. Got '-1' instead."),
        (["--batch-size", "0"], "must be a whole number above zero"),
        (["--output", "none/a.png"], "none: no such folder to write a.png to"),
        (["--output", "none/"], "none: no such folder"),
        (["--output", "a.gif"], "--output must end in one of .png, .jpg, .jpeg, .pdf, .svg. Got 'a.gif' instead."),
        (["--output", "photo.png"], "--output must not be the image itself"),
        (["--save-array", "a.npy"], "--save-array must end in one of .npz. Got 'a.npy' instead."),
        (["--save-array", "none/a.npz"], "none: no such folder to write a.npz to"),
        (["--save-array", "folder.npz"], "folder.npz: is a folder"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_bad_option(run: Run, work: Path, models: Path, options: list[str], message: str) -> None:
    (work / "folder.npz").mkdir()
    assert run("photo.png", "--model", models / "vit", *options).is_error(message)
    assert written(work) == ["folder.npz", "out", "photo.png"]


def test_size_that_the_model_cannot_take(run: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "_interpolates", lambda *_: False)
    result = run("photo.png", "--model", models / "vit", "--size", "64")
    assert result.is_error("64*64", "32*32")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "the file is empty"), (b"text", "not an image"), (b"\x89PNG\r\n\x1a\n", "image")],
)
def test_bad_image(run: Run, work: Path, models: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (work / "bad.png").write_bytes(content)
    assert run("bad.png", "--model", models / "vit", "--output", "out/a.png").is_error("bad.png: ", message)
    assert written(work / "out") == []


def test_folder_without_images(run: Run, work: Path, models: Path) -> None:
    assert run("out", "--model", models / "vit").is_error("out: no image files in this folder")


def test_several_images_need_a_folder(run: Run, work: Path, models: Path) -> None:
    save_photo(work / "b.png")
    result = run("photo.png", "b.png", "--model", models / "vit", "--output", "a.png")
    assert result.is_error("--output must be an existing folder for 2 images. Got 'a.png' instead.")


def test_folder_in_place_of_the_picture(run: Run, work: Path, models: Path) -> None:
    (work / "photo-gmar.png").mkdir()
    assert run("photo.png", "--model", models / "vit").is_error("photo-gmar.png: is a folder")


@pytest.mark.parametrize("place", ["out", "out/a.png"])
def test_read_only(run: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (work / "out" / "a.png").write_text("as it was")
    monkeypatch.setattr(outputs.os, "access", lambda path, _: str(path) != place)
    assert run("photo.png", "--model", models / "vit", "--output", "out/a.png").is_error(f"{place}: is read-only")
    assert (work / "out" / "a.png").read_text() == "as it was"


def test_full_disk_leaves_nothing_half_written(
    run: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def save(self: Figure, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", save)
    (work / "out" / "a.png").write_text("as it was")
    result = run("photo.png", "--model", models / "vit", "--output", "out/a.png", "--save-array", "a.npz")
    assert result.is_error("out/a.png: cannot be written: No space left on device")
    assert (work / "out" / "a.png").read_text() == "as it was"
    assert written(work / "out") == ["a.png"]
    assert written(work) == ["out", "photo.png"]


def test_interrupt(run: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "logits", interrupt)
    result = run("photo.png", "--model", models / "vit")
    assert result == (130, "", "")
    assert written(work) == ["out", "photo.png"]


# The parts


def write(path: Path, text: str, error: OSError | None = None) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)
        if error:
            raise error


def test_replacing_keeps_links_and_what_was_there(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    with pytest.raises(OSError, match="disk is full"):
        write(link, "half", OSError("disk is full"))
    assert target.read_text() == "before"
    write(link, "after")
    assert link.is_symlink()
    assert target.read_text() == "after"
    assert written(tmp_path) == ["link", "target"]


@pytest.mark.parametrize(
    ("text", "index"),
    [("top1", None), ("TOP1", None), ("0", 0), ("3", 3), ("Tabby", 0), ("tabby cat", 0), ("tabby, Tabby Cat", 0)],
)
def test_target(text: str, index: int | None) -> None:
    assert find_target(text, LABELS) == index


def test_whole_label_goes_before_synonym() -> None:
    assert find_target("tank", {0: "tank, army tank", 1: "tank"}) == 1


def test_near_names_come_with_the_word_first() -> None:
    with pytest.raises(CommandError, match=r"Near are 0 \(tabby, tabby cat\); 3 \(tiger cat\)"):
        find_target("cat", LABELS)


def test_photo_of_an_image_processor_that_does_not_say_how_it_normalises(models: Path) -> None:
    model, _ = load_classifier(str(models / "vit"))
    shown = Classifier(model, object.__new__(ViTImageProcessor)).photo(torch.tensor([[[-2.0, 0.0, 2.0]]]))
    assert shown.ravel().tolist() == [0, 0.5, 1]
