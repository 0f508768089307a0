"""The table of rivals: what stands in it is what the metrics say, and a run that is stopped goes on."""

import json
import sys

import pytest
import torch

pytest.importorskip("tools.rivals.measuring", reason="the tools are not installed; they stand in a checkout")

from captum_gmar import LibraFullGradPlus
from captum_gmar.demo import load_model, make_scene
from captum_gmar.demo.patches import scene_pixel_values
from captum_gmar.metrics import Mean, symmetric_relevance_gain
from tools.rivals import __main__ as rivals
from tools.rivals.measuring import OF_LOG_ODDS


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["rivals", *map(str, arguments)])
    rivals.main()


def test_scenes_and_their_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    output, options = (
        tmp_path / "scenes.jsonl",
        ("--removals", "mean", "--steps", 2, "--methods", OF_LOG_ODDS, "gmar++"),
    )
    for limit in (1, 2):
        run(monkeypatch, "scenes", "--output", output, "--limit", limit, *options)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["number"] for line in lines] == [720_000, 720_001]
    model, scene = load_model(), make_scene(720_000, 1)
    pixels = scene_pixel_values([scene])
    relevance = LibraFullGradPlus(model, score="log-odds").relevance(pixels, scene.labels[0])
    gain = symmetric_relevance_gain(
        lambda pixels: model(pixels).logits, pixels, relevance, scene.labels[0], steps=2, removal=Mean()
    ).gain
    assert lines[0]["values"][OF_LOG_ODDS]["SRG, mean"] == pytest.approx(float(gain), rel=1e-4)
    run(monkeypatch, "table", output)
    table = capsys.readouterr().out
    mean = sum(line["values"][OF_LOG_ODDS]["SRG, mean"] for line in lines) / 2
    assert table.startswith("2 images.")
    assert f"| {mean:.3f} |" in table
