"""What the answering model is trained on: scenes as its tower sees them, and several questions about each at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from captum_gmar.demo.patches import GRID, patch_shares, scene_pixel_values
from captum_gmar.demo.questions import SceneQuestion, questions_of
from captum_gmar.demo.scenes import KINDS, Scene, make_scene
from tools.answering_model.network import END, PAD, SEEN_LAYERS, see, vocabulary

QUESTIONS: Final = 8  # about a scene in one sequence, none of which sees another
LENGTH: Final = 16  # tokens of a question and its answer
_IGNORED: Final = -100  # by torch's cross entropy
_OFTEN: Final = 3  # how often a question that is answered by an object is asked for one answered by "nothing"
_BATCH: Final = 50


@dataclass(frozen=True)
class Pool:
    """Scenes to ask about.

    Attributes:
        features: what the tower returns of the patches, float16, (N, P, width).
        tokens: of each scene's questions with their answers, filled up, (questions, LENGTH).
        answers: the same, but for the tokens that the answer does not make, which are ignored.
        weights: how often each question is asked, (questions,).
    """

    features: Tensor
    tokens: list[Tensor]
    answers: list[Tensor]
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
    drawn = draw_scenes(first_seed)
    features, lessons = (
        torch.empty(count, GRID * GRID, len(SEEN_LAYERS) * tower.config.hidden_size, dtype=torch.half),
        [],
    )
    for start in range(0, count, _BATCH):
        scenes, questions = zip(*(next(drawn) for _ in range(min(_BATCH, count - start))), strict=True)
        features[start : start + len(scenes)] = see(tower, scene_pixel_values(scenes))
        lessons += [_lesson(each) for each in questions]
    tokens, answers, weights = zip(*lessons, strict=True)
    return Pool(features, list(tokens), list(answers), list(weights))


@torch.no_grad()
def begin_words(model: Any, first_seed: int, count: int) -> None:
    """Let the words of shapes and textures begin as what the decoder gets of patches that show them."""
    embedding = model.get_input_embeddings().weight
    sums: dict[str, list[Tensor]] = {}
    for seed in range(first_seed, first_seed + count):
        scene = make_scene(seed, 1)
        patches = model.model.multi_modal_projector(see(model.model.vision_tower, scene_pixel_values([scene]))[0])
        on_object = patch_shares(scene.masks[0]) > 0.5
        for part in KINDS[scene.labels[0]]:
            sums.setdefault(part.__name__, []).append(patches[on_object].mean(0) - patches[~on_object].mean(0))
    means = {word: torch.stack(parts).nanmean(0) for word, parts in sums.items()}
    centre = torch.stack(list(means.values())).mean(0)
    size = embedding.norm(dim=1).mean()
    for word, mean in means.items():
        embedding[vocabulary()[word]] = size * (mean - centre) / (mean - centre).norm()


def _lesson(questions: list[SceneQuestion]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, answers and weights of a scene's questions."""
    tokens, answers = zip(*map(_encode, questions), strict=True)
    weights = [1 if question.answer == "nothing" else _OFTEN for question in questions]
    return torch.tensor(tokens), torch.tensor(answers), torch.tensor(weights, dtype=torch.float)


def _encode(question: SceneQuestion) -> tuple[list[int], list[int]]:
    words = vocabulary()
    prompt = [words[word] for word in question.prompt.replace("?", " ?").split()]
    answer = [words[word.text] for word in question.words] + [words[END]]
    rest = LENGTH - len(prompt) - len(answer)
    return prompt + answer + [words[PAD]] * rest, [_IGNORED] * len(prompt) + answer + [_IGNORED] * rest


def draw_lessons(pool: Pool, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (N, P, width), tokens and answers (N, QUESTIONS * LENGTH) of random scenes and questions."""
    chosen = torch.randint(len(pool.tokens), (size,), generator=generator)
    tokens, answers = [], []
    for scene in chosen.tolist():
        few = len(pool.weights[scene]) < QUESTIONS
        asked = torch.multinomial(pool.weights[scene], QUESTIONS, replacement=few, generator=generator)
        tokens.append(pool.tokens[scene][asked].flatten())
        answers.append(pool.answers[scene][asked].flatten())
    return pool.features[chosen].float(), torch.stack(tokens), torch.stack(answers)


def apart(patches: int) -> tuple[Tensor, Tensor]:
    """The mask (1, 1, T, T) and the positions (1, T) in which every question follows the picture and no other one."""
    block = torch.cat([torch.zeros(patches), 1 + torch.arange(QUESTIONS).repeat_interleave(LENGTH)])
    sees = (block[:, None] == block) | (block == 0)
    positions = torch.cat([torch.arange(patches), patches + torch.arange(LENGTH).repeat(QUESTIONS)])
    return sees.tril()[None, None], positions[None]
