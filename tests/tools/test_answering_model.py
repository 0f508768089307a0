"""How the model that answers is made still runs: lessons, steps, and a folder that transformers reads."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

pytest.importorskip("tools.answering_model.train", reason="the tools are not installed; they stand in a checkout")
if not HAS_TRANSFORMERS_5:
    pytest.skip("the model that answers is made with transformers 5", allow_module_level=True)

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from captum_gmar.demo import load_model, make_scene
from captum_gmar.demo.patches import GRID, scene_pixel_values
from tools.answering_model import train
from tools.answering_model.lessons import (
    LENGTH,
    QUESTIONS,
    apart,
    draw_lessons,
    draw_scenes,
    make_pool,
)
from tools.answering_model.network import LONGEST, build_model, see, vocabulary
from tools.training.loop import Stage

SEED = 5_000_000


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model().eval()


@pytest.fixture(scope="module")
def pool(model):
    return make_pool(model.model.vision_tower, SEED, 3)


def test_lessons_are_the_questions_and_their_answers(pool):
    words = {number: word for word, number in vocabulary().items()}
    drawn = draw_scenes(SEED)
    for lesson in pool.lessons:
        for question, ids, answer in zip(next(drawn)[1], lesson.tokens.tolist(), lesson.answers.tolist(), strict=True):
            text = " ".join(words[number] for number in ids if words[number] != "<pad>")
            assert text == f"{question.prompt.replace('?', ' ?')} {question.answer} </s>"
            assert " ".join(words[number] for number in answer if number >= 0) == f"{question.answer} </s>"
    assert LENGTH <= LONGEST


def test_questions_in_one_sequence_do_not_see_each_other(model, pool):
    features, lesson = draw_lessons(pool, 1, torch.Generator().manual_seed(0))
    tokens, answers = lesson.tokens, lesson.answers
    with torch.no_grad():
        states = train._states(model, features, tokens, *apart(GRID * GRID))
        loss = train._answering_loss(model, states[-1], answers)
        seen = model.model.multi_modal_projector(features)
        summed = count = 0
        for ids, right in zip(tokens.view(QUESTIONS, -1), answers.view(QUESTIONS, -1), strict=True):
            embedded = torch.cat([seen, model.get_input_embeddings()(ids)[None]], 1)
            logits = model.lm_head(model.model.language_model(inputs_embeds=embedded).last_hidden_state)[
                0, GRID * GRID :
            ]
            made = (right[1:] >= 0).nonzero().flatten()
            summed -= logits[made].log_softmax(-1)[range(len(made)), right[1:][made]].sum()
            count += len(made)
    torch.testing.assert_close(loss, summed / count, rtol=1e-4, atol=1e-5)


def test_the_tower_is_seen_as_the_model_sees_it(model):
    pixel_values = scene_pixel_values([make_scene(7, 1)])
    with torch.no_grad():
        seen = model.model.multi_modal_projector(see(model.model.vision_tower, pixel_values))
        expected = model.model.get_image_features(pixel_values).pooler_output[0]
    torch.testing.assert_close(seen[0], expected)


def test_training_writes_a_folder_that_transformers_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "_ALIGNING", 2)
    monkeypatch.setattr(train, "_SCENES_ASKED", 1)
    monkeypatch.setattr(train, "_SEEDS_OF_STAGE", 3)
    train.train(tmp_path, 0, [Stage(side=GRID, scenes=3, steps=1, batch_size=2, rates=(1e-3, 1e-4))] * 2)
    assert capsys.readouterr().out.count("step 1/1") == 2
    model, processor = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 3_000_000
    tower = model.model.vision_tower.state_dict()
    assert all(torch.equal(tower[name], value) for name, value in load_model().vit.state_dict().items())
    image = Image.fromarray(make_scene(SEED, 2).image)
    inputs = processor(images=image, text="<image>what is in the picture?", return_tensors="pt")
    assert model(**inputs).logits.shape == (1, GRID * GRID + 6, len(vocabulary()))
