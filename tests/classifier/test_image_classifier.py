"""From images to pixel values and back: what the model saw, whatever its image processor does."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DetrImageProcessor, MobileViTImageProcessor

from captum_gmar.classifier import Classifier, find_object, find_region, load_classifier


@pytest.fixture
def image():
    return Image.effect_noise((60, 40), 80).convert("RGB")


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_photo_shown_is_what_the_model_saw(models, image, name):
    classifier = load_classifier(models / name)
    seen = classifier.processor(image, do_normalize=False, do_rescale=False, return_tensors="pt")["pixel_values"][0]
    shown = classifier.photo(classifier.pixel_values(image)[0])
    assert shown * 255 == pytest.approx(seen.movedim(0, -1).numpy(), abs=0.01)


def test_size_keeps_the_part_of_the_photo_that_is_cropped(models, image):
    image = image.resize((600, 400))
    small, large = (load_classifier(models / "clip", size=size).pixel_values(image) for size in (None, 320))
    assert large.shape == (1, 3, 320, 320)
    smaller = torch.nn.functional.interpolate(large, (32, 32), mode="area")
    assert (smaller - small).abs().mean() < 0.1


def test_photo_of_a_function_that_does_not_say_how_it_normalises(classifier, image):
    def blue_first(images, return_tensors):
        stack = torch.stack([torch.from_numpy(np.array(photo)).float() for photo in images])
        return {"pixel_values": 3 * stack.movedim(-1, 1).flip(1) / 255 - torch.tensor([1, 2, 3])[:, None, None]}

    unknown = Classifier(classifier.model, blue_first)
    pixels = blue_first([image], "pt")["pixel_values"][0]
    assert unknown.photo(pixels) == pytest.approx(np.array(image) / 255, abs=1e-5)


def test_photo_of_channels_from_blue_to_red(classifier):
    processor = MobileViTImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    flipping = Classifier(classifier.model, processor)
    photo = flipping.photo(flipping.pixel_values(Image.new("RGB", (60, 40), (255, 128, 0)))[0])
    assert photo.reshape(-1, 3) == pytest.approx(np.tile([1, 128 / 255, 0], (32 * 32, 1)), abs=1e-5)


def test_view_of_a_cropped_photo_and_of_one_that_is_turned(classifier, image):
    processor = MobileViTImageProcessor(
        size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}, do_flip_channel_order=False
    )
    cropping = Classifier(classifier.model, processor)
    pixels = cropping.pixel_values(image)[0]  # 60x40 becomes 30x20, of which the middle 16x16 are 32x32 of the photo
    assert cropping.view(image, pixels) == (image, pytest.approx((14, 4, 46, 36)))
    assert cropping.view(image, pixels[:, :8]).crop == pytest.approx((14, 4, 46, 20))

    def turned(images, return_tensors):
        return {"pixel_values": torch.from_numpy(np.array(images[0])).movedim(-1, 0).mT[None] / 255}

    turning = Classifier(classifier.model, turned)
    photo, crop = turning.view(image, turned([image], "pt")["pixel_values"][0])
    assert crop is None
    assert photo == pytest.approx(np.array(image).transpose(1, 0, 2) / 255)


def test_the_mask_of_padding_goes_to_models_that_take_one(classifier, image):
    class Detector(torch.nn.Module):
        def forward(self, pixel_values, pixel_mask):
            return pixel_values

    processor = DetrImageProcessor(size={"shortest_edge": 20, "longest_edge": 60}, pad_size={"height": 40, "width": 40})
    inputs = Classifier(Detector(), processor).inputs(image)
    assert list(inputs) == ["pixel_values", "pixel_mask"]
    assert inputs["pixel_mask"].sum() == 20 * 30
    assert list(Classifier(classifier.model, processor).inputs(image)) == ["pixel_values"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: Classifier(3, None), TypeError, "model must be a torch.nn.Module, but got int"),
        (lambda model: Classifier(model, 3), TypeError, "processor must be the model's image processor, but got 3"),
        (
            lambda model: Classifier(model, None, "32"),
            ValueError,
            "size must be an integer, one or more, but got '32'",
        ),
        (
            lambda model: Classifier(model, print).inputs("a.png"),
            TypeError,
            "image must be a PIL image, but got str",
        ),
        (lambda model: Classifier(model, print).frame(3), TypeError, "image must be a PIL image, but got int"),
        (
            lambda model: find_region(model, None),
            TypeError,
            r"segmenter must be a Classifier\(model, processor\), but got ViT",
        ),
        (
            lambda model: find_object(model, None),
            TypeError,
            r"detector must be a Classifier\(model, processor\), but got ViT",
        ),
        (lambda model: load_classifier(3), TypeError, "name must be a folder or a Hugging Face id, but got 3"),
    ],
)
def test_arguments_of_the_wrong_kind(classifier, call, error, message):
    with pytest.raises(error, match=message):
        call(classifier.model)


def test_a_processor_that_makes_another_size_is_refused(classifier):
    def makes_32(images, **_):
        return {"pixel_values": torch.zeros(1, 3, 32, 32)}

    with pytest.raises(ValueError, match=r"one that the model.s image processor can make, but got 64"):
        Classifier(classifier.model, makes_32, 64).pixel_values(Image.new("RGB", (9, 9)))
