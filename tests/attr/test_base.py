"""What every method's calls have in common: pixels and patches, batches, several targets."""

import pytest
import torch
import transformers
from classifiers import SMALL
from torch.testing import assert_close

from captum_gmar import AttentionEvidence, GMARAttribution


def test_each_pixel_has_an_even_part_of_its_patch(vit, images):
    gmar = GMARAttribution(vit)
    attributions, relevance = gmar.attribute(images, target=1), gmar.relevance(images, target=1)
    assert attributions.shape == images.shape
    assert_close(attributions[:, 2, 9, 17] * (3 * 8 * 8), relevance[:, 1, 2])
    assert_close(attributions.sum((1, 2, 3)), relevance.sum((1, 2)))


def test_a_tuple_comes_back_as_a_tuple(vit, images):
    (found,) = GMARAttribution(vit).attribute((images,), target=1)
    assert torch.equal(found, GMARAttribution(vit).attribute(images, target=1))


@pytest.mark.parametrize("size", [1, 3])
def test_batches_change_no_number(vit, images, size):
    gmar = GMARAttribution(vit)
    whole = gmar.relevance(images, [0, 1, 2, 3])
    assert_close(gmar.relevance(images, [0, 1, 2, 3], internal_batch_size=size), whole)


def test_chosen_classes_are_those_of_the_logits(vit, images):
    maps = GMARAttribution(vit).explain(images, lambda logits: logits.topk(2).indices)
    with torch.no_grad():
        logits = vit(images).logits
    assert_close(maps.logits, logits)
    assert torch.equal(maps.targets, logits.topk(2).indices)
    assert_close(maps.relevance[:, 0], GMARAttribution(vit).relevance(images, logits.argmax(-1)))


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        (torch.ones(1, 3, 32, 32).to_sparse(), r"torch\.sparse_coo"),
        (torch.ones(1, 3, 32, 32, device="meta"), "one on meta"),
        (torch.nested.nested_tensor([torch.ones(3, 32, 32)] * 2, layout=torch.jagged), "a nested one"),
    ],
)
def test_inputs_without_all_their_values_are_refused(inputs, got, vit):
    with pytest.raises(ValueError, match=rf"inputs must be a dense tensor with values\. Got {got} instead\."):
        GMARAttribution(vit).attribute(inputs, 0)


@pytest.mark.parametrize("method", [GMARAttribution, AttentionEvidence])
def test_a_model_of_videos_takes_no_image(method):
    film = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**SMALL, num_frames=4))
    with pytest.raises(
        ValueError, match=r"inputs must be videos .* as VideoMAEForVideoClassification takes them\. Got"
    ):
        method(film.eval()).relevance(torch.rand(4, 3, 32, 32), 0)


def test_a_forward_func_is_called(vit):
    with pytest.raises(TypeError, match=r"forward_func must be a callable that takes the inputs .* Got str instead"):
        GMARAttribution(vit, forward_func="logits")


def test_features_are_not_offered(vit):
    with pytest.raises(NotImplementedError, match="attribute_future is not implemented for"):
        GMARAttribution(vit).attribute_future()
