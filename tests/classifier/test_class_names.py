"""Classes are found by index, label or synonym, and what names none or several is refused with what is near."""

import pytest
from classifiers import LABELS

from captum_gmar.classifier import find_class


@pytest.mark.parametrize(
    ("text", "index"), [("0", 0), (" 3 ", 3), ("Tabby", 0), ("tabby cat", 0), ("tabby, Tabby Cat", 0), ("TIGER CAT", 3)]
)
def test_index_label_or_synonym(text: str, index: int) -> None:
    assert find_class(text, LABELS) == index


def test_whole_label_goes_before_synonym() -> None:
    assert find_class("tank", {0: "tank, army tank", 1: "tank"}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", r"^contrast must be a class\. Got 'cat' instead\. Near are 0 \(tabby, tabby cat\); 3 \(tiger cat\)\.$"),
        ("zzzz", r"^contrast must be a class\. Got 'zzzz' instead\.$"),
        ("4", r"^contrast must be from 0 to 3 for this model\. Got 4 instead\.$"),
        ("-1", r"^contrast must be from 0 to 3 for this model\. Got -1 instead\.$"),
        ("crane", r"^contrast 'crane' names several classes: 1 \(crane\); 2 \(crane\)\. Pass the index\.$"),
    ],
)
def test_what_names_no_class_or_several(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_class(text, LABELS, "contrast", forms="a class")
