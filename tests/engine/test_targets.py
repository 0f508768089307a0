"""Targets and contrasts: what is selected, and what is refused."""

import pytest
import torch

from captum_gmar.engine.targets import check_target, select

pytestmark = pytest.mark.fault

LOGITS = torch.arange(40.0).view(4, 10)
OF_QUERIES = torch.arange(60.0).view(4, 5, 3)
OF_PIXELS = torch.arange(96.0).view(4, 2, 3, 4)


@pytest.mark.parametrize(
    ("scores", "target", "contrast", "expected"),
    [
        (LOGITS, 3, None, [3, 13, 23, 33]),
        (LOGITS, [3, 0, 9, 1], 2, [1, -2, 7, -1]),
        (LOGITS, (-1,), torch.tensor([0, 1, 2, 3]), [9, 8, 7, 6]),
        (LOGITS[:, :1], None, None, [0, 10, 20, 30]),
        (LOGITS[:, 0], None, None, [0, 10, 20, 30]),
        (OF_QUERIES, (4, 2), None, [14, 29, 44, 59]),
        (OF_QUERIES, (-1, -1), (4, 0), [2, 2, 2, 2]),
        (OF_QUERIES, [(0, 0), (1, 1), (2, 2), (3, 0)], None, [0, 19, 38, 54]),
        (OF_PIXELS, (1, 2, 3), None, [23, 47, 71, 95]),
    ],
)
def test_selected(scores, target, contrast, expected):
    assert select(scores, target, contrast).flatten().tolist() == expected


WRONG = [
    (LOGITS, 10, ValueError, "from 0 to 9, as there are 10 classes, but got 10."),
    (LOGITS, -11, ValueError, "from 0 to 9, as there are 10 classes, but got -11."),
    (LOGITS, (10,), ValueError, "from 0 to 9, as there are 10 classes, but got 10."),
    (LOGITS, torch.tensor(10), ValueError, "from 0 to 9, as there are 10 classes, but got 10."),
    (LOGITS, [0, 9, 11, 12], ValueError, "from 0 to 9, as there are 10 classes, but got 11."),
    (LOGITS, torch.tensor([0, 9, -1, 10]), ValueError, "from 0 to 9, as there are 10 classes, but got -1."),
    (LOGITS, [(0,), (9,), (-11,), (0,)], ValueError, "from 0 to 9, as there are 10 classes, but got -11."),
    (LOGITS, [(0, 1)] * 4, ValueError, "1 index into each output of shape (10,), such as"),
    (LOGITS, [(0,), (9, 1), (3,), (0,)], TypeError, "integers, one for each dimension of an example's output"),
    (LOGITS, torch.rand(4), TypeError, "integers, one for each dimension of an example's output, but got tensor"),
    (LOGITS, [1, 2.5, 3, 4], TypeError, "integers, one for each dimension of an example's output, but got [1, 2.5"),
    (LOGITS, [True] * 4, TypeError, "integers, one for each dimension of an example's output, but got [True"),
    (LOGITS, (1.5,), TypeError, "integers, one for each dimension of an example's output, but got (1.5,)."),
    (LOGITS[:, 0], [(0,)] * 4, ValueError, "0 indices into each output of shape (), such as"),
    (OF_QUERIES, 2, ValueError, "2 indices into each output of shape (5, 3), such as (query, class) or"),
    (OF_QUERIES, (2,), ValueError, "2 indices into each output of shape (5, 3)"),
    (OF_QUERIES, torch.tensor([0, 1, 2, 0]), ValueError, "2 indices into each output of shape (5, 3)"),
    (OF_QUERIES, [0, 1, 2, 0], ValueError, "2 indices into each output of shape (5, 3)"),
    (OF_QUERIES, (5, 0), ValueError, "from 0 to 4 and 2, but got (5, 0)."),
    (OF_QUERIES, (0, 1, 2), ValueError, "2 indices into each output of shape (5, 3)"),
    (OF_PIXELS, 1, ValueError, "3 indices into each output of shape (2, 3, 4), such as (query, class) or (class, row"),
    (OF_PIXELS, (1, 2), ValueError, "3 indices into each output of shape (2, 3, 4)"),
]


@pytest.mark.parametrize(("scores", "target", "error", "says"), WRONG)
def test_wrong(scores, target, error, says):
    with pytest.raises(error) as raised:
        select(scores, target, None)
    assert str(raised.value).startswith(f"target must be {says}")
    right = {1: None, 2: 0, 3: (0, 0), 4: (0, 0, 0)}[scores.dim()]
    with pytest.raises(error) as raised:
        select(scores, right, target)
    assert str(raised.value).startswith(f"contrast must be {says}")


def test_no_target():
    with pytest.raises(ValueError, match="target must be 2 indices into each output"):
        select(OF_QUERIES, None, None)
    with pytest.raises(AssertionError, match="Target not provided when necessary"):
        select(LOGITS, None, None)


@pytest.mark.parametrize("target", [3, torch.tensor([0, 9, 3, 5]), [(0,), (9,), (3,), (5,)], [0, 9, 3, 5]])
@pytest.mark.parametrize("contrast", [3, (-7,), torch.tensor(3), [4, 2, 3, 1], torch.tensor([4, 2, 3, 1])])
def test_contrast_that_is_the_target(target, contrast):
    with pytest.raises(ValueError, match="contrast must be another class than the target, but got 3 for both"):
        select(LOGITS, target, contrast)


def test_contrast_that_is_the_target_of_a_query():
    with pytest.raises(ValueError, match=r"contrast must be another class .* but got \(4, 1\) for both"):
        select(OF_QUERIES, (4, 1), (-1, -2))
    assert select(OF_QUERIES, (4, 1), (4, 2)).tolist() == [-1] * 4


def test_what_captum_refuses_passes():
    for target in ("tabby", 1.0, [1, 2], torch.ones(2, 2), (1, 2), True):
        check_target((4, 10), target)
