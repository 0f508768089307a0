"""Maps of image tokens, worked by hand."""

from types import SimpleNamespace

import pytest
import torch

from captum_gmar.vlm.image_tokens import PicturePrompt, PictureTokens, QueriedPicture, image_token_id


def prompt(ids, **config):
    model = SimpleNamespace(config=SimpleNamespace(**config))
    return PicturePrompt(model, {"input_ids": torch.tensor([ids])}, len(ids))


def test_relevance_is_read_at_the_positions_of_the_tokens():
    tokens = PictureTokens(torch.tensor([[2, 0], [1, 4]]))
    assert tokens.map(torch.tensor([[10.0, 11, 12, 13, 14]])).tolist() == [[[12, 10], [11, 14]]]
    assert tokens.positions.tolist() == [2, 0, 1, 4]


def test_an_overview_is_distributed_by_area():
    """An overview of two columns covers three; the middle one is half in each."""
    tokens = PictureTokens(torch.tensor([[0, 1, 2]]), overview=torch.tensor([[3, 4]]))
    relevance = torch.tensor([[1.0, 1, 1, 6, -3]])
    assert tokens.map(relevance)[0, 0].tolist() == pytest.approx([1 + 4, 1 + 2 - 1, 1 - 2])
    assert tokens.map(relevance).sum() == pytest.approx(relevance.sum())
    assert sorted(tokens.positions.tolist()) == [0, 1, 2, 3, 4]


def test_queries_distribute_their_relevance():
    weights = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]])
    queried = QueriedPicture(torch.tensor([1, 0]), weights)
    assert queried.map(torch.tensor([[8.0, 2.0]])).tolist() == [[[1, 1 + 8]]]


def test_positions_of_image_tokens():
    assert prompt([5, 9, 9, 1], image_token_id=9).image_positions(2).tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"an image token for each position of their pictures, 3, but got 2"):
        prompt([5, 9, 9, 1], image_token_id=9).image_positions(3)


def test_the_config_names_the_image_token():
    assert image_token_id(prompt([1], image_token_id=7).model) == 7
    assert image_token_id(prompt([1], image_token_index=8).model) == 8
    assert image_token_id(prompt([1]).model) is None
