"""``captum-gmar explain`` on models that detect, segment, or classify videos or sounds."""

import shutil
import wave

import numpy as np
import pytest
import transformers
from PIL import Image, ImageSequence
from torch.testing import assert_close

from captum_gmar import TokenEvidence
from captum_gmar.classifier import find_query, find_region
from captum_gmar.classifier.vision_task import VisionTask, load_for_task
from captum_gmar.cli import explain_tasks
from cli.commandline import save_photo, written

pytestmark = pytest.mark.fault


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a photo, a mask, a clip and a tone."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png")  # 60x40
    mask = np.zeros((40, 60), np.uint8)
    mask[:20] = 255
    Image.fromarray(mask).save("mask.png")
    noise = np.random.default_rng(0).integers(0, 256, (6, 30, 40, 3), dtype=np.uint8)
    first, *others = map(Image.fromarray, noise)
    first.save("clip.gif", save_all=True, append_images=others, duration=80)
    save_tone(tmp_path / "tone.wav", 6000)
    return tmp_path


def save_tone(path, samples, rate=16000):
    with wave.open(str(path), "wb") as tone:
        tone.setparams((1, 2, rate, 0, "NONE", ""))
        tone.writeframes((np.sin(np.arange(samples) * 4800 / rate) * 2e4).astype(np.int16).tobytes())


@pytest.fixture
def worse_place(place):
    """The same, with what cannot be explained, and folders."""
    save_tone(place / "one.wav", 1)
    (place / "cut.gif").write_bytes((place / "clip.gif").read_bytes()[:9000])
    for name in ("sounds", "films"):
        (place / name).mkdir()
    save_tone(place / "sounds" / "a.wav", 6000)
    shutil.copy(place / "clip.gif", place / "films")
    return place


@pytest.fixture
def maps(monkeypatch):
    """What was drawn last, of images."""
    drawn = {}

    def visualize(relevance, photo, **options):
        drawn.update(options, relevance=relevance)
        return transformers, None

    monkeypatch.setattr(explain_tasks, "visualize_attribution", visualize)
    monkeypatch.setattr(explain_tasks, "save_picture", lambda figure, path, note: path.touch())
    return drawn


def test_an_object_in_a_box(task_models, place, run, maps):
    detector = load_for_task(task_models / "detector", VisionTask.DETECTION)
    pixels = detector.pixel_values(Image.open("photo.png").convert("RGB"))
    found = find_query(detector.model(pixels), 3, (40, 60), box=(40, 10, 60, 30), threshold=0)
    options = ["--box", "40,10,60,30", "--threshold", "0", "--output", "map.png"]
    result = run("photo.png", "--model", task_models / "detector", *options)
    assert result.status == 0, result.err
    assert f"  query      {found.query}, which sees it in the box" in result.out
    relevance = TokenEvidence(detector.model).relevance(pixels, target=found.target)
    assert_close(maps["relevance"], 100 * relevance[0])
    assert maps["box"] == pytest.approx(found.box)  # in pixels of the photo
    assert maps["crop"] == pytest.approx((0, 0, 60, 40))


def test_a_class_over_a_mask_at_a_point_and_where_it_is_predicted(task_models, place, run, maps):
    segmenter = load_for_task(task_models / "segmenter", VisionTask.SEGMENTATION)
    photo, mask = (Image.open(name).convert("RGB") for name in ("photo.png", "mask.png"))
    for question, options in (
        ({"label": "dog", "mask": mask}, ["--mask", "mask.png", "--target", "dog"]),
        ({"point": (10, 39)}, ["--point", "10,39"]),
        ({}, []),
    ):
        result = run("photo.png", "--model", task_models / "segmenter", *options, "--output", "out/")
        assert result.status == 0, result.err
        region = find_region(segmenter, photo, **question)
        relevance = TokenEvidence(segmenter.model, forward_func=region.mean_logit).relevance(region.pixels)
        assert_close(maps["relevance"], 100 * relevance[0])
        assert_close(maps["region"], region.region)
        assert f"explained  {segmenter.labels[region.label]} (class {region.label}), its mean logit over" in result.out
    marks = ("-at-10.0-39.0", "-dog-over-mask", "")
    assert written(place / "out") == [f"photo-token-evidence{mark}.png" for mark in marks]


def test_what_cropping_leaves_out_is_said(task_models, place, run, maps):
    model = ["--model", task_models / "cropping segmenter", "--output", "out/"]
    Image.new("RGB", (150, 50)).save("wide.png")
    # Resized to 216x72, of which the middle 64x64 is seen.
    assert "  seen       26% of the photo, from 53,3 to 97,47 in pixels\n" in run("wide.png", *model).out
    assert run("wide.png", *model, "--point", "20,25").is_error("point must be in the part of the photo that the model")


