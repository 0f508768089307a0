"""Token evidence: what its account sums to, and what leaves it as it is."""

import pytest
import torch
from field_families import FIELD_FAMILIES
from torch.testing import assert_close

from captum_gmar import AttentionEvidence, TokenEvidence


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


@pytest.mark.parametrize("name", ["Swin", "VideoMAE", "YOLOS"])
def test_without_one_patch_grid_it_is_attention_evidence(name):
    torch.manual_seed(0)
    family = FIELD_FAMILIES[name]
    model, inputs, target = family.make().eval(), torch.randn(2, *family.shape), family.target
    expected = AttentionEvidence(model).relevance(inputs, target)
    assert torch.equal(TokenEvidence(model).relevance(inputs, target), expected)
    assert torch.equal(TokenEvidence(model).explain(inputs, [target]).relevance[:, 0], expected)
