"""Maps of several methods for batches of images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.gmar import GMARAttribution
from captum_gmar.attr.patch_relevance import FAILURES, relevance_of
from captum_gmar.engine.start_tokens import Part


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
        self.methods = {name: METHODS[name].load()(model, forward_func=forward_func, **options) for name in names}
        self.model = model
        self.batch_size = batch_size

    def relevance(self, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor:
        """(methods, N, K, rows, columns) of targets (N, K), on the CPU; contrast is for methods that take it.

        Raises:
            RuntimeError: if a method cannot explain these; it names the method.
        """
        return torch.stack([self._of_targets(name, pixels, targets, contrast).cpu() for name in self.methods])

    def head_importance(self, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor | None:
        """(N, K, layers, heads) of the first method that weighs heads, on the CPU; None if there is none."""
        weighing = [method for method in self.methods.values() if isinstance(method, GMARAttribution)]
        return weighing[0].head_importance_of_targets(pixels, targets, contrast=contrast).cpu() if weighing else None

    def of(self, name: str, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor:
        """(N, rows, columns) of one method and targets (N,), on the device of the pixels.

        Raises:
            RuntimeError: if it cannot explain these; it names the method.
        """
        asked: dict[str, Any] = {"batch_size": self.batch_size, "contrast": contrast}
        with _named(name):
            return relevance_of(self.methods[name], self.model, pixels, targets, **asked)

    def _of_targets(self, name: str, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor:
        """(N, K, rows, columns)"""
        method = self.methods[name]
        if not isinstance(method, AttentionAttribution):
            return torch.stack([self.of(name, pixels, own, contrast) for own in targets.unbind(1)], 1)
        with _named(name):
            return method.relevance_of_targets(pixels, targets, contrast=contrast)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Within the block, errors name the method."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # which fewer images at once may help
    except FAILURES as error:
        raise RuntimeError(f"{name}: {error}") from error
