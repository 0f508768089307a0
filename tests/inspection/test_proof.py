"""Removal of patches in a page: its scores are those of forward passes on images whose patches were filled by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar import GMARAttribution, TokenEvidence
from captum_gmar.ablation import TokenRemoval
from captum_gmar.inspection.class_page import ClassPage
from captum_gmar.inspection.proof import fill_photo, random_orders
from captum_gmar.metrics import Blur, Mean
from inspection.test_class_page import PHOTO, content_of

SIDE, PATCH = 4, 8  # patches of a side, pixels of a patch


def probabilities(model, image, removed):
    """Fill patches one by one with the mean colour, and run the model once."""
    filled = image.clone()
    for place in removed:
        row, column = PATCH * (place // SIDE), PATCH * (place % SIDE)
        for channel in range(3):
            filled[0, channel, row : row + PATCH, column : column + PATCH] = image[0, channel].mean()
    with torch.no_grad():
        return model(filled).logits[0].softmax(0)


def course(model, image, relevance, target, counts):
    """Return the probability without the strongest patches and with them only, for each count."""
    order = np.argsort(-np.asarray(relevance).ravel()).tolist()
    without = [float(probabilities(model, image, order[:count])[target]) for count in counts]
    return [without, [float(probabilities(model, image, order[count:])[target]) for count in counts]]


def test_scores_are_those_of_forward_passes_on_images_filled_by_hand(vit, images):
    image = images[:1]
    content = content_of(ClassPage(vit, image, PHOTO, methods=["token-evidence", "gmar-l1"], rivals=2, proof=Mean()))
    proof, counts = content["proof"], content["proof"]["counts"]
    assert (counts[0], counts[-1]) == (0, 16)
    assert counts == sorted(set(counts))
    targets = probabilities(vit, image, []).argsort(descending=True)[:2].tolist()
    for method, of_method in zip((TokenEvidence(vit), GMARAttribution(vit)), proof["maps"], strict=True):
        for target, told in zip(targets, of_method, strict=True):
            relevance = method.relevance(image, target=target)[0]
            np.testing.assert_allclose(told["scores"], course(vit, image, relevance, target, counts), rtol=2e-3)
            ranks = np.argsort(np.argsort(-relevance.numpy().ravel()))
            assert told["steps"] == [next(k for k, count in enumerate(counts) if count > rank) for rank in ranks]
    for target, told in zip(targets, proof["random"], strict=True):
        drawn = np.array([course(vit, image, order, target, counts) for order in random_orders(SIDE, SIDE)])
        assert len(drawn) == proof["draws"] == 10
        expected = np.stack([drawn.min(0), np.median(drawn, 0), drawn.max(0)], 1)
        np.testing.assert_allclose(told, expected, rtol=2e-3)


def test_random_orders_differ_and_are_the_same_at_each_call():
    orders = random_orders(SIDE, SIDE)
    assert len({tuple(order.flatten().argsort().tolist()) for order in orders}) == 10
    assert torch.equal(random_orders(SIDE, SIDE), orders)


def test_a_map_for_all_classes_removes_the_same_patches_for_each(vit, images):
    content = content_of(ClassPage(vit, images[:1], PHOTO, methods=["rollout"], rivals=3, proof=Mean()))
    first, *others = content["proof"]["maps"][0]
    assert len(others) == 2
    assert all(other["steps"] == first["steps"] and other["scores"] != first["scores"] for other in others)


def test_the_photo_is_filled_as_the_pixels_are():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    photo, inputs = Image.fromarray(pixels), torch.zeros(1, 3, 32, 32)
    filled = np.asarray(fill_photo(photo, inputs, Mean()))
    np.testing.assert_allclose(filled, np.broadcast_to(pixels.mean((0, 1)), filled.shape), atol=0.51)
    colours = torch.tensor(pixels).movedim(-1, 0)[None].double()
    normalised = (colours / 255 - 0.5) / 0.2  # a blur of normalised pixels is the normalised blur
    expected = 255 * (Blur().replacement(normalised, torch.ones(1))[0, 0] * 0.2 + 0.5)
    np.testing.assert_allclose(np.asarray(fill_photo(photo, inputs, Blur())), expected.movedim(0, -1), atol=0.6)


@pytest.mark.parametrize("proof", [Blur, "blur", "tokens"])
def test_a_removal_that_fills_no_pixels_is_refused(proof, vit, images):
    proof = TokenRemoval(vit) if proof == "tokens" else proof
    with pytest.raises(TypeError, match=r"proof must be a PixelRemoval, such as Blur\(\), but got \w+"):
        ClassPage(vit, images[:1], PHOTO, proof=proof)
