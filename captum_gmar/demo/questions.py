"""Questions about the built-in scenes, with their answers, and which object each word of an answer speaks of."""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple

import numpy as np

from captum_gmar.demo.scenes import KINDS, Scene

CLEAR: Final = 1.25  # how much further apart two objects must lie one way than the other to be above or left of another
OPPOSITE: Final = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
DESCRIBE: Final = "what is in the picture?"


class Word(NamedTuple):
    """A word of an answer.

    Attributes:
        text: the word.
        kind: "shape", "texture" or "relation", which speak of objects, or "other".
        objects: indices of the objects of which it speaks, in the order of the scene's labels.
    """

    text: str
    kind: str = "other"
    objects: tuple[int, ...] = ()


class SceneQuestion(NamedTuple):
    """A question about a scene, and the words of its one right answer."""

    prompt: str
    words: tuple[Word, ...]

    @property
    def answer(self) -> str:
        """As the model is to write it."""
        return " ".join(word.text for word in self.words)


def questions_of(scene: Scene) -> list[SceneQuestion]:
    """
    Ask everything that has one right answer about a scene of one or two objects.

    Args:
        scene: of one or two objects.

    Returns:
        list: Of two objects, none if neither lies clearly above or left of the other; only what is in the picture, if
        both have the same shape, by which questions name them.

    Raises:
        ValueError: If the scene has no objects, or more than two.

    Example::

        >>> from captum_gmar.demo import make_scene
        >>> for question in questions_of(make_scene(600_010, objects=2))[:2]:
        ...     print(question.prompt, question.answer)
        what is in the picture? a striped disc left of a dotted triangle
        what texture is the triangle? dotted
    """
    if len(scene.labels) == 1:
        return [SceneQuestion(DESCRIBE, _named(scene, 0)), _texture_question(scene, 0)]
    if len(scene.labels) != 2:
        raise ValueError(f"scene must have one or two objects. Got {len(scene.labels)} instead.")
    relation = _relation(scene)
    if relation is None:
        return []
    first, second = (0, 1) if relation in ("above", "left of") else (1, 0)
    relation_words = _related(relation if first == 0 else OPPOSITE[relation])
    described = SceneQuestion(DESCRIBE, (*_named(scene, first), *relation_words, *_named(scene, second)))
    if _shape(scene, 0) == _shape(scene, 1):
        return [described]
    object_questions = [
        question for i in (0, 1) for question in (_texture_question(scene, i), _place_question(scene, i, relation))
    ]
    side_questions = [_side_question(scene, i, name, relation) for i, name in product((0, 1), OPPOSITE)]
    return [described, *object_questions, *side_questions]


def _relation(scene: Scene) -> str | None:
    """How the first object lies to the second, by the middles of what shows of them; None if that is not clear."""
    (row, column), (other_row, other_column) = (np.argwhere(mask).mean(0) for mask in scene.masks)
    down, across = row - other_row, column - other_column
    if max(abs(down), abs(across)) < CLEAR * min(abs(down), abs(across)):
        return None
    if abs(down) > abs(across):
        return "above" if down < 0 else "below"
    return "left of" if across < 0 else "right of"


def _shape(scene: Scene, index: int) -> str:
    return KINDS[scene.labels[index]][1].__name__


def _texture(scene: Scene, index: int) -> Word:
    return Word(KINDS[scene.labels[index]][0].__name__, "texture", (index,))


def _named(scene: Scene, index: int) -> tuple[Word, ...]:
    return Word("a"), _texture(scene, index), Word(_shape(scene, index), "shape", (index,))


def _related(relation: str) -> tuple[Word, ...]:
    return tuple(Word(text, "relation", (0, 1)) for text in relation.split())


def _texture_question(scene: Scene, index: int) -> SceneQuestion:
    return SceneQuestion(f"what texture is the {_shape(scene, index)}?", (_texture(scene, index),))


def _place_question(scene: Scene, index: int, relation: str) -> SceneQuestion:
    """Where an object lies to the other."""
    other = Word("the"), Word(_shape(scene, 1 - index), "shape", (1 - index,))
    relation_words = _related(relation if index == 0 else OPPOSITE[relation])
    return SceneQuestion(f"where is the {_shape(scene, index)}?", (*relation_words, *other))


def _side_question(scene: Scene, index: int, name: str, relation: str) -> SceneQuestion:
    """What lies on one side of an object: the other one, or nothing."""
    lies = name == (OPPOSITE[relation] if index == 0 else relation)
    words = _named(scene, 1 - index) if lies else (Word("nothing"),)
    return SceneQuestion(f"what is {name} the {_shape(scene, index)}?", words)
