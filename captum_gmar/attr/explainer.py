"""Several methods for one model: the relevance of patches, with the logits of the same pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution, TargetMaps
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import images_at_once, name_errors, relevance_of
from captum_gmar.engine.models.readout_tokens import Part
from captum_gmar.engine.request import ChooseTargets


class Explainer:
    """Several methods for one model: their maps of a batch, with the logits of the same pass.

    ``tokens`` are where relevance begins, for methods that take them. At most ``batch_size`` images or variants of one
    run at once; None: 16 on the CPU and 128 elsewhere.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: nn.Module,
        forward_func: Callable[[Tensor], Tensor],
        tokens: Sequence[Part] = (),
        batch_size: int | None = None,
    ) -> None:
        options = {"tokens": list(tokens)} if tokens else {}
        self.methods = {name: METHODS[name].load()(model, forward_func=forward_func, **options) for name in names}
        self.model = model
        self.forward_func = forward_func
        self.batch_size = batch_size

    def explain(self, pixels: Tensor, targets: Tensor | ChooseTargets, contrast: int | None = None) -> TargetMaps:
        """Explain a batch of images by all methods, for the classes (N, K) or those that ``targets`` chooses of the
        logits.

        The logits come from one of our methods, so the model runs forward once for each method; with Captum's alone it
        runs once more. The result is on the CPU, with **relevance** (methods, N, K, rows, columns) and
        **head_importance** of the first method that weighs heads. A target that is the contrast raises an error: choose
        another class for that example, and leave it out afterwards.
        """
        ours = {name: method for name, method in self.methods.items() if isinstance(method, AttentionAttribution)}
        leading = next((name for name, method in ours.items() if method.weighs_heads), next(iter(ours), None))
        if leading is None:
            with torch.no_grad():
                logits = self.forward_func(pixels)
            chosen = targets(logits) if callable(targets) else targets
            maps = TargetMaps(logits, chosen, torch.empty(0), None)
        else:
            with name_errors(leading):
                maps = ours[leading].explain(pixels, targets, contrast=contrast)
        relevance = [
            maps.relevance if name == leading else self._explain_targets(name, pixels, maps.targets, contrast)
            for name in self.methods
        ]
        importance = None if maps.head_importance is None else maps.head_importance.cpu()
        return TargetMaps(maps.logits.cpu(), maps.targets.cpu(), torch.stack([m.cpu() for m in relevance]), importance)

    def relevance(self, name: str, pixels: Tensor, targets: Tensor, contrast: int | None = None) -> Tensor:
        """Compute the relevance (N, rows, columns) of one method for targets (N,), on the device of the pixels."""
        batch_size = self.batch_size or images_at_once(pixels.device)
        with name_errors(name):
            return relevance_of(
                self.methods[name], self.model, pixels, targets, batch_size=batch_size, contrast=contrast
            )

    def _explain_targets(self, name: str, pixels: Tensor, targets: Tensor, contrast: int | None) -> Tensor:
        """Compute the relevance (N, K, rows, columns) of one method."""
        method = self.methods[name]
        if not isinstance(method, AttentionAttribution):
            return torch.stack([self.relevance(name, pixels, each, contrast) for each in targets.unbind(1)], 1)
        with name_errors(name):
            return method.explain(pixels, targets, contrast=contrast).relevance
