"""Classes by index or name."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral

NEAR = 4  # names suggested


def find_class(
    text: str | int, labels: Mapping[int, str], option: str = "target", forms: str = "an index or a label"
) -> int:
    """Return the class index that ``text`` names.

    Args:
        text (str or int): A label in any case, the whole label or else one of its comma-separated synonyms; or a class
            index. Where a class has digits for a name, text is that name, and a warning says so; a number is an index.
        labels (dict): The label of every class index.
        option (str, optional): Whose argument it is, for errors. Default: "target".
        forms (str, optional): What that may be, for errors. Default: "an index or a label".

    Raises:
        TypeError: if it is neither.
        ValueError: if it names no class or several; the message lists similar names.

    >>> labels = {0: "tabby, tabby cat", 1: "tiger cat", 2: "crane", 3: "crane"}
    >>> find_class("Tabby", labels), find_class("1", labels)
    (0, 1)
    """
    return find_classes([text], labels, option, forms)[text]


def find_classes(
    texts: Collection[str | int], labels: Mapping[int, str], option: str, forms: str = "an index or a label"
) -> dict[str | int, int]:
    """Find the class index of every text as :func:`find_class` does, and warn once of names that could be indices."""
    indices = {text: _index_of(text, labels, option, forms) for text in dict.fromkeys(texts)}
    doubtful = [text for text in indices if isinstance(text, str) and _number(text) not in (None, indices[text])]
    doubtful = [text for text in doubtful if _number(text) in labels]
    if doubtful:
        text, others = doubtful[0], len(doubtful) - 1
        more = f"; so are {others} more" if others else ""
        warnings.warn(
            f"{option} {text!r} is read as a class name, that of class {indices[text]}, not as a class index{more}.",
            stacklevel=3,
        )
    return indices


def _index_of(text: str | int, labels: Mapping[int, str], option: str, forms: str) -> int:
    if isinstance(text, Integral) and not isinstance(text, bool):
        return _check_index(int(text), labels, option)
    if not isinstance(text, str):
        raise TypeError(f"{option} must be {forms}, but got {text!r}.")
    wanted = text.strip().casefold()
    whole = [index for index, label in labels.items() if label.strip().casefold() == wanted]
    matches = whole or [index for index, label in labels.items() if wanted in _synonyms(label)]
    if len(matches) > 1:
        raise ValueError(f"{option} must be one class, but got {text!r}: {_listing(matches, labels)}. Pass the index.")
    if matches:
        return matches[0]
    index = _number(text)
    if index is None:
        raise ValueError(f"{option} must be {forms}, but got {text!r}.{_similar_names(wanted, labels)}")
    return _check_index(index, labels, option)


def _number(text: str) -> int | None:
    digits = text.strip()
    return int(digits) if digits.removeprefix("-").isdecimal() else None


def _check_index(index: int, labels: Mapping[int, str], option: str) -> int:
    if index not in labels:
        raise ValueError(f"{option} must be from {min(labels)} to {max(labels)} for this model, but got {index}.")
    return index


def _synonyms(label: str) -> list[str]:
    return [part.strip() for part in label.casefold().split(",")]


def _similar_names(wanted: str, labels: Mapping[int, str]) -> str:
    """Return the classes with similar names, first those with the word."""
    names = {name: index for index, label in labels.items() for name in _synonyms(label)}
    same_word = [name for name in names if wanted in name.split()][:NEAR]
    near = dict.fromkeys(names[name] for name in [*same_word, *get_close_matches(wanted, names)])
    return f" Try {_listing(list(near)[:NEAR], labels)}." if near else ""


def _listing(indices: Sequence[int], labels: Mapping[int, str]) -> str:
    return "; ".join(f"{index} ({labels[index]})" for index in indices)
