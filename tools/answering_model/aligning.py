"""Before the decoder learns: patches come to say the words of what they show, and where they are.

What the projector makes of a patch is read by the output embedding as if it came out of the decoder, so that words
begin as what shows them, and attention that looks for likeness finds the patches of a word.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from captum_gmar.demo.patches import GRID
from captum_gmar.demo.scenes import KINDS
from tools.answering_model.lessons import NO_OBJECT, UNIT, Pool
from tools.answering_model.network import WIDTH, vocabulary

_BATCH: Final = 24  # scenes
_RATE: Final = 3e-3
_OF_NOTHING: Final = 0.2  # weight of patches that show no object
_LOUDNESS: Final = 2.0  # of a unit of place, where channels are 1 in the mean


def align(model: Any, pool: Pool, steps: int, generator: torch.Generator) -> float:
    """Fit the projector and the words to what patches show, and return the last step's loss."""
    projector, words = model.model.multi_modal_projector, model.get_input_embeddings().weight
    optimizer = torch.optim.AdamW([*projector.parameters(), words], _RATE, weight_decay=0.0)
    said, loss = _said(), torch.zeros(())
    for step in range(steps):
        scenes = torch.randint(len(pool.lessons), (_BATCH,), generator=generator)
        loss = _loss(model, pool.features[scenes].float(), pool.shown[scenes], said)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def _said() -> Tensor:
    """Return the words of each class and of no object, in equal parts, (classes + 1, vocabulary)."""
    words = vocabulary()
    said = torch.zeros(NO_OBJECT + 1, len(words))
    for label, kind in enumerate(KINDS):
        said[label, [words[part.__name__] for part in kind]] = 1 / len(kind)
    said[NO_OBJECT, words["nothing"]] = 1
    return said


def _loss(model: Any, features: Tensor, shown: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy of the words, and how far the last two channels are from the place of the patch."""
    patches = functional.rms_norm(model.model.multi_modal_projector(features), (WIDTH,))
    entropy = -(said[shown] * model.lm_head(patches).log_softmax(-1)).sum(-1)
    weight = torch.where(shown == NO_OBJECT, _OF_NOTHING, 1.0)
    along = (torch.arange(GRID) - (GRID - 1) / 2) / UNIT
    wrong = (patches[..., -2:] / _LOUDNESS - torch.cartesian_prod(along, along)).square().mean()
    return (entropy * weight).sum() / weight.sum() + wrong
