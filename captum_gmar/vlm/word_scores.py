"""What is explained of each word: its log-odds, of a few rows at once, as logits of a vocabulary are large."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from captum_gmar.engine.kernels.precision import wide

_AT_ONCE: Final = 1 << 23  # logits in the wider precision


def word_scores(logits: Tensor, ids: Sequence[int], against: Sequence[int] | None) -> Tensor:
    """(L, W) of logits (L, W, vocabulary): of each word its log-odds, or its odds' log against the contrast."""
    words = torch.arange(len(ids), device=logits.device)
    if against is not None:
        against = [*against] * (len(ids) // len(against))
        return wide(logits[:, words, ids]) - wide(logits[:, words, against])
    rows = torch.tensor([*ids] * len(logits), device=logits.device)
    scores: Tensor = _LogOdds.apply(logits.flatten(0, 1), rows)  # type: ignore[no-untyped-call]
    return scores.view(logits.shape[:2])


class _LogOdds(torch.autograd.Function):
    r""":math:`z_w - \log \sum_{j \ne w} e^{z_j}` of rows (R, vocabulary), each of its word w (R,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, words: Tensor) -> Tensor:
        others = [_others(*part).logsumexp(1) for part in _few_rows(logits, words)]
        log_sums = torch.cat(others)
        ctx.save_for_backward(logits, words, log_sums)
        return wide(logits.gather(1, words[:, None])[:, 0]) - log_sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, words, log_sums = ctx.saved_tensors
        scaled = torch.empty_like(logits)
        for target, part, word_ids, log_sum, gradient in _few_rows(scaled, logits, words, log_sums, gradients[0]):
            chances = (_others(part, word_ids) - log_sum[:, None]).exp_().neg_().scatter_(1, word_ids[:, None], 1)
            target.copy_(chances.mul_(gradient[:, None]))
        return scaled, None


def _few_rows(*tensors: Tensor) -> Any:
    """The tensors' rows, a part after the other."""
    rows = max(1, _AT_ONCE // tensors[0].shape[1])
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _others(logits: Tensor, words: Tensor) -> Tensor:
    """Of all words but each row's own, in the wider precision."""
    return wide(logits).scatter(1, words[:, None], -torch.inf)
