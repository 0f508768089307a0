"""The comparison with rivals, what one leads by, and cost beside faithfulness, on one scene and hardly any steps."""

import csv
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("benchmarks.rivals", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks import cost, leads, many_passes, random_masks, rivals
from benchmarks.cost import Point, draw_budgets, draw_costs, read_means, to_points
from benchmarks.lrp import LRP_ROWS
from captum_gmar import list_methods
from captum_gmar.attr.catalogue import OURS
from captum_gmar.demo import make_scene
from captum_gmar.evaluation.data.example import Example
from captum_gmar.metrics import Zero
from captum_gmar.metrics.controls import CONTROLS

FEW = ("rollout", "ResLRP", "libra-fullgrad+ of log-odds")


def test_every_method_of_ours_and_every_rival_is_there():
    assert {*OURS, *LRP_ROWS, *rivals.OF_LOG_ODDS} <= set(rivals.rivals())
    assert "integrated-gradients" not in rivals.rivals()
    assert "integrated-gradients" in rivals.rivals(with_many_passes=True)


def test_the_library_has_all_its_methods_once():
    assert sorted(rivals.LIBRARY) == sorted({*list_methods(), *rivals.OF_LOG_ODDS} - {"feature-ablation"})


def test_sure_images_are_those_of_a_probable_class():
    """Four classes of logit 0 but one: the probability is e / (e + 3) = 0.475 of logit 1, and 0.87 of logit 3."""
    classifier = SimpleNamespace(
        pixel_values=torch.as_tensor, logits=lambda logit: torch.cat([logit, torch.zeros(1, 3)], 1)
    )
    images = [
        Example(str(number), None, partial(torch.full, (1, 1), float(logit))) for number, logit in enumerate([3, 1] * 4)
    ]
    sure = rivals.sure_examples(classifier, images, 0.5, 3, (1, 1))
    every = rivals.sure_examples(classifier, images, 0.5, 9, (1, 1))
    assert sure == every[:3]
    assert {image.name for image in every} == {"0", "2", "4", "6"}
    assert {image.name for image in rivals.sure_examples(classifier, images, 0.5, 9, (3, 4))} == {"2", "6"}


def test_folder_and_picture(tmp_path, monkeypatch):
    all_of_them = rivals.rivals()
    for module in (rivals, cost):
        monkeypatch.setattr(module, "rivals", lambda with_many_passes=False: {name: all_of_them[name] for name in FEW})
    folder = tmp_path / "results"
    rivals.main(["--metrics", "srg,aopc", "--steps", "2", "--limit", "1", "--output", str(folder)])
    assert set(read_means(folder, "srg", "mean")) == {*FEW, *CONTROLS}
    led = leads.table_of(folder, "rollout", ["srg"])
    assert "ResLRP" in led
    assert "[" not in led  # one image has no interval
    cost.main([str(folder), "--rounds", "1", "--output", str(tmp_path / "cost.png")])
    with (tmp_path / "cost.csv").open(newline="", encoding="utf-8") as file:
        costs = {row["method"]: row["cost"] for row in csv.DictReader(file)}
    assert all(float(costs[name]) > 0 for name in FEW)
    assert {costs[name] for name in CONTROLS} == {""}
    assert (tmp_path / "cost.png").stat().st_size


def test_many_passes_of_a_sum_over_patches(make_vit):
    """KernelSHAP finds the summands; LIME and greedy search find their order; RISE ranks the largest first."""
    vit = make_vit(patch_size=8, image_size=16)
    weights = torch.tensor([[4.0, -1.0], [0.0, 2.0]])

    class Sum(torch.nn.Module):
        config = vit.config

        def forward(self, pixels):
            sums = (pixels.mean(1) * weights.repeat_interleave(8, 0).repeat_interleave(8, 1)).sum((1, 2)) / 64
            return torch.stack([sums, torch.zeros_like(sums)], 1)  # whose log-odds are the sums

    rows, target = many_passes.rows(), torch.tensor([0])
    shapley = rows["kernel-shap@17"](Sum())(torch.ones(1, 3, 16, 16), target)
    assert_close(torch.nn.functional.avg_pool2d(shapley.sum(1), 8)[0] * 64, weights, atol=1e-4, rtol=1e-4)
    found = rows["rise@65"](Sum())(torch.ones(1, 3, 16, 16), target)
    assert torch.nn.functional.avg_pool2d(found[:, 0], 8).argmax() == 0
    for name in ("lime@65", "greedy-search@65"):
        found = rows[name](Sum())(torch.ones(1, 3, 16, 16), target)
        relevance = torch.nn.functional.avg_pool2d(found.flatten(0, 1).sum(0, keepdim=True)[None], 8).flatten()
        assert relevance.argsort(descending=True).tolist() == [0, 3, 2, 1]


def test_images_that_a_budget_runs(make_vit):
    """Three images a pass, and six without half of their tokens."""
    vit = make_vit(patch_size=8, image_size=16)
    images = []
    vit.register_forward_hook(
        lambda module, given, options, output: images.append(len(output.logits)), with_kwargs=True
    )
    counts = {}
    for name in ("rise@5", "kernel-shap@5", "lime@5", "lime-of-tokens@5", "vit-cx@5"):
        images.clear()
        many_passes.rows()[name](vit)(torch.randn(1, 3, 16, 16), torch.tensor([0]))
        counts[name.removesuffix("@5")] = sum(images)
    assert counts == {"rise": 15, "kernel-shap": 15, "lime": 15, "lime-of-tokens": 30, "vit-cx": 15}


@pytest.mark.parametrize("passes", [5, 17])  # at 5 the budget ends the clustering, at 17 the distance
def test_vit_cx_by_its_formula(make_vit, passes):
    """Each step by hand: layer norm, enlarging, complete linkage over all pairs, noise, impact, share of each mask."""
    vit = make_vit(patch_size=8, image_size=16).double()
    norm = vit.vit.get_submodule("layers" if hasattr(vit.vit, "layers") else "encoder.layer")[-1].layernorm_before
    norm.weight.data.normal_(generator=torch.Generator().manual_seed(1))  # of both signs
    image = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = vit(image, output_hidden_states=True).hidden_states[-2][0]
        centred = tokens - tokens.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
        second = ((torch.arange(16.0).double() + 0.5) / 8 - 0.5).clamp(0, 1)
        along = torch.stack([1 - second, second])  # what each of two patches gives to each of 16 pixels
        masks = [along.T @ channel.view(2, 2) @ along for channel in scaled[1:].T]
        masks = [(mask - mask.min()) / (mask.max() - mask.min()) for mask in masks]

        def apart(pair):
            cosines = [
                (masks[i] * masks[j]).sum() / masks[i].norm() / masks[j].norm() for i in pair[0] for j in pair[1]
            ]
            return 1 - float(min(cosines))

        groups = [[number] for number in range(len(masks))]
        while True:
            nearest = min(combinations(groups, 2), key=apart)
            if apart(nearest) > 0.1 and len(groups) <= (3 * passes - 1) // 2:
                break
            rest = [group for group in groups if group not in nearest]
            groups = sorted([*rest, nearest[0] + nearest[1]], key=min)
        assert len(groups) < len(masks)
        summed = [sum(masks[number] for number in group) for group in groups]
        summed = [(mask - mask.min()) / (mask.max() - mask.min()) for mask in summed]
        noise = 0.1 * torch.randn(len(groups), 3, 16, 16, generator=torch.Generator().manual_seed(0))

        def probability(pixels):
            return vit(pixels).logits.softmax(1)[0, 1]

        impacts = [
            probability(image * mask + z * (1 - mask)) - probability(image + z * (1 - mask)) + probability(image)
            for mask, z in zip(summed, noise, strict=True)
        ]
        expected = sum(impact * mask for impact, mask in zip(impacts, summed, strict=True)) / sum(summed)
    found = many_passes.rows()[f"vit-cx@{passes}"](vit)(image, torch.tensor([1]))
    assert_close(found, expected.expand(1, 3, -1, -1), atol=1e-9, rtol=0)


def test_agreement_with_random_masks(capsys):
    """The relevance of a sum over patches has the order of its values: 1; the other sign: -1. All sets are of 98."""
    assert (random_masks.removed_sets((14, 14)).sum((2, 3)) == 98).all()
    weights = torch.randn(14, 14, generator=torch.Generator().manual_seed(0))

    def forward(pixels):
        sums = (torch.nn.functional.avg_pool2d(pixels[:, 0], 8) * weights).sum((1, 2))
        return torch.stack([sums, torch.zeros_like(sums)], 1)

    image = torch.ones(1, 3, 112, 112)
    assert random_masks.agreements([weights, -weights], forward, image, 0, Zero()) == pytest.approx([1, -1])
    random_masks.main(["--methods", "token-evidence", "token-evidence@3", "--limit", "2"])
    assert "2 of 2" in capsys.readouterr().out


def test_what_was_not_timed_is_left_out():
    means = {"a": (1.0, 0.5, 1.5), "b": (2.0, 1.5, 2.5), "random map": (0.0, -0.5, 0.5)}
    points = to_points(means, {"a": 3.0})
    assert points == [Point("a", 3.0, 1.0, 0.5, 1.5), Point("random map", None, 0.0, -0.5, 0.5)]
    (panel,) = draw_costs(points, "srg", "mean").axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["1  a", "2  random map"]


def test_a_line_joins_the_budgets_of_a_method():
    means = {"rise@17": (1.0,), "token-evidence@9": (2.5,), "token-evidence": (2.0,), "random map": (0.0,)}
    (panel,) = draw_budgets({"SRG": means}, "mean").axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in panel.get_lines()}
    assert drawn == {"token-evidence": [[1, 2.0], [9, 2.5]], "rise": [[17, 1.0]]}
    assert {text.get_text() for text in panel.texts} == set(drawn)


