"""``captum_gmar.evaluate``, called from Python."""

import numpy as np
import pytest
import torch
from field_families import TOKENS, small, swin
from torch.utils.data import DataLoader

from captum_gmar import GradientRollout, evaluate, list_methods
from captum_gmar.attr.catalogue import EVALUATED
from captum_gmar.metrics.controls import CONTROLS
from evaluation.small_data import CORNERS, FEW, Pairs, mask, photo, pixels


@pytest.mark.parametrize("of_videos", [False, True], ids=["windows", "videos"])
def test_usual_methods_are_those_that_explain_the_model(of_videos):
    model = (
        small("VideoMAEForVideoClassification", **TOKENS, image_size=16, patch_size=8, num_frames=2)
        if of_videos
        else swin("Swin", image_size=32, patch_size=4, depths=[1, 1], num_heads=[1, 2])
    )
    inputs = torch.rand(2, 3, 16, 16) if of_videos else pixels(0)
    evaluation = evaluate(model.eval(), [(inputs, 1)], metrics=["deletion"], removals=["mean"], steps=2)
    measured = [row["method"] for row in evaluation.means()]
    explaining = {*list_methods(model, inputs[None])} - {"attention-evidence"}  # the same map as token evidence's here
    assert measured == [*(name for name in EVALUATED if name in explaining), *CONTROLS]
    assert len(EVALUATED) > len(measured) - len(CONTROLS) >= 2


def test_methods_of_ones_own(vit):
    methods = {"mine": GradientRollout(vit), "pixels": lambda inputs, target: inputs.detach() ** 2}
    evaluation = evaluate(vit, Pairs(), methods, metrics=["average-gain"])
    assert [row["method"] for row in evaluation.means()] == ["mine", "pixels", *CONTROLS]
    theirs = evaluate(vit, Pairs(), ["gradient-rollout"], metrics=["average-gain"])
    ours = [row["value"] for row in evaluation.records() if row["method"] == "mine"]
    assert ours == [row["value"] for row in theirs.records() if row["method"] == "gradient-rollout"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"removals": []}, ValueError, "removals must be at least one name"),
        ({"methods": ["gmar-l3"]}, ValueError, "but got 'gmar-l3'. Try gmar-l"),
        ({"methods": {"mine": 3}}, TypeError, r"methods\['mine'\] must be a Captum Attribution"),
        ({"methods": {"": print}}, TypeError, "from names, other than .* but got the key ''"),
        ({"methods": {"random map": print}}, TypeError, r"from names, other than random map"),
        ({"steps": 17}, ValueError, "steps must be at most the number of patches, 16, but got 17"),
        ({"processor": 3}, TypeError, "processor must be the model's image processor, but got 3"),
        ({"forward_func": 3}, TypeError, "forward_func must be a callable"),
        ({"forward_func": lambda pixels: 3}, TypeError, "The model must return a tensor .* but got int"),
        ({"output": 3}, TypeError, "output must be the path of a folder, but got 3"),
        ({"data": {"a": pixels(0)}}, TypeError, "data must be a path, a data set or an iterable of .* but got dict"),
        ({"data": [(pixels(0), 0, mask() * torch.nan)]}, ValueError, "its mask must be of finite real numbers"),
        ({"data": [(pixels(0), 0, mask() * 1j)]}, ValueError, "its mask must be of finite real numbers"),
        ({"data": 3}, TypeError, "data must be a path, a data set or an iterable of .* but got int"),
        ({"data": []}, ValueError, "data must hold at least one image"),
        ({"data": [3]}, TypeError, "data must hold .* but got int of int"),
        (
            {"data": [{"label": 3}]},
            TypeError,
            r"example 0 must have one of image, pixel_values, path, but got \['label'",
        ),
        ({"data": [(pixels(0), 0, [[1, 2, 3]])]}, ValueError, "example 0: boxes must be a list of"),
        ({"data": [(np.zeros((32, 32, 3)), 0)]}, TypeError, r"of uint8, but got float64 of shape \(32, 32, 3\)\. Pass"),
        ({"data": [{"image": np.zeros((3, 32, 32), np.uint8)}]}, TypeError, r"but got uint8 of shape \(3, 32, 32\)"),
        (
            {"data": DataLoader(Pairs(), 2)},
            TypeError,
            r"label must be one class, but got Tensor of shape \(2,\)\. Pass",
        ),
        ({"data": [(photo(0), 0, [CORNERS])]}, TypeError, r"data must hold pixel values .* Pass processor="),
        ({"data": [(pixels(0), None, mask())], "target": "label"}, ValueError, "requires labels of all images"),
        ({"data": [(pixels(0), 0)]}, ValueError, "metrics relevance-mass require boxes or masks"),
        ({"data": "none.csv"}, OSError, "none.csv cannot be read: no such file or folder"),
        ({"model": print}, TypeError, "model must be a torch.nn.Module"),
    ],
)
def test_bad_input(vit, changes, error, message):
    with pytest.raises(error, match=message):
        evaluate(**{"model": vit, "data": Pairs(), **FEW, **changes})
