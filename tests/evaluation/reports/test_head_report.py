"""Report and pictures of heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from captum_gmar import GMARAttribution, evaluate_heads

pytestmark = pytest.mark.usefixtures("blank_pictures")


def test_areas_in_the_report(whole):
    """Count five images twice, which is enough for intervals."""
    ablation = replace(whole.ablation, curves={key: twice(curve) for key, curve in whole.ablation.curves.items()})
    report = ablation.to_markdown()
    lines = report[report.index("### Logit") :].splitlines()
    areas = {
        key: (np.trapezoid if hasattr(np, "trapezoid") else np.trapz)(
            curve.logit.numpy(), curve.counts.numpy() / int(curve.counts[-1]), axis=1
        ).mean(1)
        for key, curve in ablation.curves.items()
    }
    random = areas.pop(("random", "random"))
    for (score, first), (area,) in areas.items():
        (line,) = [line for line in lines if line.startswith(f"| {score}, {first} first")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1].startswith(f"{area:.3f} [")
        assert cells[2].startswith(f"{area - random.mean():.3f} [")
        assert cells[3] == f"{(random >= area if first == 'least' else random <= area).sum()} of 3"
    assert f"{random.mean():.3f} [" in lines[-1]
    assert f"orders from {random.min():.3f} to {random.max():.3f}" in lines[-1]


@pytest.mark.fault
def twice(curve):
    """The same predictions, of as many images more."""
    outcomes = {name: getattr(curve, name).repeat(1, 1, 2) for name in ("accuracy", "logit", "probability")}
    return replace(curve, **outcomes)


@pytest.mark.fault
def test_few_images_show_no_intervals(whole):
    report = whole.ablation.to_markdown()
    assert "Fewer than 10 images show neither an interval nor which order is better." in report
    assert "[" not in report
    assert " of 3 |" not in report


def test_few_images_show_no_spread(vit, labelled):
    results = evaluate_heads(vit, labelled[:4], ["gmar-l1"])
    report = results.to_markdown()
    assert "±" not in report
    assert "Mean of 4 images; fewer than 10 show no spread." in report
    _, (panel,) = results.visualize(use_pyplot=False)
    assert panel.get_title() == "gmar-l1\nMean of 4 images; fewer than 10 show no spread."
    assert not any("±" in text.get_text() for text in panel.texts)


def test_results_in_a_notebook(whole):
    results = whole
    report = results._repr_markdown_()
    assert report == str(results) == results.to_markdown()
    for part in (
        *("gmar-l1, share of its layer ± standard deviation over the images", "mask-gradient, nats", "10 images"),
        *("explained: the class of the label", "on 5 others", "Do the scores agree?", "made by `captum_gmar.evaluate"),
    ):
        assert part in report
    figure, axes = results.visualize(use_pyplot=False)
    assert [panel.get_title() for panel in axes] == ["gmar-l1", "mask-gradient"]
    assert figure.get_suptitle().replace("\n", " ") == "ViTForImageClassification, list: heads, 10 images"
    figure, _ = results.ablation.visualize(use_pyplot=False)
    assert figure.get_suptitle().replace("\n", " ") == "ViTForImageClassification, list: heads silenced"
    figure, axes = results.ablation.visualize(title="without heads", use_pyplot=False)
    assert [panel.get_title().split(":")[0] for panel in axes] == [
        *("accuracy", "probability of the target", "logit of the target")
    ]
    assert figure.get_suptitle() == "without heads"
    assert len(axes[0].lines) == 5
    assert len(results.ablation.records()) == (5) * 3 * 10


def test_one_image_has_no_spread(vit, labelled):
    results = evaluate_heads(vit, labelled[:1], ["gmar-l2"], target=3)
    expected = GMARAttribution(vit, norm="l2").head_importance(labelled[0][0][None], target=3)[0]
    torch.testing.assert_close(results.statistics["gmar-l2"].mean, expected.double())
    assert results.explained.endswith("(class 3)")
    assert "±" not in results.to_markdown()
