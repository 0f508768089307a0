"""The optimizers: Muon for the matrices inside the layers, in single precision, and AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

_MOMENTUM: Final = 0.95
_DECAY: Final = 0.05
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)  # of Jordan's Newton-Schulz iteration


class SinglePrecisionMuon(torch.optim.Optimizer):
    """torch.optim.Muon without its bfloat16, which costs a CPU as much as the rest of the step."""

    def __init__(self, params: Iterable[nn.Parameter]) -> None:
        super().__init__(params, {"lr": 1e-3})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step. Matrices of one shape go together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                directions = orthogonalised(torch.stack([self._smoothed(parameter) for parameter in parameters]))
                rows, columns = parameters[0].shape
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * _DECAY).sub_(direction, alpha=rate)

    def _smoothed(self, parameter: nn.Parameter) -> Tensor:
        """Return the gradient with Nesterov's momentum."""
        assert parameter.grad is not None
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1 - _MOMENTUM)
        return parameter.grad.lerp(momentum, _MOMENTUM)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return matrices (N, rows, columns) with their singular values near 1."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    linear, cubic, quintic = _QUINTIC
    result = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = result @ result.mT
        result = linear * result + (cubic * gram + quintic * gram @ gram) @ result
    return result


def build_optimizers(model: nn.Module, heads: nn.Module) -> list[torch.optim.Optimizer]:
    """Return Muon and AdamW for what is trained of a model and of its throw-away heads, in this order."""
    outside = "classifier", "bias_table", "embed_tokens"  # in what stands in a matrix, but mixes nothing in a layer
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in trained.items() if p.ndim == 2 and not any(part in name for part in outside)}
    rest = [p for name, p in trained.items() if name not in matrices]
    return [
        SinglePrecisionMuon(matrices.values()),
        torch.optim.AdamW([*rest, *heads.parameters()], betas=(0.9, 0.98), weight_decay=0.0),
    ]
