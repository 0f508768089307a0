"""The parts of the command line by themselves."""

from pathlib import Path

import pytest
import torch
from transformers import ViTImageProcessor

from captum_gmar.classifier.class_names import find_class, find_target
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.classifier.loading import load_classifier
from captum_gmar.cli import evaluate
from captum_gmar.evaluation import measures
from captum_gmar.files.writing import replacing
from cli.commandline import LABELS, written


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
    assert find_class("tank", {0: "tank, army tank", 1: "tank"}) == 1


def test_near_names_come_with_the_word_first() -> None:
    with pytest.raises(ValueError, match=r"Near are 0 \(tabby, tabby cat\); 3 \(tiger cat\)"):
        find_target("cat", LABELS)


def test_photo_of_an_image_processor_that_does_not_say_how_it_normalises(models: Path) -> None:
    model = load_classifier(models / "vit").model
    shown = Classifier(model, object.__new__(ViTImageProcessor)).photo(torch.tensor([[[-2.0, 0.0, 2.0]]]))
    assert shown.ravel().tolist() == [0, 0.5, 1]


def test_every_metric_that_can_be_asked_for_is_measured() -> None:
    """The parser names them without importing torch."""
    for kind in ("CURVES", "MASKED", "LOCALISATION", "ANEW"):
        assert (kind, *getattr(evaluate, kind)) == (kind, *getattr(measures, kind))
