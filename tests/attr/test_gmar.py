"""GMARAttribution against the float64 oracle and its identities, on several model families and the trained DeiT."""

import copy

import pytest
import torch
import transformers
from oracle import attention_and_gradient, gmar, head_importance
from PIL import Image
from torch.testing import assert_close

from captum_gmar import GMARAttribution

TARGETS = [3, 0, 9, 3]


def relative_error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(
    "changes", [{}, {"num_attention_heads": 1}, {"num_attention_heads": 12, "num_hidden_layers": 5, "patch_size": 4}]
)
def test_what_transformers_returns_as_attention(changes, norm, make_vit, images):
    model = make_vit(**changes)
    attention, gradient = attention_and_gradient(model, images, TARGETS)
    method = GMARAttribution(model, norm)
    expected = gmar(attention, gradient, norm)[:, 0, 1:]
    assert relative_error(method.relevance(images, TARGETS).flatten(1), expected) < 2e-5
    assert_close(method.head_importance(images, TARGETS).double(), head_importance(gradient, norm), rtol=2e-5, atol=0)


@pytest.mark.parametrize("recursion", ["rollout", "forward", "additive"])
def test_head_importance_is_of_all_layers(recursion, make_vit, images):
    model = make_vit(num_hidden_layers=4)
    expected = GMARAttribution(model).head_importance(images, TARGETS)
    method = GMARAttribution(model, recursion=recursion, start_layer=2)
    assert_close(method.head_importance(images, TARGETS), expected, rtol=0, atol=0)


def test_oracle_for_a_class_probability(vit, images):
    """The head weights of a probability are those of its gradient, which is not the logit's."""
    attention, _ = attention_and_gradient(vit, images, TARGETS)

    def probability(*args):
        return vit(*args).logits.softmax(-1)

    gradient = []
    for example, target in enumerate(TARGETS):
        gradients = [attention_and_gradient(vit, images[example : example + 1], [c])[1] for c in range(10)]
        p = vit.double()(images[example : example + 1].double()).logits.softmax(-1)[0].detach()
        vit.float()
        # dp_t = p_t (dy_t - sum_c p_c dy_c)
        gradient.append(
            [p[target] * (gradients[target][i] - sum(p[c] * gradients[c][i] for c in range(10))) for i in range(3)]
        )
    gradient = [torch.cat(layer) for layer in zip(*gradient, strict=True)]
    expected = gmar(attention, gradient, "l1")[:, 0, 1:]
    relevance = GMARAttribution(vit, forward_func=probability).relevance(images, TARGETS)
    assert relative_error(relevance.flatten(1), expected) < 2e-5


def test_non_square_images_and_patches_that_do_not_cover_them(make_vit):
    model = make_vit(image_size=32)
    inputs = torch.randn(2, 3, 44, 70)  # 5 x 8 patches of 8 pixels; 4 and 6 pixels are left over
    method = GMARAttribution(model, forward_func=lambda x: model(x, interpolate_pos_encoding=True))
    relevance, attributions = method.relevance(inputs, 1), method.attribute(inputs, 1)
    assert relevance.shape == (2, 5, 8)
    assert attributions[..., 40:, :].eq(0).all()
    assert attributions[..., :, 64:].eq(0).all()
    blocks = attributions.sum(1)[:, :40, :64].unflatten(2, (8, 8)).unflatten(1, (5, 8))
    assert_close(blocks.sum((2, 4)), relevance)


def test_patches_keep_their_place(make_vit):
    """A model that reads one patch only: its map must be highest there, not mirrored, not transposed."""
    model = make_vit(num_hidden_layers=1, num_attention_heads=1, qkv_bias=False, patch_size=8, image_size=32)
    row, column = 1, 3
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        position = 1 + row * 4 + column
        embeddings = model.vit.embeddings
        embeddings.position_embeddings[0, position, 0], embeddings.position_embeddings[0, 0, 1] = 5, 5
        names = dict(model.named_parameters())
        for name, parameter in names.items():
            if "layernorm" in name and name.endswith("weight"):
                parameter.fill_(1)
            if name.endswith(("q_proj.weight", "query.weight")):
                parameter[0, 1] = 9  # the CLS token asks
            if name.endswith(("k_proj.weight", "key.weight")):
                parameter[0, 0] = 9  # what the patch answers
            if name.endswith(("v_proj.weight", "value.weight", "o_proj.weight", "attention.output.dense.weight")):
                parameter.copy_(torch.eye(24))
        model.classifier.weight[0, 0] = 1
    relevance = GMARAttribution(model).relevance(torch.zeros(1, 3, 32, 32), 0)[0]
    assert divmod(int(relevance.argmax()), 4) == (row, column)
    assert relevance[row, column] > 0.4


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_zero_gradients_are_rollout_with_one_warning(norm, vit, images):
    attention, _ = attention_and_gradient(vit, images, TARGETS)
    rollout = torch.eye(17, dtype=torch.float64)
    for layer in attention:
        rollout = (layer.mean(1) + torch.eye(17)) / 2 @ rollout
    vit.classifier.weight.data.zero_()
    with pytest.warns(UserWarning, match="All gradients of an attention layer are zero") as warned:
        relevance = GMARAttribution(vit, norm).relevance(images, TARGETS)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert relative_error(relevance.flatten(1), rollout[:, 0, 1:]) < 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype, vit, images):
    exact = GMARAttribution(vit).relevance(images, TARGETS)
    relevance = GMARAttribution(vit.to(dtype)).relevance(images.to(dtype), TARGETS)
    assert relevance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(relevance, exact) < {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 2e-5}[dtype]


@pytest.fixture(scope="module")
def photos(shared):
    processor = transformers.AutoImageProcessor.from_pretrained(
        shared / "models" / "deit-tiny-patch16-224", use_fast=False
    )
    names = ["n02123045_tabby", "n02504458_African_elephant", "n02690373_airliner"]
    images = [Image.open(shared / "images" / "photos" / f"{name}.JPEG").convert("RGB") for name in names]
    return processor(images, return_tensors="pt")["pixel_values"]


PHOTO_CLASSES = [281, 386, 404]


@pytest.fixture(scope="module")
def dense(deit, photos):
    return attention_and_gradient(deit, photos, PHOTO_CLASSES)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_ranks_of_the_trained_model_in_bfloat16(deit, photos, dense, norm):
    expected = gmar(*dense, norm)[:, 0, 1:]
    relevance = GMARAttribution(copy.deepcopy(deit).bfloat16(), norm).relevance(photos.bfloat16(), PHOTO_CLASSES)
    ranks = torch.stack([relevance.flatten(1).double(), expected], 1).argsort(-1).argsort(-1).double()  # (N, 2, P)
    for photo in ranks:
        assert torch.corrcoef(photo)[0, 1] >= 0.999
