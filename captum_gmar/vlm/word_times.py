"""Times of words in a sound, from the relevance of its tokens."""

import torch
from torch import Tensor

_GAP = 0.5  # of a second's relevance, spread evenly: what a word's tokens must hold on average


def word_spans(relevance: Tensor, seconds: float) -> Tensor:
    r"""Compute the span (W, 2) of first token and token after the last of each word, by relevance (W, T) of a sound's
    tokens.

    Spans do not overlap, have one token at least, and together hold the most positive relevance above a constant rate:

    .. math:: \max \sum_w \sum_{j \in s_w} \left( \frac{r^+_{wj}}{\sum_k r^+_{wk}} - \frac{\Delta t}{2 s} \right)

    by dynamic programming over words and tokens, which take :math:`\Delta t` seconds each.
    """
    positive = relevance.double().cpu().clamp(min=0)
    gains = positive / positive.sum(1, keepdim=True).clamp(min=1e-12) - _GAP * seconds
    words, tokens = gains.shape
    best, ends, starts = torch.zeros(tokens + 1, dtype=torch.float64), [], []
    for gain in gains:
        total = torch.cat([gain.new_zeros(1), gain.cumsum(0)])
        left, start = (best - total).cummax(0)  # a span from start to before t gains total[t] - total[start]
        span = torch.cat([best.new_full((1,), -torch.inf), total[1:] + left[:-1]])
        best, end = span.cummax(0)
        starts.append(torch.cat([start[:1], start[:-1]]))
        ends.append(end)
    spans = relevance.new_zeros(words, 2, dtype=torch.long)
    place = tokens
    for word in reversed(range(words)):
        last = int(ends[word][place])
        place = int(starts[word][last])
        spans[word] = torch.tensor([place, last])
    return spans
