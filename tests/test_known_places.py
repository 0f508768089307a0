"""The tables of objects whose places are known: each number against what is worked out by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("benchmarks.known_places", reason="the benchmarks are not installed; they run in a checkout")
pytest.importorskip("tools.video_model.train", reason="the tools are not installed; they stand in a checkout")

from benchmarks import known_places
from benchmarks.known_places import (
    CLIPS,
    FIRST_SEED,
    SCENES,
    STEPS,
    Drawn,
    defined,
    is_sensitive,
    measure,
    on_objects,
    shown_less_hidden,
)
from captum_gmar.attr.scores import log_odds
from tools.video_model.train import build_video_model


class Counting(nn.Module):
    """Its first logit is the sum of the inputs."""

    def forward(self, inputs):
        total = inputs.flatten(1).sum(1)
        return SimpleNamespace(logits=torch.stack([total, torch.zeros_like(total)], 1))


@pytest.mark.parametrize("kind", [SCENES, CLIPS], ids=["scenes", "clips"])
def test_units_are_the_pixels_that_shares_are_of(kind):
    drawn = kind.draw(FIRST_SEED, 1)
    units = torch.arange(drawn.shares.shape[1])[None].double()
    pixels = kind.of_pixels(units).expand_as(drawn.inputs)
    size = pixels.numel() / units.numel()
    torch.testing.assert_close(kind.of_units(pixels), units * size)


def test_shares_on_objects():
    relevance = torch.tensor([[3.0, 1.0, -4.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    shares = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    torch.testing.assert_close(on_objects(relevance, shares), torch.tensor([[0.75, 0.125], [0.25, 0.375]]))
    assert is_sensitive(torch.eye(4)[[0, 2]], shares)
    assert not is_sensitive(torch.eye(4)[[2, 0]], shares)
    assert not is_sensitive(torch.eye(4)[[0, 0]], shares)  # the same map for both classes


def test_shown_less_hidden_is_what_the_first_units_add():
    inputs = torch.zeros(1, 3, 112, 112)
    inputs[..., :8, :8] = 1 / 64
    relevance = torch.zeros(196)
    relevance[0] = 1
    drawn = Drawn(inputs, (0,), torch.zeros(1, 196))
    shown, hidden = (log_odds(torch.tensor([[total, 0.0]]))[0, 0] for total in (3.0, 0.0))
    assert shown_less_hidden(Counting(), SCENES, drawn, relevance) == pytest.approx(float(shown - hidden))
    assert shown_less_hidden(Counting(), SCENES, drawn, -relevance) == pytest.approx(float(hidden - shown))
    assert STEPS > 1


def test_a_model_s_table_has_what_is_defined_for_it(monkeypatch):
    monkeypatch.setattr(known_places, "HELD_OUT", range(2))
    monkeypatch.setattr(known_places, "OF_GRADIENTS", {})
    torch.manual_seed(0)
    model = build_video_model().eval()
    methods, refusing = defined(model, CLIPS)
    assert "attention-evidence" in methods
    assert not methods.keys() & set(refusing)
    assert "| random map" in measure(model, CLIPS, 2)
