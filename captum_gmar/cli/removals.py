"""The ways of removal by name, told here so that help and usage errors need not load them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from captum_gmar.metrics import Removal

NAMES = ("zero", "mean", "blur", "noise", "noisy-linear", "tokens")


def make_removal(name: str, model: "nn.Module", seed: int = 0) -> "Removal":
    """The way of removal of this name, for what ``model`` sees; ``seed`` is of what is drawn."""
    from captum_gmar import metrics
    from captum_gmar.token_removal import TokenRemoval

    made: dict[str, Removal] = {
        "zero": metrics.Zero(),
        "mean": metrics.Mean(),
        "blur": metrics.Blur(),
        "noise": metrics.Noise(seed=seed),
        "noisy-linear": metrics.NoisyLinear(seed=seed),
        "tokens": TokenRemoval(model),
    }
    return made[name]
