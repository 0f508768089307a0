"""Fixtures of the kernels' tests."""

import pytest

from captum_gmar.engine.kernels import workspace


@pytest.fixture(params=[(1 << 19, 128), (1, 4), (300, 4), (500, 4)], ids=["whole", "rows", "example", "two examples"])
def block_size(request, monkeypatch):
    elements, rows = request.param
    monkeypatch.setitem(workspace.BLOCK_ELEMENTS, "cpu", elements)
    monkeypatch.setitem(workspace.ELEMENTS_APART, "cpu", elements)
    monkeypatch.setattr(workspace, "MIN_BLOCK_ROWS", rows)
