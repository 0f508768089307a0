"""Questions about scenes: true answers, and words that describe their own object."""

import numpy as np
import pytest

pytest.importorskip("tools.answering_model.questions", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.demo import CLASSES, make_scene
from tools.answering_model.questions import DESCRIBE, questions_of

SEEDS = range(800_000, 800_060)


@pytest.fixture(scope="module")
def scenes_and_questions():
    return [(scene, questions_of(scene)) for scene in (make_scene(seed, 2) for seed in SEEDS)]


def names(scene):
    return [CLASSES[label].split() for label in scene.labels]


def has_relation(scene, relation, index):
    """Return whether the visible centres of two objects have a relation."""
    rows, columns = zip(*(np.nonzero(mask) for mask in scene.masks), strict=True)
    along = {"above": rows, "below": rows, "left of": columns, "right of": columns}[relation]
    sign = 1 if relation in ("above", "left of") else -1
    return sign * (along[1 - index].mean() - along[index].mean()) > 0


def test_words_describe_the_objects_that_they_name(scenes_and_questions):
    described = 0
    for scene, questions in scenes_and_questions:
        for word in (word for question in questions for word in question.words):
            if word.kind in ("shape", "texture"):
                (index,) = word.objects
                assert word.text == names(scene)[index][("texture", "shape").index(word.kind)]
                described += 1
            else:
                assert word.objects == ((0, 1) if word.kind == "relation" else ())
    assert described > 500


def test_answers_are_true(scenes_and_questions):
    for scene, questions in scenes_and_questions:
        for prompt, answer in ((question.prompt, question.answer) for question in questions):
            if prompt == DESCRIBE:
                relation = " left of " if " left of " in answer else " above "
                first, second = (part.removeprefix("a ").split() for part in answer.split(relation))
                index = names(scene).index(first)
                assert names(scene)[1 - index] == second
                assert has_relation(scene, relation.strip(), index)
            elif prompt.startswith("where is the "):
                relation, _, other = answer.partition(" the ")
                shapes = [shape for _, shape in names(scene)]
                assert has_relation(scene, relation, shapes.index(prompt.removeprefix("where is the ")[:-1]))
                assert other in shapes
            elif prompt.startswith("what texture is the "):
                assert [answer, prompt.removeprefix("what texture is the ")[:-1]] in names(scene)
            elif answer != "nothing":
                relation, _, shape = prompt.removeprefix("what is ")[:-1].partition(" the ")
                index = names(scene).index(answer.removeprefix("a ").split())
                assert names(scene)[1 - index][1] == shape
                assert has_relation(scene, relation, index)
