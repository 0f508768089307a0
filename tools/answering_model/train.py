"""Train the answering model from scratch, on one thread: `python -m tools.answering_model.train --output folder`.

The built-in classifier is the tower and stays as it is, so it sees every scene once. A sequence is a picture with
several questions about it that do not see each other, because most of a step's cost is the picture's. In the decoder's
middle, throw-away heads ask the token before each answer where the objects are that it is about: without them it does
not learn to compare places. The first stage ends with its scenes known by heart; the second has others, seen once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from captum_gmar.demo.patches import GRID
from tools.answering_model.aligning import align
from tools.answering_model.lessons import Lesson, Pool, apart, draw_lessons, make_pool
from tools.answering_model.measures import words_right
from tools.answering_model.network import WIDTH, build_model, build_processor, vocabulary
from tools.demo_model.fitting import Stage, set_rates, take_step
from tools.judge_model.optimizing import SinglePrecisionMuon

FIRST_SEED: Final = 5_000_000  # of the scenes that it is trained on
STAGES: Final = (
    Stage(side=GRID, scenes=6_000, steps=2_000, batch_size=8, rates=(2e-3, 4.16e-4)),
    Stage(side=GRID, scenes=12_000, steps=1_500, batch_size=8, rates=(1e-3, 1e-5)),
)
_SEEDS_OF_STAGE: Final = 1_000_000
HELD_OUT: Final = 500_000  # scenes from this seed on are not trained on
_ALIGNING: Final = 300  # steps
_PLACING_LAYERS: Final = (2, 3)  # after which tokens are asked for places, counted from 1
_REPORT_EVERY: Final = 100  # steps
_SCENES_ASKED: Final = 200  # in the end


def train(output: Path, seed: int = 0, stages: Sequence[Stage] = STAGES) -> None:
    """Train a model and write it and its processor into a folder."""
    torch.manual_seed(seed)
    generator, progress = torch.Generator().manual_seed(seed), _Progress(output)
    model, processor = build_model(), build_processor()
    processor.save_pretrained(output)
    model.model.vision_tower.requires_grad_(False).eval()
    for number, stage in enumerate(stages):
        pool = make_pool(model.model.vision_tower, FIRST_SEED + number * _SEEDS_OF_STAGE, stage.scenes)
        progress.tell(f"{stage.scenes} scenes seen")
        if number == 0:
            progress.tell(f"patches' loss {align(model, pool, _ALIGNING, generator):.3f}")
        for step, loss in enumerate(_fit(model, pool, stage, generator), 1):
            if step % _REPORT_EVERY == 0 or step == stage.steps:
                progress.tell(f"step {step}/{stage.steps}  loss {loss:.3f}")
            if step % (5 * _REPORT_EVERY) == 0 or step == stage.steps:
                progress.keep(model, processor)
    progress.tell(f"{time.process_time():.0f} s of a processor")
    progress.tell(words_right(model, processor, HELD_OUT, _SCENES_ASKED))


class _Progress:
    """What is told of the training, and kept."""

    def __init__(self, output: Path) -> None:
        self._output, self._began = output, time.perf_counter()

    def tell(self, line: str) -> None:
        print(f"{time.perf_counter() - self._began:.0f} s  {line}", flush=True)

    def keep(self, model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> None:
        self.tell(words_right(model.eval(), processor, HELD_OUT, _SCENES_ASKED // 5))
        model.save_pretrained(self._output)


def _fit(model: LlavaForConditionalGeneration, pool: Pool, stage: Stage, generator: torch.Generator) -> Iterator[float]:
    heads = nn.ModuleList(nn.Linear(WIDTH, pool.lessons[0].places.shape[1]) for _ in _PLACING_LAYERS)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in trained.items() if p.ndim == 2 and "embed" not in name}
    rest = [*(p for name, p in trained.items() if name not in matrices), *heads.parameters()]
    optimizers = [SinglePrecisionMuon(matrices.values()), torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)]
    mask, positions = apart(pool.features.shape[1])
    for step in range(stage.steps):
        set_rates(optimizers, stage, step)
        features, lesson = draw_lessons(pool, stage.batch_size, generator)
        states = _states(model.train(), features, lesson.tokens, mask, positions)
        loss = _answering_loss(model, states[-1], lesson.answers)
        placing = _placing_loss(heads, [states[layer] for layer in _PLACING_LAYERS], lesson)
        model.zero_grad()
        heads.zero_grad()
        (loss + placing).backward()
        take_step([*trained.values(), *heads.parameters()], optimizers)
        yield float(loss.detach())


def _states(model: Any, features: Tensor, tokens: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    """What comes out of each layer of the tokens, (N, QUESTIONS * LENGTH, width), the last one normalised."""
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
    """Cross-entropy of the answers' tokens."""
    logits: Tensor = model.lm_head(states[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), answers[:, 1:].flatten())


def _placing_loss(heads: nn.ModuleList, states: list[Tensor], lesson: Lesson) -> Tensor:
    """Squared error of the places, summed over layers."""
    asks, places = lesson.tokens == vocabulary()["?"], lesson.places.flatten(0, 1)
    known = ~places.isnan()
    wrong = [(head(each[asks]) - places)[known].square().mean() for head, each in zip(heads, states, strict=True)]
    return torch.stack(wrong).sum()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.answering_model.train", description="Train the model.")
    add = parser.add_argument
    add("--output", type=Path, default=Path("answering-model"), help="folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights and order (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
