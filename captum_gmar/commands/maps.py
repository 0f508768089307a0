"""Maps of several methods for batches of images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_gmar._base import AttentionAttribution
from captum_gmar._captum import Attribution
from captum_gmar.catalogue import methods
from captum_gmar.gmar import GMARAttribution
from captum_gmar.models import patch_grid
from captum_gmar.starts import Part

# What a model, a method or Captum raises where a prediction cannot be explained.
FAILURES = (RuntimeError, TypeError, ValueError, FloatingPointError)

PATCHWISE = ("occlusion", "feature-ablation")  # every pixel has what its whole patch is worth


class Maps:
    """Several methods for one model.

    Args:
        names: of the methods.
        model: an image classifier.
        forward_func: its logits.
        tokens: where relevance begins, for methods that take it; none: where they begin themselves.
        batch_size: how many images may run at once, also where a method makes many of one.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: nn.Module,
        forward_func: Callable[[Tensor], Tensor],
        tokens: Sequence[Part],
        batch_size: int,
    ) -> None:
        options = {"tokens": list(tokens)} if tokens else {}
        self.methods = {name: methods()[name](model, forward_func=forward_func, **options) for name in names}
        self.model = model
        self.batch_size = batch_size

    def relevance(self, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor:
        """(methods, N, rows, columns) on the CPU; what contrast means to methods that do not take it is not asked.

        Raises:
            RuntimeError: if a method cannot explain these; it names the method.
        """
        return torch.stack([self._of(name, pixels, targets, contrast).cpu() for name in self.methods])

    def head_importance(self, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor | None:
        """(N, layers, heads) of the first method that weighs heads, on the CPU; None if there is none."""
        weighing = [method for method in self.methods.values() if isinstance(method, GMARAttribution)]
        return weighing[0].head_importance(pixels, targets, contrast=contrast).cpu() if weighing else None

    def _of(self, name: str, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor:
        method = self.methods[name]
        try:
            if isinstance(method, AttentionAttribution):
                return method.relevance(pixels, targets, contrast=contrast)
            relevance = self._of_patches(name, method, pixels, targets)
            if not relevance.isfinite().all():
                raise FloatingPointError("the attributions hold NaN or infinity.")
        except FAILURES as error:
            raise RuntimeError(f"{name}: {error}") from error
        return relevance

    def _of_patches(self, name: str, method: Attribution, pixels: Tensor, targets: Tensor) -> Tensor:
        """Captum's attributions, summed over each patch: (N, rows, columns)."""
        with _reproducible():
            attributions = method.attribute(pixels, target=targets, **self._options(name, len(pixels)))
        grid = patch_grid(self.model, *pixels.shape[-2:])
        relevance = grid.sums(attributions.detach())
        values = pixels.shape[1] * grid.patch_height * grid.patch_width  # of a patch
        return relevance / values if name in PATCHWISE else relevance

    def _options(self, name: str, examples: int) -> dict[str, Any]:
        """Keeps what runs at once to the batch size."""
        if name == "integrated-gradients":
            return {"internal_batch_size": max(self.batch_size, examples)}
        return {"perturbations_per_eval": max(self.batch_size // examples, 1)} if name in PATCHWISE else {}


@contextmanager
def _reproducible() -> Iterator[None]:
    """Within the block, the same numbers are drawn each time."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
