"""Scenes with a suppressor: what its patches show does not depend on the class."""

import pytest
import torch
from torch.testing import assert_close

suppressors = pytest.importorskip("benchmarks.suppressors", reason="the benchmarks run in a checkout")


@pytest.mark.parametrize("kind", suppressors.KINDS)
def test_only_the_mark_shows_the_class(kind, monkeypatch):
    """With the labels turned round, the same draw changes the mark's red by twice the signal, and nothing else."""
    scenes = suppressors.draw(kind, 4, torch.Generator().manual_seed(0))
    randint, turns = torch.randint, iter([True, False])  # the labels are drawn first, then which half the mark is in
    monkeypatch.setattr(torch, "randint", lambda *given, **options: next(turns) ^ randint(*given, **options))
    turned = suppressors.draw(kind, 4, torch.Generator().manual_seed(0))
    difference = turned.pixels - scenes.pixels
    mark = torch.nn.functional.interpolate(scenes.regions[:, :1], scale_factor=suppressors.PATCH).float()
    sign = (1 - 2 * scenes.labels).float()[:, None, None, None]
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    assert_close(difference, 2 * suppressors.SIGNAL * sign * mark * red)
