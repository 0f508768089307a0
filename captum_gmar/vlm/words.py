"""Texts of an answer's tokens, and their grouping to words."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

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
