"""Checks of numbers that are looked at together."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.engine.finite_checks import Flags, check_finite, flag_each


def test_flags_come_back_in_order_after_all_checks_hold():
    flags = Flags()
    flags.add(torch.tensor(True))
    flags.finite(torch.ones(2, 3), "ones")
    flags.add(torch.tensor(False))
    assert flags.look() == [True, False]
    assert Flags().look() == []


def test_the_first_check_that_does_not_hold_raises_its_error():
    flags = Flags()
    flags.finite(torch.ones(2), "ones")
    flags.finite(torch.tensor([1.0, torch.inf]), "relevance")
    flags.must_hold(torch.tensor(False), lambda: ValueError("later"))
    with pytest.raises(FloatingPointError, match="The relevance must be finite"):
        flags.look()


def test_not_a_number():
    check_finite(torch.zeros(3), "zeros")
    with pytest.raises(FloatingPointError, match="The mean must be finite"):
        check_finite(torch.tensor([0.0, torch.nan]), "mean")


def test_tensors_of_several_shapes_keep_their_order():
    tensors = [torch.ones(2), torch.zeros(3), -torch.ones(2)]
    flags = flag_each(tensors, lambda stacked: (stacked > 0).all(1))
    assert_close(torch.stack(flags), torch.tensor([True, False, False]))
