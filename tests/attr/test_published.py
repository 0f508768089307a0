"""PublishedGMAR against what the released code gave, and against its recursion written out."""

import numpy as np
import pytest
import torch
from families import make
from field_families import swin
from installed import HAS_TRANSFORMERS_5
from torch import nn
from torch.nn.functional import interpolate

from captum_gmar.attr.published import PublishedGMAR
from captum_gmar.engine.models.layers import transformer_layers

PHOTOS = ["African_elephant", "school_bus", "tabby"]


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "published_gmar_deit_tiny.npz")


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("photo", PHOTOS)
def test_released_code(deit, golden, photo, norm):
    inputs = torch.from_numpy(golden[f"{photo}/pixel_values"]).reshape(1, 3, 224, 224)
    method = PublishedGMAR(deit, norm)
    target = int(deit(inputs).logits.argmax())
    weights = method.head_weights(inputs, target)[0].numpy()
    assert np.abs(weights - golden[f"{photo}/{norm}/head_weights"].ravel()).max() < 1e-4
    enlarged = interpolate(method.relevance(inputs, target)[:, None], (224, 224), mode="bicubic").numpy()
    assert np.corrcoef(enlarged.ravel(), golden[f"{photo}/{norm}/map"].ravel())[0, 1] >= 0.99


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_written_out(make_vit, images, norm):
    model = make_vit(attn_implementation="eager").double()
    inputs, normed = images[:1].double(), []
    last = next(m for m in model.modules() if isinstance(m, nn.ModuleList))[-1]
    handle = last.layernorm_before.register_forward_hook(lambda module, args, output: normed.append(output))
    output = model(inputs, output_attentions=True)
    handle.remove()
    (gradient,) = torch.autograd.grad(output.logits[0, 3], normed)
    norms = torch.stack([gradient[0, 1:, 8 * h : 8 * h + 8].flatten().norm(p=int(norm[1])) for h in range(3)])
    weights = norms / norms.sum()
    assert torch.allclose(PublishedGMAR(model, norm).head_weights(inputs, 3)[0], weights)

    rollout = torch.eye(17, dtype=torch.float64).repeat(3, 1, 1)
    for attention in output.attentions:
        rollout = torch.stack([rollout[h] @ (weights[h] * attention[0, h]) for h in range(3)])
        rollout = rollout + 0.25 * 5e-5 * rollout.mean() * torch.eye(17, dtype=torch.float64)
    maps = rollout[0, 1:].reshape(17, 4, 4).mean(0)
    expected = (maps - maps.min()) / (maps.max() - maps.min())
    assert torch.allclose(PublishedGMAR(model, norm).relevance(inputs, 3)[0], expected, atol=1e-9)


def with_text(name):
    """A model of images and texts, of which there are as many, of as many tokens, as in the image's own attention."""
    model, _ = make(name)
    tokens = 17 if name.startswith("CLIP") else 16
    texts = torch.randint(3, 1000, (4, tokens), generator=torch.Generator().manual_seed(2))
    return model, lambda inputs: model(input_ids=texts, pixel_values=inputs).logits_per_image


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("name", ["CLIP, image embedding", "SigLIP, image embedding"])
def test_attention_after_the_last_layer_is_not_taken_for_it(images, name, norm):
    """That of the text, which runs last, and of SigLIP's pooling."""
    model, forward = with_text(name)
    normed = []
    handle = transformer_layers(model.vision_model)[-1].layer_norm1.register_forward_hook(
        lambda module, args, output: normed.append(output)
    )
    score = forward(images)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, normed)
    norms = gradient[:, -16:].unflatten(2, (3, 8)).norm(p=int(norm[1]), dim=(1, 3))
    method = PublishedGMAR(model, norm, forward_func=forward)
    assert torch.allclose(method.head_weights(images, 1), norms / norms.sum(1, keepdim=True))


def test_blind_to_the_class(vit, images):
    method = PublishedGMAR(vit)
    assert not torch.allclose(method.head_weights(images, 3), method.head_weights(images, 5), rtol=1e-3)
    assert torch.allclose(method.relevance(images, 3), method.relevance(images, 5), atol=1e-3)


def test_no_layer_norm(images):
    model = nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.Flatten(2)).eval()

    def forward(inputs):
        tokens = model(inputs).mT[:, None]
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))

    with pytest.raises(RuntimeError, match=r"model must begin its layers with torch.nn.functional.layer_norm"):
        PublishedGMAR(model, forward_func=forward).attribute(images, 3)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_no_gradient_through_quantised_layers(vit, images):
    quantised = torch.ao.quantization.quantize_dynamic(vit, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(RuntimeError, match="torch has none of linear_dynamic"):
        PublishedGMAR(quantised).relevance(images, 3)


def test_what_has_no_such_map(make_vit, images):
    with pytest.raises(RuntimeError, match=r"must be in evaluation mode, .* Call model.eval\(\)"):
        PublishedGMAR(make_vit().train()).attribute(images, 3)
    # transformers 4 writes the attention of windows out, where it cannot be captured.
    reason = (
        r"over a 4x4 patch grid of 4 examples .* \(16, 1, 4, 8\)" if HAS_TRANSFORMERS_5 else "must begin .*layer_norm"
    )
    with pytest.raises(RuntimeError, match=reason):
        PublishedGMAR(
            swin("Swin", image_size=32, patch_size=8, depths=[1, 1], num_heads=[1, 2], window_size=2).eval()
        ).attribute(images, 1)
    with pytest.raises(ValueError, match=r"norm must be 'l1' or 'l2', but got 'l3'\."):
        PublishedGMAR(make_vit(), "l3")
    broken = make_vit()
    broken.classifier.weight.data[3] = torch.nan
    with pytest.raises(FloatingPointError, match="The target's logits must be finite"):
        PublishedGMAR(broken).attribute(images, 3)


def test_one_layer(make_vit, images):
    weights = PublishedGMAR(make_vit(num_hidden_layers=1)).head_weights(images, 3)
    assert torch.allclose(weights.sum(1), torch.ones(4))
    assert (weights - 1 / 3).abs().max() > 1e-3
