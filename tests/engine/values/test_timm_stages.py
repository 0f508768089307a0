"""Real timm models of several stages, of random weights: which explain them, and on which grid."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    TimmBackboneConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from captum_gmar import AttentionEvidence, AttentionRollout, GMARAttribution

timm = pytest.importorskip("timm", reason="timm, which needs torchvision, is not installed")

SIDES = {  # of the finest grid, and whether relevance can be handed down as well
    "swin_tiny_patch4_window7_224": (56, True),
    "maxvit_nano_rw_256": (64, True),
    "mobilevit_xxs": (32, True),
    "gcvit_xxtiny": (56, True),
    "davit_tiny": (56, False),  # every second attention is among channels
    "xcit_nano_12_p16_224": (14, False),
    "edgenext_xx_small": (32, False),
    "hiera_tiny_224": (56, False),
    "pvt_v2_b0": (7, False),
    "efficientformer_l1": (7, True),
}


@pytest.fixture(scope="module", params=SIDES)
def case(request):
    torch.manual_seed(0)
    model = timm.create_model(request.param, num_classes=5).eval()
    for parameter in model.parameters():
        if not parameter.any():  # as the last layers, of which all would be zero
            nn.init.normal_(parameter, std=0.1)
    size = timm.get_pretrained_cfg(request.param).input_size[-1]
    return model, torch.randn(1, 3, size, size), *SIDES[request.param]


def test_evidence_of_timm_models(case):
    model, inputs, side, _ = case
    relevance = AttentionEvidence(model).relevance(inputs, target=1)
    assert relevance.shape == (1, side, side)
    assert 0 < relevance.abs().sum() <= 1 + 1e-4
    assert_close(AttentionEvidence(model).relevance(inputs, target=1), relevance, rtol=1e-4, atol=1e-6)


def test_gmar_of_timm_models(case):
    model, inputs, side, hands_down = case
    for method in (GMARAttribution, AttentionRollout):
        if hands_down:
            relevance = method(model).relevance(inputs, target=1)
            assert relevance.shape == (1, side, side)
            assert relevance.min() >= 0
            assert 0.5 < relevance.sum() < 1 + 1e-4
        else:
            with pytest.raises((RuntimeError, ValueError), match="TokenEvidence"):
                method(model).relevance(inputs, target=1)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_timm_model_in_transformers_wrapper_is_as_it_is_alone(name):
    torch.manual_seed(0)
    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture=name, num_labels=5)).eval()
    nn.init.normal_(model.timm_model.get_classifier()[0].weight if "deit" in name else model.timm_model.head.fc.weight)
    inputs = torch.randn(1, 3, 224, 224)
    for method in (GMARAttribution, AttentionEvidence):
        alone = method(model.timm_model).relevance(inputs, target=1)
        assert alone.abs().sum() > 0.5
        assert_close(method(model).relevance(inputs, target=1), alone, rtol=1e-4, atol=1e-7)


def test_a_detector_with_a_timm_backbone():
    torch.manual_seed(0)
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    backbone = TimmBackboneConfig(backbone="resnet18", out_indices=[4])
    config = DetrConfig(backbone_config=backbone, use_timm_backbone=False, d_model=32, num_queries=6, **sizes)
    relevance = AttentionEvidence(DetrForObjectDetection(config).eval()).relevance(torch.rand(1, 3, 96, 128), (3, 1))
    assert relevance.shape == (1, 3, 4)  # of the backbone's last map
    assert_close(relevance.abs().sum(), torch.tensor(1.0))
