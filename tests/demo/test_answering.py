"""The built-in model that answers: its parts, and what it says."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("the model that answers needs transformers 5 or newer", allow_module_level=True)

from captum_gmar import AnswerEvidence
from captum_gmar.demo import (
    answering_folder,
    load_answering_model,
    load_answering_processor,
    load_model,
    load_scene,
    make_scene,
)
from captum_gmar.demo.patches import patch_shares
from captum_gmar.demo.questions import questions_of

SEEDS = range(600_000, 600_008)


@pytest.fixture(scope="module")
def answering():
    return load_answering_model(), load_answering_processor()


def test_its_tower_is_the_demo_model_and_loading_leaves_no_trace(answering):
    before = torch.random.get_rng_state()
    model = load_answering_model()
    assert torch.equal(torch.random.get_rng_state(), before)
    tower = model.model.vision_tower.state_dict()
    assert all(torch.equal(tower[name], value) for name, value in load_model().vit.state_dict().items())
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not model.training
    weights = zip(model.state_dict().values(), answering[0].state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_what_it_adds_to_the_package_is_small():
    with answering_folder() as folder:
        assert sum(path.stat().st_size for path in folder.iterdir()) < 270_000
        assert "_name_or_path" not in (folder / "config.json").read_text()


def test_it_answers_and_its_words_lie_on_their_objects(answering):
    evidence, right, words, on_own = AnswerEvidence(*answering), 0, 0, []
    for seed in SEEDS:
        scene = make_scene(seed, 2)
        for question in questions_of(scene)[:3]:
            told = evidence.attribute(question.prompt, images=load_scene(seed, objects=2).image).words()
            words += len(question.words)
            right += sum(word.text == other for word, other in zip(question.words, told.tokens, strict=False))
            for word, other, relevance in zip(question.words, told.tokens, told.picture_relevance(), strict=False):
                if word.text == other and word.kind == "shape":
                    values = relevance.clamp(min=0).flatten()
                    on_own.append(float(values @ patch_shares(scene.masks[word.objects[0]]) / values.sum()))
    assert right / words > 0.9
    assert sum(on_own) / len(on_own) > 0.3
