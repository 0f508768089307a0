"""Gain of each word from pictures or sound, against none."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.kernels.precision import widen

INPUT_NAMES = ("pixel_values", "pixel_values_videos", "input_values", "input_features")


@torch.no_grad()
def blank_scores(
    model: nn.Module, arguments: Mapping[str, Any], words: int, score: Callable[[Tensor], Tensor]
) -> Tensor:
    """Compute the scores (W,) of the words of the last rows if pictures are of the mean colour, and sounds silent.

    Normalised pixels and samples become 0, and spectra their least value.

    Raises:
        ValueError: if there are neither pictures nor sounds.
    """
    blanks = {
        name: torch.full_like(value, float(value.min()) if name == "input_features" else 0.0)
        for name, value in arguments.items()
        if name in INPUT_NAMES
    }
    if not blanks:
        raise ValueError("with_gains must be False for inputs without pictures and sounds, but got True.")
    logits = model(**{**arguments, **blanks}, use_cache=False, return_dict=True).logits
    return score(widen(logits[:, -words:]))[0]