def test_a_folder_without_that_metric(tmp_path):
    (tmp_path / "summary.csv").write_text("metric,removal,method,examples,mean,low,high\nsrg,blur,a,1,1,1,1\n")
    with pytest.raises(ValueError, match="must hold srg with the removal 'mean'"):
        read_means(tmp_path, "srg", "mean")


def test_a_mean_without_interval_is_a_point_without_line(tmp_path):
    (tmp_path / "summary.csv").write_text("metric,removal,method,examples,mean,low,high\nsrg,mean,a,30,1.5,,\n")
    (point,) = to_points(read_means(tmp_path, "srg", "mean"), {"a": 2.0})
    assert point[:3] == ("a", 2.0, 1.5)
    assert np.isnan(point[3:]).all()
    (panel,) = draw_costs([point], "srg", "mean").axes
    bar, dot = (np.asarray(line.get_ydata()) for line in panel.get_lines())
    assert np.isnan(bar).all()
    assert dot == [1.5]


def test_what_one_leads_by(tmp_path):
    """Differences stand once for every two methods, whichever comes first; the sign is the leader's."""
    means = ("srg,mean,early,4,1,0.5,1.5", "srg,mean,ours,4,3,2,4", "srg,mean,late,4,-0.5,-1,0")
    differences = ("srg,mean,early,ours,4,-2,-3,-1", "srg,mean,early,late,4,1.5,1,2", "srg,mean,ours,late,4,3.5,-1,8")
    (tmp_path / "summary.csv").write_text("\n".join(("metric,removal,method,examples,mean,low,high", *means)))
    (tmp_path / "differences.csv").write_text(
        "\n".join(("metric,removal,method,other,examples,difference,low,high", *differences))
    )
    assert leads.table_of(tmp_path, "ours", ["aopc", "srg"]).splitlines() == [
        "| method | srg, mean |",
        "| --- | --- |",
        "| ours | 3.000 |",
        "| early | 1.000 (**+2.000 [+1.000, +3.000]**) |",
        "| late | −0.500 (+3.500 [−1.000, +8.000]) |",
    ]
    with pytest.raises(ValueError, match="must hold theirs and some of srg"):
        leads.table_of(tmp_path, "theirs", ["srg"])


def test_scenes_of_one_object_and_two_from_their_seed():
    first, second = rivals.scenes(rivals.REPORTING_SEED, None)[:2]
    assert [first.name, second.name] == ["scene 720000", "scene 720001"]
    for example, objects in ((first, 1), (second, 2)):
        expected = make_scene(int(example.name.split()[1]), objects)
        assert (np.asarray(example.read()) == expected.image).all()
    assert np.array_equal(np.asarray(rivals.scenes(7, 1)[0].read()), make_scene(7, 1).image)
