"""How the model that answers is made still runs: lessons, steps, and a folder that transformers reads."""

import pytest
import torch
import transformers

pytest.importorskip("tools.answering_model.train", reason="the tools are not installed; they stand in a checkout")
if int(transformers.__version__.partition(".")[0]) < 5:
    pytest.skip("the model that answers is made with transformers 5", allow_module_level=True)

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from captum_gmar.demo import load_model, make_scene
from captum_gmar.demo.patches import GRID, patch_shares, scene_pixel_values
from captum_gmar.demo.questions import questions_of
from captum_gmar.demo.scenes import KINDS
from tools.answering_model import train
from tools.answering_model.lessons import LENGTH, QUESTIONS, apart, begin_words, draw_lessons, draw_scenes, make_pool
from tools.answering_model.measures import words_right
from tools.answering_model.network import LONGEST, build_model, build_processor, see, vocabulary
from tools.demo_model.fitting import Stage

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
    for tokens, answers in zip(pool.tokens, pool.answers, strict=True):
        for question, ids, answer in zip(next(drawn)[1], tokens.tolist(), answers.tolist(), strict=True):
            text = " ".join(words[number] for number in ids if words[number] != "<pad>")
            assert text == f"{question.prompt.replace('?', ' ?')} {question.answer} </s>"
            assert " ".join(words[number] for number in answer if number >= 0) == f"{question.answer} </s>"
    assert LENGTH <= LONGEST


def test_questions_in_one_sequence_do_not_see_each_other(model, pool):
    features, tokens, answers = draw_lessons(pool, 1, torch.Generator().manual_seed(0))
    mask, positions = apart(GRID * GRID)
    with torch.no_grad():
        loss = train._loss(model, features, tokens, answers, mask, positions)
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


def test_words_begin_as_what_shows_them():
    torch.manual_seed(0)
    model = build_model().eval()
    begin_words(model, SEED, 40)
    scene = make_scene(7, 1)
    with torch.no_grad():
        patches = model.model.multi_modal_projector(see(model.model.vision_tower, scene_pixel_values([scene])))[0]
        embedding = model.get_input_embeddings().weight.clone()
    on_object = patch_shares(scene.masks[0]) > 0.9
    shown = patches[on_object].mean(0) - patches[~on_object].mean(0)
    shapes = list(dict.fromkeys(shape.__name__ for _, shape in KINDS))
    likeness = {shape: float(torch.cosine_similarity(embedding[vocabulary()[shape]], shown, 0)) for shape in shapes}
    assert max(likeness, key=likeness.get) == KINDS[scene.labels[0]][1].__name__


def test_training_writes_a_folder_that_transformers_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "_OF_WORDS", 30)
    monkeypatch.setattr(train, "_SCENES_ASKED", 1)
    train.train(tmp_path, 0, Stage(side=GRID, scenes=3, steps=2, batch_size=2, rates=(1e-3, 1e-4)))
    assert "all 0." in capsys.readouterr().out
    model, processor = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 3_000_000
    tower = model.model.vision_tower.state_dict()
    assert all(torch.equal(tower[name], value) for name, value in load_model().vit.state_dict().items())
    image = Image.fromarray(make_scene(SEED, 2).image)
    inputs = processor(images=image, text="<image>what is in the picture?", return_tensors="pt")
    assert model(**inputs).logits.shape == (1, GRID * GRID + 6, len(vocabulary()))


def test_words_are_counted_by_kind(model):
    processor = build_processor()
    _, questions = next(draw_scenes(SEED + 1))

    def generate(input_ids, **kwargs):
        answers = [processor.tokenizer(question.answer)["input_ids"] for question in questions]
        longest = max(map(len, answers))
        return torch.cat([input_ids, torch.tensor([answer + [1] * (longest - len(answer)) for answer in answers])], 1)

    told = words_right(type("Right", (), {"generate": staticmethod(generate)}), processor, SEED + 1, 1)
    words = [word for question in questions_of(make_scene(SEED + 1, 2)) for word in question.words]
    assert told.startswith(f"all 1.000 of {len(words)}")
    assert f"relation 1.000 of {sum(word.kind == 'relation' for word in words)}" in told
