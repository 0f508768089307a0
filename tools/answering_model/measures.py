"""What is measured of the answering model: how many words of its answers are right."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import torch
from PIL import Image

from tools.answering_model.lessons import draw_scenes


def words_right(model: Any, processor: Any, first_seed: int, scenes: int) -> str:
    """Ask everything about scenes from a seed on, and tell which share of words is right, in all and of each kind."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for scene, questions in islice(draw_scenes(first_seed), scenes):
        answers = _generate(model, processor, Image.fromarray(scene.image), [question.prompt for question in questions])
        for question, answer in zip(questions, answers, strict=True):
            given = [*answer, *[""] * len(question.words)]
            for word, other in zip(question.words, given, strict=False):
                for kind in ("all", word.text if word.text == "nothing" else word.kind):
                    asked[kind] += 1
                    right[kind] += word.text == other
    return "  ".join(f"{kind} {right[kind] / asked[kind]:.3f} of {asked[kind]}" for kind in asked)


@torch.no_grad()
def _generate(model: Any, processor: Any, image: Image.Image, prompts: list[str]) -> list[list[str]]:
    """Return the words that the model answers each question with."""
    texts = [f"{processor.image_token}{prompt}" for prompt in prompts]
    inputs = processor(
        images=[image] * len(prompts), text=texts, return_tensors="pt", padding=True, padding_side="left"
    )
    sequences = model.generate(**inputs, do_sample=False, max_new_tokens=12)[:, inputs["input_ids"].shape[1] :]
    return [processor.tokenizer.decode(row, skip_special_tokens=True).split() for row in sequences]
