"""Volumes (N, channels, depth, height, width) of MONAI's models, against the formula in float64."""

from types import SimpleNamespace

import pytest
import torch
from field_oracle import columns, evidence, field, on_finest
from oracle import log_odds
from torch import nn
from torch.testing import assert_close

from captum_gmar import AttentionEvidence, TokenEvidence

nets = pytest.importorskip("monai.networks.nets")
pytestmark = pytest.mark.filterwarnings("ignore")  # of MONAI's own

VOLUME = torch.randn(2, 1, 32, 32, 48, generator=torch.Generator().manual_seed(1))
SMALL = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
DENSE = SimpleNamespace(arguments=(), has_queries=True)


class Wrapped(nn.Module):
    """A model of MONAI's whose score has the place that the oracle reads."""

    def __init__(self, model, of):
        super().__init__()
        self.model, self.of = model, of

    def forward(self, volumes):
        return SimpleNamespace(logits=self.of(self.model(volumes)))


def shares(found):
    return found / found.flatten(1).abs().sum(1).view(-1, 1, 1, 1)


def test_the_classifier():
    torch.manual_seed(0)
    sizes = {"img_size": tuple(VOLUME.shape[2:]), "hidden_size": 24, "mlp_dim": 48, "num_heads": 2, "num_layers": 3}
    model = nets.ViT(1, patch_size=(16, 16, 16), classification=True, num_classes=3, **sizes).eval()
    family = SimpleNamespace(
        stages=lambda wrapped: [wrapped.model.blocks],
        passes=lambda layer, tokens: tokens,
        places=range(3),
        arguments=(),
        has_queries=True,
    )
    of_layers = evidence(family, Wrapped(model, lambda outputs: outputs[0]), VOLUME, 1, log_odds)
    expected = sum(of_layers)[:, 1:].view(2, 2, 2, 3)
    found = AttentionEvidence(model, forward_func=lambda pixels: model(pixels)[0]).relevance(VOLUME, target=1)
    assert_close(shares(found), shares(expected).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [AttentionEvidence, TokenEvidence])
def test_unetr_of_a_voxel(method):
    torch.manual_seed(0)
    model = small_unetr()
    wrapped, target = Wrapped(model, lambda outputs: outputs), (1, 9, 20, 33)
    expected = sum(columns(DENSE, wrapped, VOLUME, target, lambda scores: scores)).view(2, 2, 2, 3)
    found = method(model).relevance(VOLUME.double(), target=target)
    assert_close(shares(found), shares(expected), rtol=1e-6, atol=1e-9)


REGION = torch.zeros(VOLUME.shape[2:], dtype=torch.bool)
REGION[5:15, 8:20, 10:30] = True


def small_unetr(volume=VOLUME):
    sizes = {"feature_size": 2, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2}
    return nets.UNETR(1, 2, volume.shape[2:], **sizes).eval().double()


def test_unetr_of_a_mean_under_a_mask():
    torch.manual_seed(0)
    model = small_unetr()

    def mean_of_region(outputs):
        return outputs[:, 1:2][:, :, REGION].mean(2)

    wrapped = Wrapped(model, mean_of_region)
    expected = sum(columns(DENSE, wrapped, VOLUME, 0, lambda scores: scores)).view(2, 2, 2, 3)
    found = TokenEvidence(model, forward_func=lambda pixels: mean_of_region(model(pixels))[:, 0])
    assert_close(shares(found.relevance(VOLUME.double())), shares(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.fault
@pytest.mark.parametrize(
    "of_two",
    [
        lambda model, other, pixels: model(pixels) * other(pixels),
        lambda model, other, pixels: model(pixels) - model(-pixels),
        lambda model, other, pixels: model(pixels * other(pixels)[:, :1].detach()),
        lambda model, other, pixels: model(model(pixels)[:, :1]),
    ],
)
def test_unetr_and_another_model(of_two):
    torch.manual_seed(0)
    model, other = small_unetr(SMALL), small_unetr(SMALL)
    method = TokenEvidence(model, forward_func=lambda pixels: of_two(model, other, pixels)[:, 1].mean((1, 2, 3)))
    with pytest.raises(RuntimeError, match="forward_func must run one model, and run it once"):
        method.relevance(SMALL.double())


def windows_by_hand(shape, is_shifted, window=7):
    """The voxel of each token of each window, in order; -1 in padding."""
    sides = [min(size, window) for size in shape]
    shifts = [window // 2 if is_shifted and size > window else 0 for size in shape]
    places = torch.arange(torch.Size(shape).numel()).view(shape)
    for dim, (size, side, shift) in enumerate(zip(shape, sides, shifts, strict=True)):
        padding = list(places.shape)
        padding[dim] = -size % side
        places = torch.cat([places, torch.full(padding, -1)], dim).roll(-shift, dim)
    for dim, side in enumerate(sides):
        places = places.unfold(dim, side, side)
    return places.reshape(-1, torch.Size(sides).numel())


def test_swin_unetr_of_a_voxel():
    torch.manual_seed(0)
    sizes = {"feature_size": 12, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 2, 2), "norm_name": "batch"}
    model = nets.SwinUNETR(1, 2, **sizes).eval().double()
    of_blocks = columns(DENSE, Wrapped(model, lambda outputs: outputs), SMALL, (1, 9, 20, 30), lambda scores: scores)
    grids = [(size, size, size) for size in (16, 16, 8, 4, 2)]
    places = [(shape, windows_by_hand(shape, number == 1)) for number, shape in enumerate(grids)]
    expected = on_finest([field(each, place, 1) for each, place in zip(of_blocks, places, strict=True)])
    found = TokenEvidence(model).relevance(SMALL.double(), target=(1, 9, 20, 30))
    assert_close(shares(found), shares(expected), rtol=1e-6, atol=1e-9)
