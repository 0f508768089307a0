"""Texts of an answer's tokens, their grouping to words, and times of words in a sound."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

_GAP = 0.5  # of a second's relevance, spread evenly: what a word's tokens must hold on average
_WORD = re.compile(r"\w+(?:[’'\-]\w+)*|[^\w\s]")


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds, with the space before it; without a tokenizer, the ids.

    A token that is part of a character gets the text of the token by itself.
    """
    if tokenizer is None:
        return list(map(str, ids))
    texts = ["", *(str(tokenizer.decode(list(ids[: end + 1]))) for end in range(len(ids)))]
    return [
        text[len(previous) :] if text.startswith(previous) else str(tokenizer.decode([number]))
        for previous, text, number in zip(texts, texts[1:], ids, strict=False)
    ]


def group_words(tokens: Sequence[str]) -> list[slice]:
    """Return the tokens of each word or punctuation mark.

    >>> group_words([" a", " stri", "ped", " star", "."])
    [slice(0, 1, None), slice(1, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    begins = [match.start() for match in _WORD.finditer("".join(tokens))]
    words: list[int] = []
    end = 0
    for token in tokens:
        first = end + len(token) - len(token.lstrip())
        end += len(token)
        words.append(sum(begin <= first for begin in begins) if token.strip() else (words or [1])[-1])
    groups = [[number for number, _ in group] for _, group in groupby(enumerate(words), key=lambda pair: pair[1])]
    return [slice(group[0], group[-1] + 1) for group in groups]


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
