"""Patch weights of queries against one dense matrix over queries, words and patches in float64."""

import copy

import pytest
import torch
from installed import HAS_TRANSFORMERS_5
from text_models import ANSWER, text_model
from torch.testing import assert_close

from captum_gmar import AnswerEvidence
from captum_gmar.vlm.query_former import query_patch_weights

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)

QUERIES, PATCHES = 4, 16


def rolled_out(model, inputs):
    """Return the block (Q, P) of the product of all steps over queries, words and patches."""
    kept = []
    former = model.get_submodule("model.qformer" if hasattr(model, "model") else "qformer")
    model.set_attn_implementation("eager")
    hooks = [
        part.attention.register_forward_hook(lambda module, args, output: kept.append(output[1][0].mean(0)))
        for layer in former.encoder.layer
        for part in (layer.attention, getattr(layer, "crossattention", None))
        if part is not None
    ]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    tokens = kept[0].shape[0]
    patches = next(weights for weights in kept if weights.shape[0] != weights.shape[1]).shape[1]
    product = torch.eye(tokens + patches, dtype=torch.float64)
    for weights in kept:
        step = torch.eye(len(product), dtype=torch.float64)
        rows, columns = weights.shape
        if rows == columns == tokens:
            step[:tokens, :tokens] = (step[:tokens, :tokens] + weights) / 2
        else:
            step[:rows] /= 2
            step[:rows, tokens:] = weights / 2
        product = step @ product
    assert_close(product.sum(1), torch.ones(len(product), dtype=torch.float64))
    return product[:QUERIES, -PATCHES:]


@pytest.mark.parametrize("name", ["blip2", "instructblip"])
def test_as_written_out(name):
    model, inputs = text_model(name)
    weights = query_patch_weights(model, inputs)
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    expected = rolled_out(copy.deepcopy(model), inputs)
    assert_close(weights.flatten(1), expected, rtol=1e-9, atol=1e-12)
    assert weights.shape == (QUERIES, 4, 4)
    assert 0 < weights.sum((1, 2)).min() <= weights.sum((1, 2)).max() < 1
    (picture,) = result.pictures
    queries = result.relevance[:, picture.positions]
    assert_close(result.picture_relevance().flatten(1), queries @ expected, rtol=1e-9, atol=1e-12)
    assert_close(sum(result.shares().values()), torch.ones(len(ANSWER), dtype=torch.float64))
    assert not any(module._forward_hooks for module in model.modules())