def test_a_clip_as_a_film_and_a_tone(task_models, place, run):
    result = run(
        "clip.gif", "--model", task_models / "film", "--output", "map.gif", "--target", "dog", "--contrast", "cat"
    )
    assert result.status == 0, result.err
    assert "explained  dog (class 1)" in result.out
    assert "contrast   cat (class 0)" in result.out
    with Image.open("map.gif") as film:
        sizes = [frame.size for frame in ImageSequence.Iterator(film)]
    assert len(sizes) == 4
    assert all(width == 480 and height > 480 * 30 / 40 for width, height in sizes)  # the clip's shape, and a caption
    result = run("tone.wav", "--model", task_models / "sound", "--target", "bird")
    assert result.status == 0, result.err
    assert written(place) == [
        *("clip.gif", "map.gif", "mask.png", "photo.png", "tone-token-evidence-bird.png", "tone.wav")
    ]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("detector", "photo.png --box 9,0,3,3", "must be a box with X0 < X1 and Y0 < Y1"),
        ("detector", "photo.png --box 9,0,3", "must be X0,Y0,X1,Y1, the left, top, right and bottom of a box"),
        ("detector", "photo.png --target cat --threshold 1", "model must detect class 0"),
        ("detector", "photo.png --threshold 3", "must be a number from 0 to 1"),
        ("detector", "photo.png --mask mask.png", "--mask requires another model, but the model detects objects"),
        ("detector", "photo.png --methods rollout", "as no other is defined for it, but got rollout"),
        ("detector", "photo.png --target top3", "--target must be a class: the model detects objects, but got top3"),
        ("detector", "photo.png --contrast cat", "--contrast requires another model, but the model detects objects"),
        ("segmenter", "photo.png --mask tone.wav", "tone.wav cannot be read: not an image"),
        (
            "segmenter",
            "photo.png --point 6,3 --mask mask.png",
            "--mask cannot be combined with --point. Pass one of both",
        ),
        ("segmenter", "photo.png --batch-size 2", "--batch-size requires another model, but the model segments images"),
        ("film", "photo.png", "a video must hold at least the 4 frames that the model takes, but got 1"),
        ("film", "clip.gif --box 1,1,2,2", "--box requires another model, but the model classifies videos"),
        ("sound", "photo.png", "photo.png cannot be read as a WAV file"),
        ("sound", "one.wav", "one.wav: a sound must last at least 0.025 seconds, but got 6.25e-05."),
        ("sound", "tone.wav --target 1 --contrast 1", "tone.wav: contrast must be another class than the target"),
        ("film", "cut.gif", "cut.gif cannot be read as a video: image file is truncated"),
        ("film", "sounds", "sounds must hold video files, but holds none"),
        ("sound", "films", "films must hold sound files, but holds none"),
        ("sound", "tone.wav --output map.gif", "--output must end in one of .png"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(model, arguments, message, task_models, worse_place, run):
    before = written(worse_place)
    result = run(*arguments.split(), "--model", task_models / model)
    assert result.status in (1, 2)
    assert message in " ".join(result.err.split())
    assert len([line for line in result.err.splitlines() if "error" in line]) == 1
    assert written(worse_place) == before


def test_what_a_sound_and_a_video_lost_is_said(task_models, place, run):
    """The model's window is 40 columns, 0.4 seconds, of which the last reaches 0.415 seconds."""
    save_tone(place / "all.wav", 6640 + 159)  # a sample less than fills one column more
    save_tone(place / "more.wav", 6640 + 160)
    save_tone(place / "fast.wav", 44100, rate=44100)
    seen = {}
    for name in ("all", "more", "fast"):
        result = run(f"{name}.wav", "--model", task_models / "sound", "--output", "out/")
        assert result.status == 0, result.err
        seen[name] = [line for line in result.out.splitlines() if line.startswith(("  seen", "  resampled"))]
    assert seen == {
        "all": [],
        "more": ["  seen       the first 0.4 of 0.425 seconds"],
        "fast": ["  seen       the first 0.4 of 1 seconds", "  resampled  from 44100 to 16000 samples a second"],
    }
    result = run("clip.gif", "--model", task_models / "film", "--output", "out/")
    assert "  seen       4 of 6 frames, evenly apart\n" in result.out


def test_folders_of_sounds_and_of_videos(task_models, worse_place, run):
    save_photo(worse_place / "sounds" / "cover.png")
    save_photo(worse_place / "films" / "cover.jpg")
    for model, folder, name in (("sound", "sounds", "a"), ("film", "films", "clip")):
        result = run(folder, "--model", task_models / model, "--output", f"{model}/")
        assert (result.status, result.err) == (0, "")
        assert written(worse_place / model) == [f"{name}-token-evidence.png"]


def test_a_mask_that_is_transparent_elsewhere(task_models, place, run, maps):
    """What is under its transparency is black, and white would be part of it."""
    mask = Image.open("mask.png")
    Image.merge("LA", (mask, mask)).save("cut-out.png")
    for name in ("mask.png", "cut-out.png"):
        assert run("photo.png", "--model", task_models / "segmenter", "--mask", name, "--output", "out/").status == 0
        assert int(maps["region"].sum()) == 8 * 16
