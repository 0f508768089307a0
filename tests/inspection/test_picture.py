"""Numbers of one method on one image, worked by hand."""

import pytest

from captum_gmar.inspection.picture import Cost, time_text


def test_cost_is_counted_in_forward_passes():
    assert Cost(0.3, 0.2, 0.4, 0.1, 1, 1).ratio == pytest.approx(3)


def test_spread_is_shown_where_there_is_one():
    assert time_text(Cost(0.0123, 0.0119, 0.15, 0.01, 1, 1)) == "12.3 (11.9–150)"
    assert time_text(Cost(0.5, 0.5, 0.5, 0.01, 1, 1)) == "500"
