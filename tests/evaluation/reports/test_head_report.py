"""Report and pictures of heads."""

import pytest
import torch

from captum_gmar import GMARAttribution, evaluate_heads

pytestmark = pytest.mark.usefixtures("blank_pictures")


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
        *("explained: the class of the label", "Do the scores agree?", "made by `captum_gmar.evaluate"),
    ):
        assert part in report
    figure, axes = results.visualize(use_pyplot=False)
    assert [panel.get_title() for panel in axes] == ["gmar-l1", "mask-gradient"]
    assert figure.get_suptitle().replace("\n", " ") == "ViTForImageClassification, list: heads, 10 images"
    figure, _ = results.visualize(title="all heads", use_pyplot=False)
    assert figure.get_suptitle() == "all heads"


def test_one_image_has_no_spread(vit, labelled):
    results = evaluate_heads(vit, labelled[:1], ["gmar-l2"], target=3)
    expected = GMARAttribution(vit, norm="l2").head_importance(labelled[0][0][None], target=3)[0]
    torch.testing.assert_close(results.statistics["gmar-l2"].mean, expected.double())
    assert results.explained.endswith("(class 3)")
    assert "±" not in results.to_markdown()
