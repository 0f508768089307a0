"""The comparison with rivals, and cost beside faithfulness, on one scene and hardly any steps."""

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("benchmarks.rivals", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks import cost, rivals
from benchmarks.cost import Point, draw_costs, read_means, to_points
from benchmarks.lrp import LRP_ROWS
from captum_gmar.attr.catalogue import OURS
from captum_gmar.metrics.controls import CONTROLS

FEW = ("rollout", "ResLRP", "libra-fullgrad+ of log-odds")


def test_every_method_of_ours_and_every_rival_is_there() -> None:
    assert {*OURS, *LRP_ROWS, *rivals.OF_LOG_ODDS} <= set(rivals.rivals())
    assert "integrated-gradients" not in rivals.rivals()
    assert "integrated-gradients" in rivals.rivals(with_many_passes=True)


def test_folder_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_them = rivals.rivals()
    for module in (rivals, cost):
        monkeypatch.setattr(module, "rivals", lambda with_many_passes=False: {name: all_of_them[name] for name in FEW})
    folder = tmp_path / "results"
    rivals.main(["--metrics", "srg,aopc", "--steps", "2", "--limit", "1", "--output", str(folder)])
    assert set(read_means(folder, "srg", "mean")) == {*FEW, *CONTROLS}
    cost.main([str(folder), "--rounds", "1", "--output", str(tmp_path / "cost.png")])
    with (tmp_path / "cost.csv").open(newline="", encoding="utf-8") as file:
        costs = {row["method"]: row["cost"] for row in csv.DictReader(file)}
    assert all(float(costs[name]) > 0 for name in FEW)
    assert {costs[name] for name in CONTROLS} == {""}
    assert (tmp_path / "cost.png").stat().st_size


def test_what_was_not_timed_is_left_out() -> None:
    means = {"a": (1.0, 0.5, 1.5), "b": (2.0, 1.5, 2.5), "random map": (0.0, -0.5, 0.5)}
    points = to_points(means, {"a": 3.0})
    assert points == [Point("a", 3.0, 1.0, 0.5, 1.5), Point("random map", None, 0.0, -0.5, 0.5)]
    (panel,) = draw_costs(points, "srg", "mean").axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["1  a", "2  random map"]


def test_a_folder_without_that_metric(tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("metric,removal,method,examples,mean,low,high\nsrg,blur,a,1,1,1,1\n")
    with pytest.raises(ValueError, match="must hold srg with the removal 'mean'"):
        read_means(tmp_path, "srg", "mean")


def test_lines_of_images(tmp_path: Path) -> None:
    """As tools.rivals writes them: every image is a line."""
    lines = [{"number": n, "values": {"a": {"SRG, mean": float(n)}, "b": {"SRG, mean": 2.0}}} for n in range(3)]
    (tmp_path / "photos.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = read_means(tmp_path / "photos.jsonl", "SRG", "mean")
    assert found["a"][0] == 1.0
    assert found["a"][1] < 1.0 < found["a"][2]
    assert found["b"] == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="must hold srg with the removal 'mean'"):
        read_means(tmp_path / "photos.jsonl", "srg", "mean")
