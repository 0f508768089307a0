"""``captum-gmar compare``: what it prints and writes is what ``captum_gmar.compare`` gives, and bad input is told."""

import json
from functools import partial

import pytest
import torch
from PIL import Image

from captum_gmar import demo
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.cli.sources import SCENE_SEED
from captum_gmar.evaluation.catalogue import REMOVALS, make_removal
from captum_gmar.inspection.compare import compare
from captum_gmar.metrics import Mean
from cli.commandline import rows as read_rows
from cli.commandline import written

BRIEF = ("--methods", "gmar-l1,rollout", "--steps", 4)


@pytest.fixture
def run(command):
    """Return a function that runs the command."""
    return partial(command, "compare")


def test_built_in_scene(run, work):
    result = run(*BRIEF, "--methods", "integrated-gradients", "--ig-steps", 2)
    assert (result.status, result.err) == (0, "")
    scene = demo.load_scene(SCENE_SEED)
    names = ["gmar-l1", "rollout", "integrated-gradients"]
    expected = compare(demo.load_model(), scene.pixel_values, names, scene.labels[0], steps=4, ig_steps=2, repeats=1)
    assert (
        "picture    built-in-scene-side-by-side-gmar-l1-rollout-integrated-gradients-steps-4-ig-steps-2.png"
        in result.out
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in result.out.splitlines() if line.startswith("|")]
    compared = [*expected.methods, *expected.controls]
    assert [row[1] for row in rows[2:]] == [own.name for own in compared]
    for row, own in zip(rows[2:], compared, strict=True):
        found = [float(cell.replace("−", "-")) for cell in row[2:5]]
        assert found == pytest.approx(own.areas, abs=2e-3)
    assert [row[7:9] for row in rows[2:]] == [["1", "1"], ["1", "0"], ["2", "2"], ["", ""], ["", ""], ["", ""]]
    with Image.open(
        work / "built-in-scene-side-by-side-gmar-l1-rollout-integrated-gradients-steps-4-ig-steps-2.png"
    ) as picture:
        assert picture.size[0] > 1000
        assert picture.info["Software"] == "captum-gmar"  # by which explain leaves it out


def test_users_image_and_model_and_tables(run, work, models, loaded, pixels):
    arguments = ("photo.png", "--model", models / "vit", *BRIEF, "--removal", "mean", "--target", "tiger cat")
    result = run(*arguments, "--output", "out/picture.pdf", "--save-table", "out/table.csv")
    assert (result.status, result.err) == (0, "")
    for suffix in ("json", "md"):
        again = run(*arguments, "--output", "out", "--save-table", f"out/table.{suffix}")
        assert again.out.splitlines()[3] == f"  table      out/table.{suffix}"
    assert written(work / "out") == [
        "photo-side-by-side-gmar-l1-rollout-tiger-cat-removal-mean-steps-4.png",
        *("picture.pdf", "table.csv", "table.json", "table.md"),
    ]
    with torch.no_grad():
        percent = 100 * float(loaded[0](pixels).logits.softmax(-1)[0, 3])
    assert result.out.splitlines()[:2] == ["photo.png", f"  explained  tiger cat (class 3), probability {percent:.1f}%"]
    expected = compare(loaded[0], pixels, ["gmar-l1", "rollout"], 3, removal=Mean(), steps=4).records()
    rows = read_rows(work / "out" / "table.csv")
    records = json.loads((work / "out" / "table.json").read_text(encoding="utf-8"))
    for own, row, record in zip(expected, rows, records, strict=True):
        assert own.keys() == row.keys() == record.keys()
        for key in ("method", "is_control", "forward_passes", "removal", "target"):
            assert own[key] == record[key]
            assert row[key] == ("" if own[key] is None else str(own[key]))
        assert float(row["deletion"]) == pytest.approx(record["deletion"]) == pytest.approx(own["deletion"], abs=1e-5)
    assert (work / "out" / "table.md").read_text(encoding="utf-8") in again.out + "\n"


@pytest.mark.parametrize("removal", REMOVALS)
def test_every_removal_is_named(run, work, models, loaded, removal):
    result = run("photo.png", "--model", models / "vit", "--methods", "rollout", "--steps", 2, "--removal", removal)
    assert result.status == 0
    assert f"removal: {make_removal(removal, loaded[0]).name}." in result.out


def test_all_methods(run, work, models):
    result = run("photo.png", "--model", models / "vit", "--methods", "all", "--steps", 1, "--ig-steps", 1)
    assert (result.status, result.err) == (0, "")
    names = [line.split()[1] for line in result.out.splitlines() if line.startswith("|")]
    assert names[2 : 2 + len(METHODS)] == [*METHODS]


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("multi", BRIEF, "Insertion and deletion follow the output of class"),  # without a softmax
        ("one", BRIEF, "Insertion and deletion follow the output of class 0"),
        ("vit", ("--methods", "rollout"), "photo-side-by-side-rollout.png"),  # as many as there are patches
        ("vit", (*BRIEF, "--size", 48), "photo-side-by-side-gmar-l1-rollout-steps-4-size-48.png"),
    ],
)
def test_models_and_sizes(run, work, models, model, options, says):
    result = run("photo.png", "--model", models / model, *options)
    assert (result.status, result.err) == (0, "")
    assert says in result.out


def test_help_names_methods_and_removals(run):
    result = run("--help")
    assert result.status == 0
    text = "".join(result.out.split())
    assert "default:token-evidence,attention-evidence,gmar-l1,gmar-l2,rollout" in text
    assert all(name in text for name in REMOVALS)
