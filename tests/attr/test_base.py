"""What every method refuses: inputs without values or of another kind, and functions that are none."""

import pytest
import torch
import transformers
from classifiers import SMALL

from captum_gmar import AttentionEvidence, GMARAttribution


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        (torch.ones(1, 3, 32, 32).to_sparse(), r"torch\.sparse_coo"),
        (torch.ones(1, 3, 32, 32, device="meta"), "one on meta"),
        (torch.nested.nested_tensor([torch.ones(3, 32, 32)] * 2, layout=torch.jagged), "a nested one"),
    ],
)
def test_inputs_without_all_their_values_are_refused(inputs, got, vit):
    with pytest.raises(ValueError, match=rf"inputs must be a dense tensor with values, but got {got}\."):
        GMARAttribution(vit).attribute(inputs, 0)


@pytest.mark.parametrize("method", [GMARAttribution, AttentionEvidence])
def test_a_model_of_videos_takes_no_image(method):
    film = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**SMALL, num_frames=4))
    with pytest.raises(
        ValueError, match=r"inputs must be videos .* as VideoMAEForVideoClassification takes them, but got"
    ):
        method(film.eval()).relevance(torch.rand(4, 3, 32, 32), 0)


def test_a_forward_func_is_called(vit):
    with pytest.raises(TypeError, match=r"forward_func must be a callable from inputs to a tensor, but got str"):
        GMARAttribution(vit, forward_func="logits")
