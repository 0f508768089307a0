"""The report's own arithmetic, and how it goes on after failures. What anything costs is not tested here."""

import json
import re
import statistics
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from transformers import SwinConfig, SwinForImageClassification

pytest.importorskip("benchmarks.cases", reason="the benchmarks are not installed; they run in a checkout")

from methods import METHODS

from benchmarks.cases import Case
from benchmarks.exactness import of_half_precision, of_methods
from benchmarks.measuring import EVERYTHING, Found, Measuring
from benchmarks.plots import draw_growth
from benchmarks.presets import PRESETS, Preset
from benchmarks.report import to_markdown, write_report
from benchmarks.rows import BOTH, FORWARD, NAMES, ON_DISK, OWN, Row
from benchmarks.summary import fitted_exponent, grown, lines
from benchmarks.timing import Limits, Sample, couples, take_times
from benchmarks.word_cost import Held
from captum_gmar import AttentionEvidence

TINY = Case("ViT-Ti", 32, 2, layers=1)
LIMITS = Limits(rounds=2, enough=1000, longest=1000)


def found_of(*samples, **rest):
    found = Found(**rest)
    found.add_samples(samples)
    return found


def cells(text):
    """Of the rows of a Markdown table; bars that are escaped are no ends of cells."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


class TestGrowth:
    def test_is_the_slope_of_the_straight_line_by_least_squares(self):
        """Through (0, 0), (1, 1), (2, 3) in powers of two: 3/2, worked by hand."""
        assert fitted_exponent([1, 2, 4], [1, 2, 8]) == pytest.approx(1.5)

    def test_memory_above_the_models_own(self):
        cases = [Case("ViT-Ti", 224, layers=depth) for depth in (1, 2, 4)]
        measurements = {
            str(case): found_of(
                Sample("gmar-l1", BOTH, 3.0 * case.layers**2, 1.0), peaks={BOTH: 100, "gmar-l1": 100 + 5 * case.layers}
            )
            for case in cases
        }
        own, gmar = grown(measurements, "layers", cases, ["gmar-l1", "rollout"])
        assert (own.row, own.memory, gmar.row) == (BOTH, pytest.approx(0), "gmar-l1")
        assert (gmar.time, gmar.excess, gmar.excess_mib) == (pytest.approx(2), pytest.approx(1), (5.0, 10.0, 20.0))
        assert [len(panel.lines) for panel in draw_growth({"layers": [own, gmar]}).axes] == [2, 2]


class TestLines:
    def test_the_ratio_is_of_neighbours(self):
        """The median of the ratios, which is not the ratio of the medians."""
        taken = [Sample("gmar-l1", BOTH, seconds, own) for seconds, own in [(2.0, 1.0), (3.0, 3.0), (40.0, 10.0)]]
        own, gmar = lines(found_of(*taken, peaks={BOTH: 50.0, "gmar-l1": 55.0}), ["gmar-l1"])
        assert gmar.ratio.median == 2.0 != statistics.median([2, 3, 40]) / statistics.median([1, 3, 10])
        assert (gmar.seconds, gmar.rounds, gmar.memory_ratio) == (3.0, 3, pytest.approx(1.1))
        assert (own.row, own.seconds, own.mib) == (BOTH, 3.0, 50.0)

    def test_a_row_that_failed_says_why(self):
        found = found_of(
            Sample("rollout", FORWARD, 1.1, 1.0), peaks={"rollout": 3.0}, reasons={"peer": "ImportError: a | b"}
        )
        rows = cells(to_markdown(lines(found, ["rollout", "peer", "autolrp"])))[2:]
        assert rows == [
            ["*forward*", "", "", "", "1", "", "1"],
            ["rollout", "forward", "1.10 × [1.10, 1.10]", "", "1.1", "3.0", "1"],
            ["peer", "", "not measured: ImportError: a \\| b", "", "", "", ""],
            ["autolrp", "", "not measured: out of time", "", "", "", ""],
        ]


class TestRuns:
    def test_the_own_pass_stands_between_two_rows(self):
        rows = {"a": Row(int, BOTH), "b": Row(int, FORWARD), "c": Row(int, BOTH), "d": Row(int, BOTH)}
        assert couples(rows, backwards=False) == [["b"], ["a", "c"], ["d"]]
        assert couples(rows, backwards=True) == [["d"], ["c", "a"], ["b"]]

    def test_times_of_a_tiny_model(self):
        names = ["gmar-l1", "rollout", "gmar-l1, 5 targets", "occlusion", "no such method"]
        samples, reasons = take_times(TINY, "cpu", 1, LIMITS, names)
        assert sorted((s.row, s.own) for s in samples) == sorted(
            2 * [("gmar-l1", BOTH), ("rollout", FORWARD), ("gmar-l1, 5 targets", OWN[2]), ("occlusion", FORWARD)]
        )
        assert all(s.seconds > 0 and s.own_seconds > 0 for s in samples)
        assert reasons == {"no such method": "KeyError: 'no such method'"}

    def test_what_would_take_too_long_is_left_out(self):
        samples, reasons = take_times(TINY, "cpu", 1, Limits(1, 1, longest=0), ["occlusion"])
        assert (samples, reasons) == ([], {"occlusion": "left out: 4 passes would take 0 minutes"})

    def test_a_row_that_fails_is_not_run_again(self, monkeypatch):
        """It runs when it warms up, and no more after that."""
        runs = []

        def run():
            runs.append(None)
            if len(runs) > 1:
                raise MemoryError

        monkeypatch.setattr("benchmarks.rows.Subject.row", lambda self, name: Row(run, FORWARD))
        assert take_times(TINY, "cpu", 1, LIMITS, ["a"]) == ([], {"a": "MemoryError"})
        assert len(runs) == 2

    def test_a_case_that_fails_is_named_and_the_others_go_on(self, tmp_path, monkeypatch):
        broken = TINY._replace(pixels=16)
        preset = Preset(
            tables=dict.fromkeys((broken, TINY), ("gmar-l1", "rollout")), growth={}, limits=LIMITS, exact=()
        )

        def times(work, case, device, threads, limits, names):
            if case == broken:
                raise BrokenProcessPool("killed")
            return [Sample("rollout", FORWARD, 2.0, 1.0)], {"gmar-l1": "no memory"}

        monkeypatch.setattr("benchmarks.measuring.isolated", times)
        measuring = Measuring(preset, "cpu", 1)
        measuring.times()
        assert measuring.found[str(broken)].reasons == {EVERYTHING: "BrokenProcessPool: killed"}
        write_report(tmp_path, measuring.found, preset, "command", {"processor": "a"}, {"torch": "b"})
        report = (tmp_path / "report.md").read_text()
        assert ["rollout", "forward", "2.00 × [2.00, 2.00]"] in [row[:3] for row in cells(report)]
        assert f"{broken}: not measured: BrokenProcessPool: killed" in report
        written = json.loads((tmp_path / "report.json").read_text())["cases"][str(TINY)]
        assert [(line["row"], line["ratio"] and line["ratio"]["median"]) for line in written] == [
            (FORWARD, None),
            ("gmar-l1", None),
            ("rollout", 2.0),
        ]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_name_rows_and_what_grows(preset):
    assert {name for names in preset.rows.values() for name in names} <= {*NAMES, ON_DISK}
    for growing in preset.growth.values():
        assert len(growing) >= 3
        assert {case.layers for case in growing}.isdisjoint({None})


def test_exactness_is_measured_of_every_method_that_has_a_formula():
    model, inputs = Case("ViT-Ti", 64, 2, layers=4).build("cpu")
    errors = {agreement.method: agreement.error for agreement in of_methods(model, inputs)}
    assert list(errors) == [name for name, row in METHODS.items() if row.expected is not None]
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize(("precision", "least"), [(torch.bfloat16, 0.97), (torch.float16, 0.999)])
def test_half_precision_is_as_exact_as_the_models_own_numbers(precision, least):
    model, inputs = Case("ViT-Ti", 64, 2, layers=2).build("cpu")
    names = ["gmar-l1", "rollout-forward", "gradient-rollout", "cdam"]
    found = list(of_half_precision(model, inputs, precision, names))
    assert [agreement.method for agreement in found] == names
    assert min(agreement.correlation for agreement in found) > least
    for agreement in found[:3]:
        assert abs(agreement.correlation - agreement.correlation_of_model_least) < 0.005
    assert found[3].correlation_of_model is None


def test_evidence_on_windows_keeps_no_more_than_it_reads():
    """What layers passed by give comes on top of forward and backward, and the pass ends with the last target."""
    torch.manual_seed(0)
    config = SwinConfig(image_size=112, embed_dim=24, depths=[2, 2, 4], num_heads=[2, 4, 8])
    model = SwinForImageClassification(config).eval().requires_grad_(False)
    inputs, evidence = torch.randn(1, 3, 112, 112), AttentionEvidence(model)
    evidence.attribute(inputs, target=0)  # finds out how the layers run
    with Held() as explained:
        evidence.attribute(inputs, target=0)
    leaf = inputs.clone().requires_grad_()
    with Held() as own:
        torch.autograd.grad(model(leaf).logits[0, 0], leaf)
    assert explained.peak <= 1.25 * own.peak
    with Held() as several:
        evidence.explain(inputs, targets=[0, 1])
    assert several.peak > explained.peak  # which must keep the pass for the second
