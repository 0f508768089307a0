"""Head scores against an explicit mask, its finite differences, and dense attention."""

import pytest
import torch
from families import FAMILIES, image_embedding, make
from oracle import written_out
from snapshots import state
from torch import nn
from torch.testing import assert_close

from ablation.test_heads import HEADS, Masked, Pruned, torch_encoder
from captum_gmar import record_attention
from captum_gmar.ablation import attention_entropy, gradient_of_mask
from captum_gmar.engine.models.patch_grid import Logits

TARGETS = [3, 0, 9, 3]
LOSSES = {
    "cross_entropy": lambda logits: nn.functional.cross_entropy(logits, torch.tensor(TARGETS), reduction="none"),
    "logit": lambda logits: logits[range(4), TARGETS],
}


def by_an_explicit_mask(model, forward, images, loss):
    """Compute scores (N, L, H) example by example."""
    scores = []
    for example in range(4):
        mask = torch.ones(3, HEADS, dtype=images.dtype, requires_grad=True)
        with Masked(model, mask):
            value = LOSSES[loss](forward(images))[example]
        scores.append(torch.autograd.grad(value, mask)[0].abs())
    return torch.stack(scores)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["ViT", "DeiT with teacher", "BEiT", "CLIP", "SigLIP", "timm-like, avg"])
def test_an_explicit_mask(name, loss, images):
    model, forward = make(name)
    expected = by_an_explicit_mask(model, forward, images, loss)
    found = gradient_of_mask(model, images, TARGETS, loss=loss)
    assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("timm ")])
def test_entropy(name, images):
    model, forward = make(name)
    forward_of = image_embedding if "embedding" in name else Logits
    dense = written_out(model, lambda model, x: forward_of(model)(x), images, TARGETS)
    attention = [a for a in dense.attention if a.shape[-2] == a.shape[-1]]  # not SigLIP's pooling
    expected = torch.stack([-torch.special.xlogy(a, a).sum(-1).mean(-1) for a in attention], 1)
    found = attention_entropy(model, images, forward_func=forward)
    assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make a layer take several blocks."""
    monkeypatch.setattr("captum_gmar.engine.kernels.workspace.BLOCK_ELEMENTS", {"cpu": 3 * 17 * 5, "cuda": 1})
    monkeypatch.setattr("captum_gmar.engine.kernels.workspace.MIN_BLOCK_ROWS", 1)


def test_entropy_of_recorded_attention(make_vit, images, small_blocks):
    vit = make_vit(attn_implementation="eager")
    recorded = record_attention(vit, images, 3).attention
    assert_close(attention_entropy(vit, images), torch.stack([-(a * a.log()).sum(-1).mean(-1) for a in recorded], 1))


def test_an_explicit_mask_in_several_blocks(vit, images, small_blocks):
    expected = by_an_explicit_mask(vit, Logits(vit), images, "logit")
    assert_close(gradient_of_mask(vit, images, TARGETS, loss="logit"), expected, rtol=1e-3, atol=1e-5)


def test_torch_s_own_layers(images):
    torch.manual_seed(0)
    model = torch_encoder().eval()
    assert gradient_of_mask(model, images, 3).shape == attention_entropy(model, images).shape == (4, 3, HEADS)


@pytest.mark.parametrize("score", [gradient_of_mask, attention_entropy])
class TestEveryScore:
    def test_a_batch_is_its_singles(self, score, vit, images):
        singles = [score(vit, images[i : i + 1], TARGETS[i]) for i in range(4)]
        assert_close(score(vit, images, TARGETS), torch.cat(singles))

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_without_gradients(self, score, vit, images, context):
        expected = score(vit, images, TARGETS)
        with context():
            assert_close(score(vit, images, TARGETS), expected, rtol=0, atol=0)
        assert not expected.requires_grad

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    def test_the_model_is_left_as_it_was(self, score, make_vit, images, implementation):
        vit = make_vit(attn_implementation=implementation)
        before = state(vit)
        score(vit, images, TARGETS)
        with pytest.raises(ValueError, match="doesn't match model"):
            score(vit, images[..., :24], TARGETS)
        assert state(vit) == before

    def test_wrong_arguments(self, score, vit, images):
        with pytest.raises(TypeError, match=r"model must be .*torch\.nn\.Module, but got function"):
            score(lambda x: x, images, 3)
        with pytest.raises(ValueError, match="floating-point pixel values of shape"):
            score(vit, images[0], 3)
        with pytest.raises(RuntimeError, match=r"ViTFor.* needs calls of torch.nn.functional"):
            score(vit, images, 3, forward_func=lambda x: x.flatten(1))
        with pytest.raises(FloatingPointError, match="must be finite"):
            score(vit, images * torch.nan, 3)

    def test_layers_of_different_heads(self, score, images):
        with pytest.raises(ValueError, match="as many heads in every layer"):
            score(Pruned(), images, 3)


def test_wrong_losses(make_vit, vit, images):
    with pytest.raises(ValueError, match=r"loss must be one of \['cross_entropy', 'logit'\], but got 'hinge'"):
        gradient_of_mask(vit, images, 3, loss="hinge")
    one = make_vit(num_labels=1)
    with pytest.raises(ValueError, match=r'but got \(4, 1\)\. Pass loss="logit" for a model with one output'):
        gradient_of_mask(one, images)
    assert_close(gradient_of_mask(one, images, loss="logit"), gradient_of_mask(one, images, 0, loss="logit"))
    with pytest.raises(AssertionError, match="Target not provided when necessary"):
        gradient_of_mask(vit, images)
