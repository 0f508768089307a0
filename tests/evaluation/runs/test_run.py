"""Runs that go on where others stopped."""

import pytest
import torch

from captum_gmar import evaluate
from evaluation.small_data import FEW, IMAGES, Pairs, mask, pixels, values_in_order


def test_a_folder_keeps_what_is_finished(vit, tmp_path):
    folder = tmp_path / "results"
    first = evaluate(vit, Pairs(), **FEW, output=folder)
    calls = []

    def counted(images):
        calls.append(len(images))
        return vit(images).logits

    again = evaluate(vit, Pairs(), **FEW, output=str(folder), forward_func=counted)
    assert not calls
    assert values_in_order(again) == values_in_order(first)
    assert (folder / "summary.md").read_text() == again.to_markdown()
    more = evaluate(vit, Pairs(), **{**FEW, "methods": ["rollout", "gmar-l1"]}, output=folder)
    assert [row for row in more.records() if row["method"] != "gmar-l1"] == first.records()
    with pytest.raises(ValueError, match="must hold results of the same settings, but seed is 0 there and 1 here"):
        evaluate(vit, Pairs(), **FEW, output=folder, seed=1)


def test_what_is_replaced_in_memory_is_measured_anew(vit, tmp_path):
    data = [Pairs()[number] for number in range(IMAGES)]
    evaluate(vit, data, **FEW, output=tmp_path / "results")
    data[1] = (pixels(77), *data[1][1:])
    with pytest.warns(UserWarning, match="1 image is not what was measured under the same name.*: example 1"):
        found = evaluate(vit, data, **FEW, output=tmp_path / "results")
    assert values_in_order(found) == pytest.approx(values_in_order(evaluate(vit, data, **FEW)), abs=1e-6)


def test_what_cannot_be_measured_is_left_out_and_said(vit):
    data = [*(Pairs()[number] for number in range(IMAGES)), (pixels(3) * torch.nan, 0, mask())]
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 3: "):
        evaluation = evaluate(vit, data, **FEW)
    assert [(skip.number, skip.name) for skip in evaluation.skipped] == [(3, "example 3")]
    assert len(evaluation.results) == IMAGES
    with pytest.raises(RuntimeError, match=r"^rollout: "):
        evaluate(vit, data[-1:], **FEW)
