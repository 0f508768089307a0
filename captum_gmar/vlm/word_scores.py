"""Scores of generated words, also without pictures or sound.

Log-odds are computed in chunks of rows, since logits of a vocabulary are large.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from captum_gmar.engine.kernels.precision import widen

_CHUNK_LOGITS: Final = 1 << 23  # logits in the wider precision
_INPUT_NAMES: Final = ("pixel_values", "pixel_values_videos", "input_values", "input_features")


def word_scores(logits: Tensor, ids: Sequence[int], contrast: Sequence[int] | None) -> Tensor:
    """Compute scores (L, W) of logits (L, W, vocabulary): each word's log-odds, or its logit minus the contrast's."""
    words = torch.arange(len(ids), device=logits.device)
    if contrast is not None:
        contrast = [*contrast] * (len(ids) // len(contrast))
        return widen(logits[:, words, ids]) - widen(logits[:, words, contrast])
    rows = torch.tensor([*ids] * len(logits), device=logits.device)
    scores: Tensor = _LogOdds.apply(logits.flatten(0, 1), rows)  # type: ignore[no-untyped-call]
    return scores.view(logits.shape[:2])


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
        if name in _INPUT_NAMES
    }
    if not blanks:
        raise ValueError("with_gains must be False for inputs without pictures and sounds, but got True.")
    logits = model(**{**arguments, **blanks}, use_cache=False, return_dict=True).logits
    return score(widen(logits[:, -words:]))[0]


class _LogOdds(torch.autograd.Function):
    r"""Log-odds :math:`z_w - \log \sum_{j \ne w} e^{z_j}` of rows (R, vocabulary) for their words w (R,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, words: Tensor) -> Tensor:
        log_sums = torch.cat([_other_logits(*chunk).logsumexp(1) for chunk in _row_chunks(logits, words)])
        ctx.save_for_backward(logits, words, log_sums)
        return widen(logits.gather(1, words[:, None])[:, 0]) - log_sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, words, log_sums = ctx.saved_tensors
        result = torch.empty_like(logits)
        for output, rows, ids, log_sum, gradient in _row_chunks(result, logits, words, log_sums, gradients[0]):
            chances = (_other_logits(rows, ids) - log_sum[:, None]).exp_().neg_().scatter_(1, ids[:, None], 1)
            output.copy_(chances.mul_(gradient[:, None]))
        return result, None


def _row_chunks(*tensors: Tensor) -> Any:
    """Yield chunks of the tensors' rows."""
    rows = max(1, _CHUNK_LOGITS // tensors[0].shape[1])
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _other_logits(logits: Tensor, words: Tensor) -> Tensor:
    """Return the logits of all words but each row's word, in the wider precision."""
    return widen(logits).scatter(1, words[:, None], -torch.inf)
