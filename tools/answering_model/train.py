"""Train the answering model from scratch, on one thread: `python -m tools.answering_model.train --output folder`.

The built-in classifier is the tower and stays as it is, so it sees every scene once. A sequence is a picture with
several questions about it that do not see each other, because most of a step's cost is the picture's. In the decoder's
middle, throw-away heads ask the token before each answer where the objects are that it is about: without them it does
not learn to compare places. The first stage ends with its scenes known by heart; the second has others, seen once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from captum_gmar.demo.patches import GRID
from tools.answering_model.aligning import align
from tools.answering_model.lessons import Lesson, Pool, apart, draw_lessons, make_pool
from tools.answering_model.measures import words_right
from tools.answering_model.network import WIDTH, build_model, build_processor, vocabulary
from tools.training.loop import Stage, descend, report, report_losses, run_command
from tools.training.optimizing import build_optimizers

FIRST_SEED: Final = 5_000_000  # of the scenes that it is trained on
STAGES: Final = (
    Stage(side=GRID, scenes=6_000, steps=2_000, batch_size=8, rates=(2e-3, 4.16e-4)),
    Stage(side=GRID, scenes=12_000, steps=1_500, batch_size=8, rates=(1e-3, 1e-5)),
)
_SEEDS_OF_STAGE: Final = 1_000_000
HELD_OUT: Final = 500_000  # scenes from this seed on are not trained on
_ALIGNING: Final = 300  # steps
_PLACING_LAYERS: Final = (2, 3)  # after which tokens are asked for places, counted from 1
_SCENES_ASKED: Final = 200  # in the end


def train(output: Path, seed: int = 0, stages: Sequence[Stage] = STAGES) -> None:
    """Train a model and write it and its processor into a folder."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, processor = build_model(), build_processor()
    processor.save_pretrained(output)
    model.model.vision_tower.requires_grad_(False).eval()
    for number, stage in enumerate(stages):
        pool = make_pool(model.model.vision_tower, FIRST_SEED + number * _SEEDS_OF_STAGE, stage.scenes)
        report(f"{stage.scenes} scenes seen")
        if number == 0:
            report(f"patches' loss {align(model, pool, _ALIGNING, generator):.3f}")
        for _ in report_losses(_fit(model, pool, stage, generator), stage):
            model.eval().save_pretrained(output)
            model.train()
    report(f"{time.process_time():.0f} s of a processor")
    report(words_right(model.eval(), processor, HELD_OUT, _SCENES_ASKED))


def _fit(model: LlavaForConditionalGeneration, pool: Pool, stage: Stage, generator: torch.Generator) -> Iterator[float]:
    heads = nn.ModuleList(nn.Linear(WIDTH, pool.lessons[0].places.shape[1]) for _ in _PLACING_LAYERS)
    mask, positions = apart(pool.features.shape[1])
    model.train()

    def draw_loss() -> Tensor:
        features, lesson = draw_lessons(pool, stage.batch_size, generator)
        states = _states(model, features, lesson.tokens, mask, positions)
        placing = _placing_loss(heads, [states[layer] for layer in _PLACING_LAYERS], lesson)
        return _answering_loss(model, states[-1], lesson.answers) + placing

    return descend(build_optimizers(model, heads), stage, draw_loss)


def _states(model: Any, features: Tensor, tokens: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    """Return the hidden states of each layer at the tokens, (N, QUESTIONS * LENGTH, width), the last one normalised."""
    seen, text = model.model.multi_modal_projector(features), model.get_input_embeddings()(tokens)
    states = model.model.language_model(
        inputs_embeds=torch.cat([seen, text], 1),
        attention_mask=mask.expand(len(tokens), -1, -1, -1),
        position_ids=positions.expand(len(tokens), -1),
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states
    return tuple(each[:, seen.shape[1] :] for each in states)


def _answering_loss(model: Any, states: Tensor, answers: Tensor) -> Tensor:
    """Return the cross-entropy of the answers' tokens."""
    logits: Tensor = model.lm_head(states[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), answers[:, 1:].flatten())


def _placing_loss(heads: nn.ModuleList, states: list[Tensor], lesson: Lesson) -> Tensor:
    """Return the squared error of the places, summed over layers."""
    asks, places = lesson.tokens == vocabulary()["?"], lesson.places.flatten(0, 1)
    known = ~places.isnan()
    wrong = [(head(each[asks]) - places)[known].square().mean() for head, each in zip(heads, states, strict=True)]
    return torch.stack(wrong).sum()


if __name__ == "__main__":
    run_command(train, "answering")
