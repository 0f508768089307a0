"""One call for an image and texts gives what the whole model's score gives, written out."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor
from two_towers import LONGEST, TEXTS, packed_images, spell, two_towers

from captum_gmar import AttentionEvidence, GradientRollout, TokenEvidence, explain_text

PHOTO = Image.effect_noise((48, 40), 90).convert("RGB")
IMAGES = ViTImageProcessor(size={"height": 32, "width": 32})
PROCESSOR = SimpleNamespace(tokenizer=spell, image_processor=IMAGES)


def whole_score(model, texts, max_length=0):
    words = spell(texts, padding=True, max_length=max_length)
    return lambda pixels: model(pixel_values=pixels, **words).logits_per_image


def pixels():
    return IMAGES(PHOTO, return_tensors="pt")["pixel_values"]


def test_texts_of_clip_compete():
    model = two_towers("CLIP")
    explained = explain_text(model, PROCESSOR, PHOTO, TEXTS)
    score = whole_score(model, TEXTS)
    evidence = TokenEvidence(model, forward_func=score)
    expected = torch.cat([evidence.relevance(pixels(), target=target) for target in (0, 1)])
    torch.testing.assert_close(explained.relevance, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(explained.scores, score(pixels())[0].detach())
    torch.testing.assert_close(explained.relevance[0], -explained.relevance[1], atol=1e-6, rtol=1e-4)  # of two


def test_texts_of_siglip_stand_alone():
    model = two_towers("Siglip")
    together = explain_text(model, PROCESSOR, PHOTO, TEXTS).relevance
    for text, relevance in zip(TEXTS, together, strict=True):
        evidence = TokenEvidence(model, forward_func=whole_score(model, [text], LONGEST))
        torch.testing.assert_close(relevance[None], evidence.relevance(pixels(), target=0), atol=1e-6, rtol=1e-4)


def test_a_contrast_is_taken_off_by_any_method_that_takes_one():
    model = two_towers("CLIP")
    score = whole_score(model, TEXTS)
    for name, method in {"attention-evidence": AttentionEvidence, "gradient-rollout": GradientRollout}.items():
        explained = explain_text(model, PROCESSOR, PHOTO, TEXTS[0], contrast=TEXTS[1], method=name)
        expected = method(model, forward_func=score).relevance(pixels(), target=0, contrast=1)
        torch.testing.assert_close(explained.relevance, expected, atol=1e-6, rtol=1e-4)
        assert (explained.texts, explained.contrast) == ((TEXTS[0],), TEXTS[1])


def test_images_that_come_as_patches_are_explained_on_their_grid():
    model = two_towers("Siglip2", num_patches=16)
    patches, mask, shapes = (each[:1] for each in packed_images())
    made = {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shapes}
    processor = SimpleNamespace(tokenizer=spell, image_processor=lambda images, return_tensors: made)
    explained = explain_text(model, processor, PHOTO, TEXTS)
    assert explained.relevance.shape == (2, 2, 3)
    assert (explained.view.photo, explained.view.crop) == (PHOTO, None)
    words = spell(TEXTS[:1], padding=True, max_length=LONGEST)

    class Alone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixel_values, pixel_attention_mask, spatial_shapes):
            images = {"pixel_attention_mask": pixel_attention_mask, "spatial_shapes": spatial_shapes}
            return model(pixel_values=pixel_values, **images, **words).logits_per_image

    expected = AttentionEvidence(Alone()).relevance(patches, additional_forward_args=(mask, shapes))
    torch.testing.assert_close(explained.relevance[:1], expected, atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match=r"method must be 'token-evidence' for images that come as patches"):
        explain_text(model, processor, PHOTO, TEXTS, method="gmar-l1")


def test_the_picture_has_a_map_for_each_text(drawn):
    explained = explain_text(two_towers("CLIP"), PROCESSOR, PHOTO, TEXTS)
    _, axes = explained.visualize(use_pyplot=False)
    titles = [panel.get_title() for panel in axes[0]]
    assert [text for text in TEXTS if any(text in title for title in titles)] == TEXTS


def test_what_cannot_be_explained_is_told():
    model = two_towers("CLIP")
    with pytest.raises(TypeError, match=r"text must be a string or a sequence of strings, but got None\."):
        explain_text(model, PROCESSOR, PHOTO, None)
    with pytest.raises(TypeError, match=r"image must be a PIL.Image.Image, but got str\."):
        explain_text(model, PROCESSOR, "photo.jpg", TEXTS)
    with pytest.raises(ValueError, match=r"image must have pixels, but got 0x9 of them\."):
        explain_text(model, PROCESSOR, Image.new("RGB", (0, 9)), TEXTS)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, but got NoneType\."):
        explain_text(None, PROCESSOR, PHOTO, TEXTS)
    for processor in (None, PROCESSOR.image_processor):
        with pytest.raises(TypeError, match=r"processor must be the model's, with .*tokenizer, as AutoProcessor"):
            explain_text(model, processor, PHOTO, TEXTS)
    with pytest.raises(ValueError, match=r"each given once"):
        explain_text(model, PROCESSOR, PHOTO, "a cat", contrast="a cat")
    with pytest.raises(ValueError, match=r"contrast requires a method that takes it, but got 'rollout'\."):
        explain_text(model, PROCESSOR, PHOTO, "a cat", contrast="dog", method="rollout")
    with pytest.raises(ValueError, match=r"text must be of at most the model's 8 tokens"):
        explain_text(model, PROCESSOR, PHOTO, "a photograph of a cat")
