"""Relevance of image tokens handed down through a vision tower, against matrices written out in float64."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5
from torch.testing import assert_close

if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from answering import build_processor, photo
from text_models import llava

from captum_gmar import AnswerEvidence
from captum_gmar.attr.tower_rollout import _read_layers, handed_down


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return llava()[0].eval().double()


def rolled_out(tower, pixels, layers):
    """(T, T), row by token of what the layers made of all tokens."""
    eager = type(tower)(tower.config).eval().double()
    eager.load_state_dict(tower.state_dict())
    eager.set_attn_implementation("eager")
    attentions = eager(pixels, output_attentions=True).attentions[:layers]
    product = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
    for attention in attentions:
        product = (attention[0].mean(0) + torch.eye(len(product))) / 2 @ product
    return product.detach()


@pytest.mark.parametrize(("chosen", "without_last"), [(-1, 0), (-2, 1)])
def test_as_written_out(model, chosen, without_last, monkeypatch):
    monkeypatch.setattr(model.config, "vision_feature_layer", chosen)
    tower = model.model.vision_tower
    pixels = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    maps = torch.randn(3, 4, 4, dtype=torch.float64)
    expected = rolled_out(tower, pixels, tower.config.num_hidden_layers - without_last)
    prefix = len(expected) - 16
    found = handed_down(model, pixels, maps)
    assert_close(found.flatten(1), maps.flatten(1) @ expected[prefix:, prefix:], rtol=1e-6, atol=1e-9)
    pooled = handed_down(model, pixels, maps[:, ::2, ::2])  # as if a token had been made of four patches
    spread = maps[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
    assert_close(pooled, handed_down(model, pixels, spread), rtol=1e-9, atol=1e-12)


def test_layers_that_image_tokens_are_made_of(model, monkeypatch):
    for chosen, count in ((-1, 6), (-3, 4), (2, 2), ([0, -2], 5)):
        monkeypatch.setattr(model.config, "vision_feature_layer", chosen)
        assert _read_layers(model, list(range(6))) == list(range(count))


def test_of_an_answer_in_words(model):
    evidence = AnswerEvidence(model.float(), build_processor())
    answer = evidence.attribute("what?", target="a cat", images=photo())
    of_patches = evidence.tower_relevance(answer.words(), "what?", images=photo())
    assert of_patches.shape == (2, 4, 4)
    assert of_patches.abs().sum() < answer.words().picture_relevance().abs().sum()


def test_tiles_are_refused(model):
    with pytest.raises(ValueError, match=r"of one picture in one piece.*Got \(2, 3, 32, 32\)"):
        handed_down(model, torch.randn(2, 3, 32, 32), torch.randn(1, 4, 4))
