"""From images to pixel values and back: what the model saw, whatever its image processor does."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor

from captum_gmar.classifier import Classifier, load_classifier


@pytest.fixture
def image() -> Image.Image:
    return Image.effect_noise((60, 40), 80).convert("RGB")


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_photo_shown_is_what_the_model_saw(models: Path, image: Image.Image, name: str) -> None:
    classifier = load_classifier(models / name)
    seen = classifier.processor(image, do_normalize=False, do_rescale=False, return_tensors="pt")["pixel_values"][0]
    shown = classifier.photo(classifier.pixel_values(image)[0])
    assert shown * 255 == pytest.approx(seen.movedim(0, -1).numpy(), abs=0.01)


def test_size_keeps_the_part_of_the_photo_that_is_cropped(models: Path, image: Image.Image) -> None:
    image = image.resize((600, 400))
    small, large = (load_classifier(models / "clip", size=size).pixel_values(image) for size in (None, 320))
    assert large.shape == (1, 3, 320, 320)
    smaller = torch.nn.functional.interpolate(large, (32, 32), mode="area")
    assert (smaller - small).abs().mean() < 0.1


def test_photo_of_an_image_processor_that_does_not_say_how_it_normalises(classifier: Classifier) -> None:
    silent = Classifier(classifier.model, object.__new__(ViTImageProcessor))
    assert silent.photo(torch.tensor([[[-2.0, 0.0, 2.0]]])).ravel().tolist() == [0, 0.5, 1]


def test_a_processor_that_makes_another_size_is_refused(classifier: Classifier) -> None:
    def makes_32(images: Image.Image, **_: object) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.zeros(1, 3, 32, 32)}

    with pytest.raises(ValueError, match=r"one that the model.s image processor can make\. Got 64 instead"):
        Classifier(classifier.model, makes_32, 64).pixel_values(Image.new("RGB", (9, 9)))
