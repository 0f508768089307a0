"""The table of words whose objects are known: what it is compared with is what it is called."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

pytest.importorskip("benchmarks.known_words", reason="the benchmarks are not installed; they run in a checkout")
if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

pytest.importorskip("tools.answering_model.network", reason="the tools are not installed; they stand in a checkout")

from captum.attr import FeatureAblation, ImageMaskInput, LLMAttribution
from PIL import Image

from benchmarks import known_words
from benchmarks.known_words import METHODS, PATCHES, ask, faithfulness, on_objects, record, rollout
from captum_gmar.demo import make_scene
from captum_gmar.demo.drawing import SIZE
from tools.answering_model.network import build_model, build_processor
from tools.answering_model.questions import questions_of


@pytest.fixture(scope="module")
def answering():
    torch.manual_seed(0)
    model = build_model().eval()
    model.set_attn_implementation("eager")
    return model, build_processor()


@pytest.fixture(scope="module")
def drawn(answering):
    scene = make_scene(600_000, 2)
    question = questions_of(scene)[0]
    return scene, question, ask(*answering, scene, question)


def test_the_recorded_pass_is_the_model_s(drawn):
    asked = drawn[2]
    recorded = record(asked)
    torch.testing.assert_close(recorded.scores.detach(), asked.scores(asked.pixel_values)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(recorded.attention.sum(-1), torch.ones(recorded.attention.shape[:-1]))
    assert rollout(asked).sum(1).max() < 1


def test_perturbation_is_captum_s(answering, drawn, monkeypatch):
    (model, processor), (scene, question, asked) = answering, drawn
    monkeypatch.setattr(known_words, "log_odds", lambda logits: logits.log_softmax(-1))  # which Captum explains
    half = torch.arange(SIZE) >= SIZE // 2
    segments = 2 * half[:, None].int() + half.int()
    image = Image.fromarray(scene.image)

    def process(image):
        return processor(images=image, text=f"<image>{question.prompt}", return_tensors="pt")

    inputs = ImageMaskInput(image, segments, baseline=(known_words.GREY,) * 3, processor_fn=process)
    captums = LLMAttribution(FeatureAblation(model), processor.tokenizer).attribute(
        inputs, target=question.answer, use_cached_outputs=False
    )
    torch.testing.assert_close(known_words.perturbation(asked, segments), captums.token_attr, rtol=1e-3, atol=1e-3)


def test_every_method_gives_each_word_a_map(drawn):
    scene, question, asked = drawn
    for explain, _ in METHODS.values():
        assert explain(asked).shape == (asked.words, PATCHES)
    spoken = [word.kind for word in question.words if word.objects]
    covered = torch.from_numpy(scene.masks[1] > 0).view(14, 8, 14, 8).float().mean((1, 3)).flatten()
    for patch in (int(covered.argmax()), int(covered.argmin())):
        measured = list(on_objects(torch.eye(PATCHES)[[patch]].expand(asked.words, -1), scene, question))
        assert [kind for kind, *_ in measured] == spoken
        assert measured[spoken.index("shape")][1:] == (float(covered[patch]), float(covered[patch] > 0))
    assert len(list(faithfulness(torch.rand(asked.words, PATCHES), question, asked))) == len(spoken)


def test_effects_of_two_masks(drawn):
    """Of one half and its complement, all effects have one size and the half's sign, as ridge regression has it."""
    effects = known_words.masked_effects(drawn[2], masks=2)
    half = torch.randperm(PATCHES, generator=torch.Generator().manual_seed(0)) < PATCHES // 2
    assert torch.equal(effects[:, half] > 0, (effects[:, half][:, :1] > 0).expand(-1, PATCHES // 2))
    torch.testing.assert_close(effects[:, ~half], -effects[:, half])


def test_sharpened_maps_have_one_entropy():
    sharp = known_words.sharpen(torch.rand(3, PATCHES, generator=torch.Generator().manual_seed(0)) ** 3 - 0.1)
    torch.testing.assert_close(torch.special.entr(sharp).sum(1).exp(), torch.full((3,), 12.0), rtol=1e-3, atol=0)
