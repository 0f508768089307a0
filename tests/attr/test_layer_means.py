"""LeGrad of the last layer, whose gradient is the whole model's. Its formula is in test_methods, as Grad-SAM's."""

from eager import eager_attention, patches_of
from torch.testing import assert_close

from captum_gmar import LeGrad


def test_last_layer_alone_is_the_whole_models_gradient(vit, images):
    expected = eager_attention(vit, images, target=2).gradient[-1].clamp(min=0).mean((1, 2))
    found = LeGrad(vit.double(), start_layer=-1).relevance(images.double(), target=2)
    assert_close(found, patches_of(expected))
