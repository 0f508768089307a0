"""What the answering model is trained on: scenes as its tower sees them, and several questions about each at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_gmar.demo.patches import GRID, PATCH, patch_shares, scene_pixel_values
from captum_gmar.demo.scenes import KINDS, Scene, make_scene
from tools.answering_model.network import END, PAD, SEEN_LAYERS, see, vocabulary
from tools.answering_model.questions import SceneQuestion, questions_of

QUESTIONS: Final = 8  # about a scene in one sequence, none of which sees another
LENGTH: Final = 16  # tokens of a question and its answer
_IGNORED: Final = -100  # by torch's cross entropy
_OFTEN: Final = 3  # how often a question that is answered by an object is asked for one answered by "nothing"
_BATCH: Final = 50
UNIT: Final = 4  # patches, of places
NO_OBJECT: Final = len(KINDS)


class Lesson(NamedTuple):
    """The questions that can be asked about scenes, with their answers: of one scene, or of several in a batch.

    Attributes:
        tokens: of the questions with their answers, filled up, (questions, LENGTH).
        answers: the same, but for the tokens that the answer does not make, which are ignored.
        places: of each question, the middle of the object asked about and of the other one, or of those described as
            they are named: row, column, row, column from the picture's middle in `UNIT`, NaN where there is none,
            (questions, 4).
    """

    tokens: Tensor
    answers: Tensor
    places: Tensor


@dataclass(frozen=True)
class Pool:
    """Scenes to ask about.

    Attributes:
        features: what the tower returns of the patches, float16, (N, P, width).
        shown: the class of the object that covers most of each patch, or `NO_OBJECT`, (N, P).
        lessons: of each scene.
        weights: of each scene, how often each question is asked, (questions,).
    """

    features: Tensor
    shown: Tensor
    lessons: list[Lesson]
    weights: list[Tensor]


def draw_scenes(first_seed: int) -> Iterator[tuple[Scene, list[SceneQuestion]]]:
    """Give scenes that can be asked about, of the seeds from this one on: every fourth has one object, others two."""
    seed = first_seed
    while True:
        scene = make_scene(seed, 1 if seed % 4 == 0 else 2)
        if questions := questions_of(scene):
            yield scene, questions
        seed += 1


@torch.no_grad()
def make_pool(tower: Any, first_seed: int, count: int) -> Pool:
    """Render scenes and let the tower look at them."""
    drawn, width = draw_scenes(first_seed), len(SEEN_LAYERS) * tower.config.hidden_size
    features = torch.empty(count, GRID * GRID, width, dtype=torch.half)
    shown, lessons, weights = [], [], []
    for start in range(0, count, _BATCH):
        scenes, questions = zip(*(next(drawn) for _ in range(min(_BATCH, count - start))), strict=True)
        features[start : start + len(scenes)] = see(tower, scene_pixel_values(scenes))
        shown += map(_shown, scenes)
        lessons += map(_lesson, scenes, questions)
        weights += map(_weights, questions)
    return Pool(features, torch.stack(shown), lessons, weights)


def _shown(scene: Scene) -> Tensor:
    shown = torch.full((GRID * GRID,), NO_OBJECT)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        shown[patch_shares(mask) > 0.5] = label
    return shown


def _lesson(scene: Scene, questions: list[SceneQuestion]) -> Lesson:
    tokens, answers = zip(*map(_encode, questions), strict=True)
    middles = [torch.from_numpy(np.argwhere(mask).mean(0)).float() for mask in scene.masks]
    nowhere = torch.full((2,), torch.nan)
    places = []
    for question in questions:
        first = _first_object(scene, question)
        second = [middle for index, middle in enumerate(middles) if index != first]
        places.append(torch.cat([middles[first], *(second or [nowhere])]))
    return Lesson(torch.tensor(tokens), torch.tensor(answers), (torch.stack(places) / PATCH - GRID / 2) / UNIT)


def _first_object(scene: Scene, question: SceneQuestion) -> int:
    """Return the object that a question names, or its answer first."""
    names = [f"the {KINDS[label][1].__name__}" for label in scene.labels]
    named = [index for index, name in enumerate(names) if name in question.prompt]
    return (named or [word.objects[0] for word in question.words if word.kind == "shape"])[0]


def _weights(questions: list[SceneQuestion]) -> Tensor:
    return torch.tensor([1 if question.answer == "nothing" else _OFTEN for question in questions], dtype=torch.float)


def _encode(question: SceneQuestion) -> tuple[list[int], list[int]]:
    words = vocabulary()
    prompt = [words[word] for word in question.prompt.replace("?", " ?").split()]
    answer = [words[word.text] for word in question.words] + [words[END]]
    rest = LENGTH - len(prompt) - len(answer)
    return prompt + answer + [words[PAD]] * rest, [_IGNORED] * len(prompt) + answer + [_IGNORED] * rest


def draw_lessons(pool: Pool, size: int, generator: torch.Generator) -> tuple[Tensor, Lesson]:
    """Return features (N, P, width) of random scenes and QUESTIONS random questions about each, in a row: tokens and
    answers (N, QUESTIONS * LENGTH), places (N, QUESTIONS, 4)."""
    chosen = torch.randint(len(pool.lessons), (size,), generator=generator)
    drawn = []
    for scene in chosen.tolist():
        few = len(pool.weights[scene]) < QUESTIONS
        asked = torch.multinomial(pool.weights[scene], QUESTIONS, replacement=few, generator=generator)
        lesson = pool.lessons[scene]
        drawn.append((lesson.tokens[asked].flatten(), lesson.answers[asked].flatten(), lesson.places[asked]))
    return pool.features[chosen].float(), Lesson(*map(torch.stack, zip(*drawn, strict=True)))


def apart(patches: int) -> tuple[Tensor, Tensor]:
    """Return the mask (1, 1, T, T) and positions (1, T) that let every question follow the picture and no other one."""
    block = torch.cat([torch.zeros(patches), 1 + torch.arange(QUESTIONS).repeat_interleave(LENGTH)])
    sees = (block[:, None] == block) | (block == 0)
    positions = torch.cat([torch.arange(patches), patches + torch.arange(LENGTH).repeat(QUESTIONS)])
    return sees.tril()[None, None], positions[None]
