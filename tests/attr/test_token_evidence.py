"""Token evidence: what its account sums to, and what leaves it as it is."""

import pytest
import torch
import transformers
from torch.testing import assert_close

from captum_gmar import AttentionEvidence, TokenEvidence


def test_shares_sum_to_at_most_one_in_size(vit, images):
    relevance = TokenEvidence(vit).relevance(images, target=1)
    assert (relevance.abs().sum((1, 2)) <= 1 + 1e-6).all()
    assert (relevance < 0).any()


def test_a_contrast_the_other_way_round_is_the_negative(vit, images):
    evidence = TokenEvidence(vit)
    assert_close(evidence.relevance(images, 1, contrast=4), -evidence.relevance(images, 4, contrast=1))


def test_a_number_added_to_all_logits_changes_nothing(vit, images):
    shifted = TokenEvidence(vit, forward_func=lambda inputs: vit(inputs).logits + 7)
    assert_close(shifted.relevance(images, 1), TokenEvidence(vit).relevance(images, 1), atol=1e-5, rtol=1e-4)


def test_a_model_without_attention_has_its_evidence_where_the_classifier_reads(make_vit, images):
    """Values that are zero: CLS reads nothing, so no patch counts by what was read, and none by what it holds."""
    vit = make_vit()
    for name, parameter in vit.named_parameters():
        if "value" in name or "v_proj" in name:
            torch.nn.init.zeros_(parameter)
    relevance = TokenEvidence(vit).relevance(images, target=1)
    assert_close(relevance, torch.zeros_like(relevance))


def test_two_classes_are_each_others_negative(make_vit, images):
    """With two classes the log-odds of one are those of the other, with the sign turned."""
    evidence = TokenEvidence(make_vit(num_labels=2))
    assert_close(evidence.relevance(images, 0), -evidence.relevance(images, 1))


SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}


@pytest.mark.parametrize(
    ("name", "config", "shape", "target"),
    [
        (
            "SwinForImageClassification",
            {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4},
            (3, 32, 32),
            1,
        ),
        ("VideoMAEForVideoClassification", {**SIZES, "patch_size": 8, "num_frames": 4}, (4, 3, 32, 32), 1),
        ("YolosForObjectDetection", {**SIZES, "image_size": [32, 32], "num_detection_tokens": 4}, (3, 32, 32), (1, 1)),
    ],
)
def test_without_one_patch_grid_it_is_attention_evidence(name, config, shape, target):
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**{"image_size": 32, **config})).eval()
    inputs = torch.randn(2, *shape)
    expected = AttentionEvidence(model).relevance(inputs, target)
    assert torch.equal(TokenEvidence(model).relevance(inputs, target), expected)
    assert torch.equal(TokenEvidence(model).explain(inputs, [target]).relevance[:, 0], expected)
