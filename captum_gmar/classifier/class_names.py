"""Classes by index or name."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

NEAR = 4  # names suggested


def find_class(text: str, labels: Mapping[int, str], option: str = "target", forms: str = "an index or a label") -> int:
    """
    The class index that ``text`` names.

    Args:
        text (str): A class index, or a label in any case: the whole label, or else one of its comma-separated synonyms.
        labels (dict): The label of every class index.
        option (str, optional): Whose argument it is, for errors.
            Default: "target"
        forms (str, optional): What that may be, for errors.
            Default: "an index or a label"

    Raises:
        ValueError: if it names no class or several; it says which are near.

    >>> labels = {0: "tabby, tabby cat", 1: "tiger cat", 2: "crane", 3: "crane"}
    >>> find_class("Tabby", labels), find_class("1", labels)
    (0, 1)
    """
    wanted = text.strip().casefold()
    if wanted.removeprefix("-").isdecimal():
        return _check_index(int(wanted), labels, option)
    whole = [index for index, label in labels.items() if label.strip().casefold() == wanted]
    matches = whole or [index for index, label in labels.items() if wanted in _synonyms(label)]
    if not matches:
        raise ValueError(f"{option} must be {forms}. Got {text!r} instead.{_similar_names(wanted, labels)}")
    if len(matches) > 1:
        raise ValueError(f"{option} {text!r} names several classes: {_listing(matches, labels)}. Pass the index.")
    return matches[0]


def _check_index(index: int, labels: Mapping[int, str], option: str) -> int:
    if index not in labels:
        raise ValueError(f"{option} must be from {min(labels)} to {max(labels)} for this model. Got {index} instead.")
    return index


def _synonyms(label: str) -> list[str]:
    return [part.strip() for part in label.casefold().split(",")]


def _similar_names(wanted: str, labels: Mapping[int, str]) -> str:
    """The classes whose names look like it, first those with it as a word."""
    names = {name: index for index, label in labels.items() for name in _synonyms(label)}
    with_word = [name for name in names if wanted in name.split()][:NEAR]
    near = dict.fromkeys(names[name] for name in [*with_word, *get_close_matches(wanted, names)])
    return f" Near are {_listing(list(near)[:NEAR], labels)}." if near else ""


def _listing(indices: Sequence[int], labels: Mapping[int, str]) -> str:
    return "; ".join(f"{index} ({labels[index]})" for index in indices)
