"""Start tokens of relevance."""

import numpy as np
import pytest
import torch
from families import FAMILIES, IMAGE, expected_start, make, naming, tokens_after_the_last_layer
from torch.testing import assert_close

from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.engine.models.readout_tokens import check_start, start_relevance


@pytest.mark.parametrize("family", FAMILIES)
def test_relevance_starts_where_the_classifier_reads(family):
    """Tokens with a gradient after the last layer are those that the classifier reads."""
    model, forward = make(family)
    tokens, logits = tokens_after_the_last_layer(model, forward, torch.randn(1, 3, *IMAGE))
    gradient = torch.autograd.grad(logits[0, 3], tokens)[0][0]  # (T, hidden)
    grid = patch_grid(model, *IMAGE)
    start = start_relevance(model, grid, len(gradient))
    assert_close(start > 0, gradient.ne(0).any(-1))
    assert_close(start, expected_start(FAMILIES[family][1], len(gradient), grid.patches))


def start_of(names, tokens, start=None):
    model = naming(names)
    return start_relevance(model, patch_grid(model, 8, 8), tokens, start)


@pytest.mark.parametrize(
    ("names", "tokens", "expected"),
    [
        ({"cls_token": (1, 1, 8)}, 5, [1, 0, 0, 0, 0]),
        ({"tokens_of_mine": (1, 1, 8)}, 6, [1, 0, 0, 0, 0, 0]),
        ({"tokens_of_mine": (1, 1, 8)}, 4, [0.25, 0.25, 0.25, 0.25]),
        ({"reg_token": (1, 2, 8)}, 6, [0, 0, 0.25, 0.25, 0.25, 0.25]),
        ({"cls_token": (1, 2, 8)}, 6, [0.5, 0.5, 0, 0, 0, 0]),  # Pixio has several
    ],
)
def test_start_of_models_that_say_nothing(names, tokens, expected):
    assert_close(start_of(names, tokens), torch.tensor(expected).double())


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("cls", [1, 0, 0, 0, 0, 0]),
        ("distillation", [0, 1, 0, 0, 0, 0]),
        ("patches", [0, 0, 0.25, 0.25, 0.25, 0.25]),
        ((0, 1), [0, 0, 0, 1, 0, 0]),
        ((np.int64(1), np.int64(0)), [0, 0, 0, 0, 1, 0]),
        ([(1, 1), (0, 0)], [0, 0, 0.5, 0, 0, 0.5]),
        (["cls", (0, 0)], [0.5, 0, 0.5, 0, 0, 0]),
        (["cls", "patches"], [0.5, 0, 0.125, 0.125, 0.125, 0.125]),
    ],
)
def test_start_elsewhere(start, expected):
    names = {"cls_token": (1, 1, 8), "dist_token": (1, 1, 8)}
    check_start(start)
    assert_close(start_of(names, 6, start), torch.tensor(expected).double())


def test_start_overrides_what_the_model_says():
    model, _ = make("DINOv2")
    grid = patch_grid(model, *IMAGE)
    assert_close(start_relevance(model, grid, 17, "cls"), torch.eye(17).double()[0])
    assert_close(start_relevance(model, grid, 17, (3, 1)), torch.eye(17).double()[1 + 13])


UNKNOWN = ["CLS", "", [], [(0, 1), (0, 1)], ["cls", "all"], ["cls", "cls"]]
WRONG = [["cls", 3], 3, (1, 2, 3), [1, 2], (0.0, 1.0), (True, False), ((0, 1), (1, 1)), np.array([0, 1])]


@pytest.mark.parametrize(("start", "error"), [*((s, ValueError) for s in UNKNOWN), *((s, TypeError) for s in WRONG)])
def test_wrong_forms_of_start(start, error):
    with pytest.raises(error, match=r"tokens must .* but got .*\.$"):
        check_start(start)


@pytest.mark.parametrize(
    ("names", "start", "message"),
    [
        ({"reg_token": (1, 1, 8)}, "cls", "tokens must .* Sequential has 1 tokens before .* no 'cls'"),
        ({"cls_token": (1, 1, 8)}, "distillation", "tokens must be of the model, .* no 'distillation'"),
        ({"cls_token": (1, 1, 8)}, (2, 0), r"within the 2x2 patch grid .* got the patch \(2, 0\)"),
        ({"cls_token": (1, 1, 8)}, [(0, 0), (1, -1)], r"within the 2x2 patch grid .* got the patch \(1, -1\)"),
    ],
)
def test_start_that_the_model_does_not_have(names, start, message):
    with pytest.raises(ValueError, match=message):
        start_of(names, 5, start)


def test_cls_of_a_model_without_prefix_tokens():
    with pytest.raises(ValueError, match="has 0 tokens before the patches"):
        start_of({}, 4, "cls")
