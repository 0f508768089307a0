"""Train the answering model from scratch, on one thread: `python -m tools.answering_model.train --output folder`.

The built-in classifier is the tower and stays as it is, so it sees every scene once. A sequence is a picture with
several questions about it that do not see each other, because most of a step's cost is the picture's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from tools.answering_model.lessons import Pool, apart, begin_words, draw_lessons, make_pool
from tools.answering_model.measures import words_right
from tools.answering_model.network import build_model, build_processor
from tools.demo_model.fitting import Stage, set_rates, take_step
from tools.judge_model.optimizing import SinglePrecisionMuon

FIRST_SEED: Final = 5_000_000  # of the scenes that it is trained on
STAGE: Final = Stage(side=14, scenes=6_000, steps=2_000, batch_size=8, rates=(2e-3, 2e-5))
HELD_OUT: Final = 500_000  # scenes from this seed on are not trained on
_OF_WORDS: Final = 300  # scenes that words begin by
_REPORT_EVERY: Final = 100  # steps
_SCENES_ASKED: Final = 200  # in the end


def train(output: Path, seed: int = 0, stage: Stage = STAGE) -> None:
    """Train a model and write it and its processor into a folder."""
    torch.manual_seed(seed)
    began = time.perf_counter()
    model, processor = build_model(), build_processor()
    processor.save_pretrained(output)
    model.model.vision_tower.requires_grad_(False).eval()
    begin_words(model, FIRST_SEED, _OF_WORDS)
    pool = make_pool(model.model.vision_tower, FIRST_SEED, stage.scenes)
    print(f"{stage.scenes} scenes seen  {time.perf_counter() - began:.0f} s", flush=True)
    for step, loss in enumerate(_fit(model, pool, stage, seed), 1):
        if step % _REPORT_EVERY == 0:
            print(f"step {step}/{stage.steps}  {time.perf_counter() - began:.0f} s  loss {loss:.3f}", flush=True)
        if step % (5 * _REPORT_EVERY) == 0 or step == stage.steps:
            print(words_right(model.eval(), processor, HELD_OUT, 40), flush=True)
            model.save_pretrained(output)
    print(
        f"{time.process_time():.0f} s of a processor\n{words_right(model, processor, HELD_OUT, _SCENES_ASKED)}",
        flush=True,
    )


def _fit(model: LlavaForConditionalGeneration, pool: Pool, stage: Stage, seed: int) -> Iterator[float]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in trained.items() if p.ndim == 2 and "embed" not in name}
    rest = [p for name, p in trained.items() if name not in matrices]
    optimizers = [SinglePrecisionMuon(matrices.values()), torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)]
    generator = torch.Generator().manual_seed(seed)
    mask, positions = apart(pool.features.shape[1])
    for step in range(stage.steps):
        set_rates(optimizers, stage, step)
        loss = _loss(model.train(), *draw_lessons(pool, stage.batch_size, generator), mask, positions)
        model.zero_grad()
        loss.backward()
        take_step(list(trained.values()), optimizers)
        yield float(loss.detach())


def _loss(model: Any, features: Tensor, tokens: Tensor, answers: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Cross-entropy of the answers' tokens."""
    seen, text = model.model.multi_modal_projector(features), model.get_input_embeddings()(tokens)
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([seen, text], 1),
        attention_mask=mask.expand(len(tokens), -1, -1, -1),
        position_ids=positions.expand(len(tokens), -1),
        use_cache=False,
    ).last_hidden_state[:, seen.shape[1] : -1]
    logits: Tensor = model.lm_head(hidden)
    return functional.cross_entropy(logits.flatten(0, 1), answers[:, 1:].flatten())


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
