"""Gradient rollout and attention Grad-CAM: identities. Their formulas are in test_methods."""

from torch.testing import assert_close

from captum_gmar import AttentionGradCAM, GradientRollout


def test_the_scale_of_the_logits_scales_grad_cam(vit, images):
    once = AttentionGradCAM(vit).relevance(images, target=1)
    twice = AttentionGradCAM(vit, forward_func=lambda inputs: 2 * vit(inputs).logits).relevance(images, target=1)
    assert_close(twice, 2 * once)


def test_grad_cam_is_gradient_rollout_of_the_last_layer(vit, images):
    """From CLS, the residual stays there and reaches no patch."""
    last = GradientRollout(vit, start_layer=-1).relevance(images, target=2)
    assert_close(AttentionGradCAM(vit).relevance(images, target=2), last)
