"""Questions about scenes, with answers and the objects that their words describe."""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple

import numpy as np

from captum_gmar.demo.scenes import KINDS, Scene

CLEAR: Final = 1.25  # minimal ratio of two objects' distances along the axes for a clear relation
OPPOSITE: Final = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
DESCRIBE: Final = "what is in the picture?"


class Word(NamedTuple):
    """Word of an answer."""

    text: str
    kind: str = "other"  # "shape", "texture" or "relation", which describe objects, or "other"
    objects: tuple[int, ...] = ()  # indices of the described objects, in the order of the scene's labels


class SceneQuestion(NamedTuple):
    """Question about a scene, with the words of its only right answer."""

    prompt: str
    words: tuple[Word, ...]

    @property
    def answer(self) -> str:
        """Text of the answer."""
        return " ".join(word.text for word in self.words)


def questions_of(scene: Scene) -> list[SceneQuestion]:
    """Return all questions with exactly one right answer about a scene of one or two objects.

    Two objects without a clear relation have none. Two objects of the same shape have only the description, since
    questions name objects by shape.

    Example::

        >>> from captum_gmar.demo import make_scene
        >>> for question in questions_of(make_scene(600_010, objects=2))[:2]:
        ...     print(question.prompt, question.answer)
        what is in the picture? a striped disc left of a dotted triangle
        what texture is the triangle? dotted
    """
    if len(scene.labels) == 1:
        return [SceneQuestion(DESCRIBE, _object_words(scene, 0)), _texture_question(scene, 0)]
    if len(scene.labels) != 2:
        raise ValueError(f"scene must have one or two objects, but got {len(scene.labels)}.")
    relation = _relation(scene)
    if relation is None:
        return []
    first, second = (0, 1) if relation in ("above", "left of") else (1, 0)
    relation_words = _relation_words(relation if first == 0 else OPPOSITE[relation])
    description = SceneQuestion(
        DESCRIBE, (*_object_words(scene, first), *relation_words, *_object_words(scene, second))
    )
    if _shape(scene, 0) == _shape(scene, 1):
        return [description]
    questions = [description]
    for index in (0, 1):
        questions += [_texture_question(scene, index), _place_question(scene, index, relation)]
    return questions + [_side_question(scene, i, name, relation) for i, name in product((0, 1), OPPOSITE)]


def _relation(scene: Scene) -> str | None:
    """Return the first object's relation to the second by their visible centres, or None if it is not clear."""
    (row, column), (other_row, other_column) = (np.argwhere(mask).mean(0) for mask in scene.masks)
    vertical, horizontal = row - other_row, column - other_column
    if max(abs(vertical), abs(horizontal)) < CLEAR * min(abs(vertical), abs(horizontal)):
        return None
    if abs(vertical) > abs(horizontal):
        return "above" if vertical < 0 else "below"
    return "left of" if horizontal < 0 else "right of"


def _shape(scene: Scene, index: int) -> str:
    return KINDS[scene.labels[index]][1].__name__


def _texture(scene: Scene, index: int) -> Word:
    return Word(KINDS[scene.labels[index]][0].__name__, "texture", (index,))


def _object_words(scene: Scene, index: int) -> tuple[Word, ...]:
    return Word("a"), _texture(scene, index), Word(_shape(scene, index), "shape", (index,))


def _relation_words(relation: str) -> tuple[Word, ...]:
    return tuple(Word(text, "relation", (0, 1)) for text in relation.split())


def _texture_question(scene: Scene, index: int) -> SceneQuestion:
    return SceneQuestion(f"what texture is the {_shape(scene, index)}?", (_texture(scene, index),))


def _place_question(scene: Scene, index: int, relation: str) -> SceneQuestion:
    """Ask for the position of an object relative to the other."""
    other = Word("the"), Word(_shape(scene, 1 - index), "shape", (1 - index,))
    relation_words = _relation_words(relation if index == 0 else OPPOSITE[relation])
    return SceneQuestion(f"where is the {_shape(scene, index)}?", (*relation_words, *other))


def _side_question(scene: Scene, index: int, name: str, relation: str) -> SceneQuestion:
    """Ask for the object on one side of an object: the other one, or nothing."""
    is_there = name == (OPPOSITE[relation] if index == 0 else relation)
    words = _object_words(scene, 1 - index) if is_there else (Word("nothing"),)
    return SceneQuestion(f"what is {name} the {_shape(scene, index)}?", words)
