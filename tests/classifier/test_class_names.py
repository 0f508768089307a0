"""Classes are found by index, label or synonym, and what names none or several is refused with what is near."""

import pytest
from classifiers import LABELS

from captum_gmar.classifier import find_class


@pytest.mark.parametrize(
    ("text", "index"), [("0", 0), (" 3 ", 3), ("Tabby", 0), ("tabby cat", 0), ("tabby, Tabby Cat", 0), ("TIGER CAT", 3)]
)
def test_index_label_or_synonym(text, index):
    assert find_class(text, LABELS) == index


def test_whole_label_goes_before_synonym():
    assert find_class("tank", {0: "tank, army tank", 1: "tank"}) == 1


def test_a_name_of_digits_goes_before_an_index_and_a_number_is_an_index():
    labels = {0: "1", 1: "2", 2: "zero, 0", 3: "3"}
    for text, index in (("1", 0), ("0", 2)):
        with pytest.warns(UserWarning, match=f"target '{text}' is read as a class name, that of class {index}, not"):
            assert find_class(text, labels) == index
    assert (find_class(1, labels), find_class("3", labels)) == (1, 3)  # of which nothing is in doubt
    with pytest.raises(ValueError, match=r"^target must be from 0 to 3"):
        find_class(4, labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", r"^contrast must be a class, but got 'cat'\. Try 0 \(tabby, tabby cat\); 3 \(tiger cat\)\.$"),
        ("zzzz", r"^contrast must be a class, but got 'zzzz'\.$"),
        ("4", r"^contrast must be from 0 to 3 for this model, but got 4\.$"),
        ("-1", r"^contrast must be from 0 to 3 for this model, but got -1\.$"),
        (None, r"^contrast must be a class, but got None\.$"),
        (1.5, r"^contrast must be a class, but got 1\.5\.$"),
        ("crane", r"^contrast must be one class, but got 'crane': 1 \(crane\); 2 \(crane\)\. Pass the index\.$"),
    ],
)
def test_what_names_no_class_or_several(text, message):
    with pytest.raises((TypeError, ValueError), match=message):
        find_class(text, LABELS, "contrast", forms="a class")
