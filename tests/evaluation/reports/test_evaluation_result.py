"""Tables of an evaluation, in Python."""

import numpy as np
import pytest

from captum_gmar import evaluate
from evaluation.small_data import FEW, Pairs


def test_results(vit):
    evaluation = evaluate(
        vit, Pairs(), **{**FEW, "methods": ["rollout", "gmar-l1"], "metrics": ["insertion", "deletion"]}
    )
    means = {(row["metric"], row["method"]): row for row in evaluation.means()}
    assert len(means) == 3 * 5  # insertion, deletion and their difference, two methods and three controls
    for metric in ("insertion", "deletion"):
        own = [row["value"] for row in evaluation.records() if (row["metric"], row["method"]) == (metric, "rollout")]
        assert means[metric, "rollout"]["mean"] == pytest.approx(np.mean(own))
        assert means[metric, "rollout"]["low"] is means[metric, "rollout"]["high"] is None  # of three images
        assert evaluation.curves(metric, "mean")["rollout"].auc.tolist() == pytest.approx(own)
    difference = next(
        row for row in evaluation.differences() if (row["metric"], row["other"]) == ("deletion", "gmar-l1")
    )
    expected = means["deletion", "rollout"]["mean"] - means["deletion", "gmar-l1"]["mean"]
    assert difference["difference"] == pytest.approx(expected, abs=1e-9)
    report = evaluation.to_markdown()
    assert report == repr(evaluation) == evaluation._repr_markdown_()
    for part in ("Pairs, 3 images", "the predicted class; 4 steps", "`captum_gmar.evaluate(...)`", "| rollout"):
        assert part in report
    figure, axes = evaluation.visualize(use_pyplot=False)
    assert [axis.get_title() for axis in axes] == [
        "insertion ↑\nmean",
        "deletion ↓\nmean",
        "insertion-deletion ↑\nmean",
    ]
    assert len(figure.axes) == 3
