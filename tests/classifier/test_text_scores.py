"""Texts are classes: their logits are the model's own scores of the image with each of them."""

import pytest
import torch
import transformers
from classifiers import LONGEST_TEXT
from two_towers import LONGEST, TEXTS, packed_images, spell, two_towers

from captum_gmar.classifier import load_classifier
from captum_gmar.classifier.text_scores import PackedTextScores, TextScores


@pytest.mark.parametrize("name", ["CLIP", "MetaClip2", "ChineseCLIP", "AltCLIP", "Siglip"])
def test_logits_are_those_of_the_whole_model(name, images):
    if not hasattr(transformers, f"{name}Model"):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    model = two_towers(name)
    scores = TextScores(model, spell, TEXTS)
    whole = spell(TEXTS, padding=True, max_length=LONGEST if name == "Siglip" else 0)
    torch.testing.assert_close(scores(images), model(pixel_values=images, **whole).logits_per_image)
    assert scores.config.id2label == dict(enumerate(TEXTS))
    assert (scores.config.problem_type == "multi_label_classification") == (name == "Siglip")
    assert model.config.id2label != scores.config.id2label


def test_logits_of_images_that_come_as_patches_are_those_of_the_whole_model():
    model = two_towers("Siglip2", num_patches=16)
    patches, mask, shapes = packed_images()
    whole = spell(TEXTS, padding=True, max_length=LONGEST)
    expected = model(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes, **whole).logits_per_image
    torch.testing.assert_close(PackedTextScores(model, spell, TEXTS)(patches, mask, shapes), expected)


def test_a_folder_is_loaded_with_texts_as_its_classes(models):
    classifier = load_classifier(models / "clip-of-texts", texts=TEXTS)
    assert classifier.labels == {0: "a cat", 1: "dog"}
    whole = transformers.CLIPModel.from_pretrained(models / "clip-of-texts").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(models / "clip-of-texts")(
        TEXTS, padding=True, return_tensors="pt"
    )
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(classifier.logits(pixels), whole(pixel_values=pixels, **tokens).logits_per_image)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "texts must be at least one, none empty, each given once"),
        (("a", " "), "texts must be at least one, none empty, each given once"),
        (("a", "a"), "texts must be at least one, none empty, each given once"),
        (("a", "ninechars"), r"text must be of at most the model's 8 tokens, but got 10 of 'ninechars'."),
    ],
)
def test_texts_that_cannot_be_scored_are_named(texts, message):
    with pytest.raises(ValueError, match=message):
        TextScores(two_towers("CLIP"), spell, texts)


def test_other_models_and_arguments_are_refused(models, vit):
    with pytest.raises(ValueError, match=r"model must score images against texts.* but got ViTForImageClassification"):
        TextScores(vit, spell, TEXTS)
    with pytest.raises(TypeError, match=r"texts must be a sequence of strings, but got 'a cat'\."):
        TextScores(two_towers("CLIP"), spell, "a cat")
    with pytest.raises(TypeError, match=r"processor must hold the model's tokenizer, but got NoneType\."):
        TextScores(two_towers("CLIP"), None, TEXTS)
    with pytest.raises(ValueError, match=r"vit must score images against texts, but is of type 'vit'"):
        load_classifier(models / "vit", texts=TEXTS)
    long = "a" * LONGEST_TEXT
    with pytest.raises(ValueError, match=f"text must be of at most the model's {LONGEST_TEXT} tokens"):
        load_classifier(models / "clip-of-texts", texts=[long])
